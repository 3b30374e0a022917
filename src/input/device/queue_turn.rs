// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One turn of a queue: at most so many steps, before the other queue has its turn.

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};

/// What follows a step of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next step.
    Step,
    /// The queue waits for the next kick or event.
    Wait,
}

/// Whether a turn left work for which no kick will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// There is no work until the next kick or event.
    Done,
    /// The turn reached its limit, and another one has to follow.
    Unfinished,
}

/// What a driver does wrong on a virtqueue. A driver that floods the log with bad buffers cannot hide that the
/// queue is broken.
#[derive(Debug, Default)]
pub(super) struct QueueLog {
    buffers: RateLimitedLog,
    queue: RateLimitedLog,
}

/// Serves a virtqueue for one turn: calls `serve` for each step, at most `limit` times. The used ring is
/// updated once, and the driver notified at most once. A broken queue is logged as `name`, and the front-end
/// told.
pub(super) fn serve_turn(
    name: &str,
    vring: &Vring,
    memory: &GuestMemory,
    log: &mut QueueLog,
    limit: usize,
    serve: impl FnMut(&mut QueuePass<'_>, &mut RateLimitedLog) -> Result<Next, VirtqueueError>,
) -> TurnEnd {
    let Some(mut pass) = QueuePass::begin(vring, memory) else {
        return TurnEnd::Done;
    };
    let end = serve_steps(&mut pass, &mut log.buffers, limit, serve);
    pass.flush_used().and(end).unwrap_or_else(|error| {
        vring.report_error();
        log.queue
            .warn(format_args!("the {name} cannot be used: {error}"));
        TurnEnd::Done
    })
}

fn serve_steps(
    pass: &mut QueuePass<'_>,
    guest_errors: &mut RateLimitedLog,
    limit: usize,
    mut serve: impl FnMut(&mut QueuePass<'_>, &mut RateLimitedLog) -> Result<Next, VirtqueueError>,
) -> Result<TurnEnd, VirtqueueError> {
    for _ in 0..limit {
        if serve(pass, guest_errors)? == Next::Wait {
            return Ok(TurnEnd::Done);
        }
    }
    Ok(TurnEnd::Unfinished)
}
