//! The eventq, which carries reports to the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, write_event};
use crate::input::report::ReportQueue;

use super::pass_result::PassResult;

/// Most reports, or parts of one, that a pass sends.
pub(super) const MAX_REPORTS: usize = 64;

/// The event queue.
#[derive(Debug, Default)]
pub(super) struct EventQueue {
    /// The most buffers that the driver had available at once. A report waits for as many as it needs,
    /// but for no more than this.
    most_buffers: u16,
    guest_errors: RateLimitedLog,
}

impl EventQueue {
    /// The queue's next driver may be another one.
    pub(super) fn reset(&mut self) {
        self.most_buffers = 0;
    }

    /// Sends the driver those `reports` that it has buffers for, all in one update of the used ring.
    pub(super) fn send(
        &mut self,
        vring: &Vring,
        memory: &GuestMemory,
        reports: &mut ReportQueue,
    ) -> PassResult {
        let Some(mut pass) = QueuePass::begin(vring, memory) else {
            return PassResult::Done;
        };
        let filled = self.fill(&mut pass, reports);
        pass.flush_used().and(filled).unwrap_or_else(|error| {
            vring.report_error();
            self.guest_errors
                .warn(format_args!("the event queue cannot be used: {error}"));
            PassResult::Done
        })
    }

    fn fill(
        &mut self,
        pass: &mut QueuePass<'_>,
        reports: &mut ReportQueue,
    ) -> Result<PassResult, VirtqueueError> {
        for _ in 0..MAX_REPORTS {
            let Some(length) = reports.next_report() else {
                pass.disable_notification()?;
                return Ok(PassResult::Done);
            };
            let available = pass.available()?;
            self.most_buffers = self.most_buffers.max(available);
            // A report becomes visible as a whole, unless it needs more buffers than the driver ever
            // has available.
            let most = self.most_buffers.max(1);
            let needed = u16::try_from(length).map_or(most, |length| length.min(most));
            if available < needed {
                if pass.enable_notification_for_more(available)? {
                    continue;
                }
                return Ok(PassResult::Done);
            }
            for _ in 0..needed {
                let (Some(event), Some(chain)) = (reports.next_event(), pass.pop()?) else {
                    // The front-end is stopping the queue, or the driver broke it.
                    return Ok(PassResult::Done);
                };
                let head = chain.head_index();
                if write_event(&chain, pass.memory(), event) {
                    pass.add_used(head, Event::SIZE as u32);
                    reports.sent();
                } else {
                    pass.add_used(head, 0);
                    self.guest_errors.warn(
                        "the driver made a buffer available in the event queue that has no room for an event of 8 bytes",
                    );
                }
            }
        }
        Ok(PassResult::Unfinished)
    }
}
