//! The statusq, which carries LEDs and sounds from the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, read_event};

use super::queue_turn::{TurnEnd, serve_turn};

/// Most buffers that a turn takes.
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
    ) -> TurnEnd {
        let errors = &mut self.guest_errors;
        serve_turn("status queue", vring, memory, errors, |pass, errors| {
            empty(pass, execute, errors)
        })
    }
}

fn empty(
    pass: &mut QueuePass<'_>,
    mut execute: impl FnMut(Event),
    guest_errors: &mut RateLimitedLog,
) -> Result<TurnEnd, VirtqueueError> {
    for _ in 0..MAX_STATUS {
        let Some(chain) = pass.pop()? else {
            if pass.enable_notification()? {
                continue;
            }
            return Ok(TurnEnd::Done);
        };
        match read_event(&chain, pass.memory()) {
                Some(event) => execute(event),
                None => guest_errors.warn(
                    "the driver made a buffer available in the status queue that is smaller than an event of 8 bytes",
                ),
            }
        pass.add_used(chain.head_index(), 0);
    }
    Ok(TurnEnd::Unfinished)
}
