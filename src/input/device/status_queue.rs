//! The statusq, which carries LEDs and sounds from the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, read_event};

use super::pass_result::PassResult;

/// Most buffers that a pass takes.
const MAX_STATUS: usize = 256;

/// The status queue.
#[derive(Debug, Default)]
pub(super) struct StatusQueue {
    guest_errors: RateLimitedLog,
}

impl StatusQueue {
    /// Receives the driver's status events, and gives each to `execute`.
    pub(super) fn receive(
        &mut self,
        vring: &Vring,
        memory: &GuestMemory,
        execute: impl FnMut(Event),
    ) -> PassResult {
        let Some(mut pass) = QueuePass::begin(vring, memory) else {
            return PassResult::Done;
        };
        let emptied = self.empty(&mut pass, execute);
        pass.flush_used().and(emptied).unwrap_or_else(|error| {
            vring.report_error();
            self.guest_errors
                .warn(format_args!("the status queue cannot be used: {error}"));
            PassResult::Done
        })
    }

    fn empty(
        &mut self,
        pass: &mut QueuePass<'_>,
        mut execute: impl FnMut(Event),
    ) -> Result<PassResult, VirtqueueError> {
        for _ in 0..MAX_STATUS {
            let Some(chain) = pass.pop()? else {
                if pass.enable_notification()? {
                    continue;
                }
                return Ok(PassResult::Done);
            };
            match read_event(&chain, pass.memory()) {
                Some(event) => execute(event),
                None => self.guest_errors.warn(
                    "the driver made a buffer available in the status queue that is smaller than an event of 8 bytes",
                ),
            }
            pass.add_used(chain.head_index(), 0);
        }
        Ok(PassResult::Unfinished)
    }
}
