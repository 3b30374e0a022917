// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The eventq, which carries reports to the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::continuity::{Ledger, RecordKey};
use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, write_event};
use crate::input::records::{RecordError, tables};
use crate::input::report::ReportQueue;

use super::queue_turn::{Next, QueueLog, TurnEnd, serve_turn};

/// Most reports, or parts of one, that a turn sends.
pub(super) const MAX_REPORTS: usize = 64;

/// The event queue.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    most_buffers: MostBuffers,
    log: QueueLog,
    dropped_reports: RateLimitedLog,
}

/// The most buffers that the driver had available at once. A report waits for as many as it needs, but for no more
/// than this.
#[derive(Debug, Default)]
struct MostBuffers {
    count: u16,
    ledger: Ledger,
}

const MOST_BUFFERS: RecordKey = RecordKey::new(tables::EVENT_QUEUE, 0);

impl MostBuffers {
    fn set(&mut self, count: u16) {
        if self.count != count {
            self.count = count;
            self.ledger.write(MOST_BUFFERS, |value| {
                value.u16(count);
            });
        }
    }
}

impl EventQueue {
    /// The queue as the records say; of a driver that has not made buffers available where there are none.
    ///
    /// # Errors
    /// If a record is invalid.
    pub(super) fn load(ledger: Ledger) -> Result<Self, RecordError> {
        let count = ledger.read(MOST_BUFFERS, |value| value.u16())?;
        let count = count.unwrap_or_default();
        Ok(Self {
            most_buffers: MostBuffers { count, ledger },
            ..Self::default()
        })
    }

    /// The queue's next driver may be another one.
    pub(super) fn reset(&mut self) {
        self.most_buffers.set(0);
    }

    /// Sends the driver those `reports` that it has buffers for.
    pub(super) fn send_reports(
        &mut self,
        vring: &Vring,
        memory: &GuestMemory,
        reports: &mut ReportQueue,
    ) -> TurnEnd {
        let most_buffers = &mut self.most_buffers;
        let log = &mut self.log;
        serve_turn(
            "event queue",
            vring,
            memory,
            log,
            MAX_REPORTS,
            |pass, errors| send_report(pass, reports, most_buffers, errors),
        )
    }

    /// Logs that `count` reports of `label` were dropped, because their driver was too slow.
    pub(super) fn warn_dropped(&mut self, count: u64, label: &str) {
        self.dropped_reports.warn(format_args!(
            "dropped {count} reports of {label}: the guest or this host is too slow; the guest is told the device's current state instead"
        ));
    }
}

/// Sends the next report, or the part of it that the driver can ever have buffers for.
fn send_report(
    pass: &mut QueuePass<'_>,
    reports: &mut ReportQueue,
    most_buffers: &mut MostBuffers,
    guest_errors: &mut RateLimitedLog,
) -> Result<Next, VirtqueueError> {
    let Some(length) = reports.next_report() else {
        pass.disable_notification()?;
        return Ok(Next::Wait);
    };
    let available = pass.available()?;
    most_buffers.set(available.max(most_buffers.count));
    // A report becomes visible as a whole, unless it needs more buffers than the driver ever has
    // available.
    let most = most_buffers.count.max(1);
    let needed = reports.begun().unwrap_or(length.min(most.into()));
    // Not more than a `u16` for `most`.
    let needed = u16::try_from(needed).unwrap_or(most);
    if available < needed {
        if pass.enable_notification_for_more(available)? {
            return Ok(Next::Step);
        }
        return Ok(Next::Wait);
    }
    let end = send_events(pass, reports, needed, guest_errors);
    // The commit of the pass makes it valid that they were sent, together with their buffers.
    reports.record();
    end
}

/// Sends the next `needed` events.
fn send_events(
    pass: &mut QueuePass<'_>,
    reports: &mut ReportQueue,
    needed: u16,
    guest_errors: &mut RateLimitedLog,
) -> Result<Next, VirtqueueError> {
    reports.begin(needed.into());
    let events = reports.next_events(needed.into());
    let mut sent = 0;
    let taken = pass.serve_next(needed, |chain, memory| {
        let Some(event) = events.get(sent) else {
            return 0;
        };
        if write_event(chain, memory, *event) {
            sent += 1;
            return Event::SIZE as u32;
        }
        guest_errors.warn(
            "the driver made a buffer available in the event queue that has no room for an event of 8 bytes",
        );
        0
    });
    // Also if the driver broke the queue behind them.
    reports.sent(sent);
    Ok(match taken? {
        taken if taken == needed => Next::Step,
        // The front-end is stopping the queue.
        _ => Next::Wait,
    })
}
