//! The eventq, which carries reports to the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, write_event};
use crate::input::report::ReportQueue;

use super::queue_turn::{Next, QueueLog, TurnEnd, serve_turn};

/// Most reports, or parts of one, that a turn sends.
pub(super) const MAX_REPORTS: usize = 64;

/// The event queue.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// The most buffers that the driver had available at once. A report waits for as many as it needs,
    /// but for no more than this.
    most_buffers: u16,
    log: QueueLog,
    dropped_reports: RateLimitedLog,
}

impl EventQueue {
    /// The queue's next driver may be another one.
    pub(super) fn reset(&mut self) {
        self.most_buffers = 0;
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
    most_buffers: &mut u16,
    guest_errors: &mut RateLimitedLog,
) -> Result<Next, VirtqueueError> {
    let Some(length) = reports.next_report() else {
        pass.disable_notification()?;
        return Ok(Next::Wait);
    };
    let available = pass.available()?;
    *most_buffers = available.max(*most_buffers);
    // A report becomes visible as a whole, unless it needs more buffers than the driver ever has
    // available.
    let most = (*most_buffers).max(1);
    let needed = u16::try_from(length).map_or(most, |length| length.min(most));
    if available < needed {
        if pass.enable_notification_for_more(available)? {
            return Ok(Next::Step);
        }
        return Ok(Next::Wait);
    }
    for _ in 0..needed {
        let (Some(event), Some(chain)) = (reports.next_event(), pass.pop()?) else {
            // The front-end is stopping the queue, or the driver broke it.
            return Ok(Next::Wait);
        };
        let head = chain.head_index();
        if write_event(&chain, pass.memory(), event) {
            pass.add_used(head, Event::SIZE as u32);
            reports.sent();
        } else {
            pass.add_used(head, 0);
            guest_errors.warn(
                "the driver made a buffer available in the event queue that has no room for an event of 8 bytes",
            );
        }
    }
    Ok(Next::Step)
}
