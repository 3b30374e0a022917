//! A pass over each of the two queues.

use crate::backend::{QueuePass, RateLimitedLog, VirtqueueError};

use super::buffer::{read_event, write_event};
use super::report::Reports;
use super::source::Description;
use super::status::Status;
use super::wire::Event;

/// Reports, or parts of one, that a pass gives the driver.
pub const MAX_REPORTS: usize = 64;
/// Status buffers that a pass takes.
const MAX_STATUS: usize = 256;

/// Whether a pass left something to do for which no kick will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// There is nothing to do until the next kick or event.
    Done,
    /// The pass was long enough; another is to follow.
    Unfinished,
}

/// The queue that carries events to the driver.
#[derive(Debug, Default)]
pub struct EventQueue {
    /// The most buffers that the driver had there at once. A report waits for as many as it needs,
    /// but not for more than the driver has ever given.
    most_buffers: u16,
    trouble: RateLimitedLog,
}

impl EventQueue {
    /// The queue will be another driver's.
    pub fn reset(&mut self) {
        self.most_buffers = 0;
    }

    /// Gives the driver of `reports` what it has buffers for, shown at once.
    ///
    /// # Errors
    /// Where the driver broke the queue.
    pub fn give(
        &mut self,
        mut ring: QueuePass<'_>,
        reports: &mut Reports,
    ) -> Result<Pass, VirtqueueError> {
        let pass = self.fill(&mut ring, reports);
        ring.flush_used()?;
        pass
    }

    fn fill(
        &mut self,
        ring: &mut QueuePass<'_>,
        reports: &mut Reports,
    ) -> Result<Pass, VirtqueueError> {
        for _ in 0..MAX_REPORTS {
            let Some(length) = reports.next_report() else {
                ring.disable_notification()?;
                return Ok(Pass::Done);
            };
            let available = ring.available()?;
            self.most_buffers = self.most_buffers.max(available);
            // A report becomes visible as a whole, unless the driver's buffers are too few for it
            // even when it gives them all.
            let most = self.most_buffers.max(1);
            let needed = u16::try_from(length).map_or(most, |length| length.min(most));
            if available < needed {
                if ring.enable_notification_for_more(available)? {
                    continue;
                }
                return Ok(Pass::Done);
            }
            for _ in 0..needed {
                let (Some(event), Some(chain)) = (reports.next_event(), ring.pop()?) else {
                    // The front-end stops the queue just now, or the driver breaks it.
                    return Ok(Pass::Done);
                };
                let head = chain.head_index();
                if write_event(&chain, ring.memory(), event) {
                    ring.add_used(head, Event::SIZE as u32);
                    reports.sent();
                } else {
                    ring.add_used(head, 0);
                    self.trouble.warn(
                        "the driver has a buffer in the event queue that does not take an event of 8 bytes",
                    );
                }
            }
        }
        Ok(Pass::Unfinished)
    }
}

/// The queue that carries status to the device.
#[derive(Debug, Default)]
pub struct StatusQueue {
    trouble: RateLimitedLog,
}

impl StatusQueue {
    /// Takes what the driver sent, and appends to `wanted` what `status` has `device` do for it.
    ///
    /// # Errors
    /// Where the driver broke the queue.
    pub fn take(
        &mut self,
        mut ring: QueuePass<'_>,
        status: &mut Status,
        device: &Description,
        wanted: &mut Vec<Event>,
    ) -> Result<Pass, VirtqueueError> {
        let pass = self.empty(&mut ring, |event| wanted.extend(status.ask(event, device)));
        ring.flush_used()?;
        pass
    }

    fn empty(
        &mut self,
        ring: &mut QueuePass<'_>,
        mut sent: impl FnMut(Event),
    ) -> Result<Pass, VirtqueueError> {
        for _ in 0..MAX_STATUS {
            let Some(chain) = ring.pop()? else {
                if ring.enable_notification()? {
                    continue;
                }
                return Ok(Pass::Done);
            };
            match read_event(&chain, ring.memory()) {
                Some(event) => sent(event),
                None => self.trouble.warn(
                    "the driver sent a buffer through the status queue that holds no event of 8 bytes",
                ),
            }
            ring.add_used(chain.head_index(), 0);
        }
        Ok(Pass::Unfinished)
    }
}
