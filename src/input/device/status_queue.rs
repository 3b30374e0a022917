// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The statusq, which carries LEDs and sounds from the driver (virtio 1.2, 5.8.2 and 5.8.6).

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};
use crate::input::protocol::{Event, read_event};

use super::queue_turn::{Next, QueueLog, TurnEnd, serve_turn};

/// Most buffers that a turn takes.
const MAX_STATUS: usize = 256;

/// The status queue.
#[derive(Debug, Default)]
pub(super) struct StatusQueue {
    log: QueueLog,
}

impl StatusQueue {
    /// Takes the driver's status events, and gives each to `execute`.
    pub(super) fn take_status_events(
        &mut self,
        vring: &Vring,
        memory: &GuestMemory,
        mut execute: impl FnMut(Event),
    ) -> TurnEnd {
        let log = &mut self.log;
        serve_turn(
            "status queue",
            vring,
            memory,
            log,
            MAX_STATUS,
            |pass, errors| take_status_event(pass, &mut execute, errors),
        )
    }
}

/// Takes the next status event, and gives it to `execute`.
fn take_status_event(
    pass: &mut QueuePass<'_>,
    mut execute: impl FnMut(Event),
    guest_errors: &mut RateLimitedLog,
) -> Result<Next, VirtqueueError> {
    let Some(chain) = pass.pop()? else {
        if pass.enable_notification()? {
            return Ok(Next::Step);
        }
        return Ok(Next::Wait);
    };
    match read_event(&chain, pass.memory()) {
        Some(event) => execute(event),
        None => guest_errors.warn(
            "the driver made a buffer available in the status queue that is smaller than an event of 8 bytes",
        ),
    }
    pass.add_used(chain.head_index(), 0);
    Ok(Next::Step)
}
