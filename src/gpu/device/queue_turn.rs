// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One turn of a queue: serves at most [`MAX_TURN_REQUESTS`] requests, for about [`MAX_TURN_TIME`], before
//! the other queue and other events are served. A turn is one [`QueuePass`] over the virtqueue.

use std::time::{Duration, Instant};

use crate::backend::{Chain, GuestMemory, QueuePass, VirtqueueError, Vring};

/// Most requests of one queue in a turn: more than drivers make for a frame, so that what is ready
/// together is shown together.
pub(super) const MAX_TURN_REQUESTS: usize = 120;
/// Time after which a turn ends: following a request of very many descriptors can take
/// longer than executing it, and how long a 3D command takes is up to the guest.
const MAX_TURN_TIME: Duration = Duration::from_millis(10);

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request.
    Request,
    /// The same request again, which was put back.
    Again,
    /// The turn ends, and the caller schedules another one.
    Yield,
    /// The turn ends, and the queue waits until it is notified.
    Wait,
}

/// Serves the requests of one queue.
pub(super) trait RequestHandler {
    /// Called before the first request.
    fn begin(&mut self, pass: &mut QueuePass<'_>) {
        let _ = pass;
    }

    /// Whether no request may be taken now; the queue is notified when one may.
    fn is_blocked(&self) -> bool {
        false
    }

    /// Serves a request.
    fn serve(&mut self, pass: &mut QueuePass<'_>, chain: Chain) -> Next;
}

/// Serves a queue for one turn. Returns `true` if requests remain for which no kick will come: the caller
/// must schedule another turn.
///
/// # Errors
/// If the queue is broken; what was served until then is completed.
pub(super) fn serve_turn(
    vring: &Vring,
    memory: &GuestMemory,
    handler: &mut impl RequestHandler,
) -> Result<bool, VirtqueueError> {
    let Some(mut pass) = QueuePass::begin(vring, memory) else {
        return Ok(false);
    };
    let end = serve_requests(&mut pass, handler);
    pass.flush_used()?;
    match end? {
        TurnEnd::Empty => pass.enable_notification(),
        TurnEnd::Waiting => Ok(false),
        TurnEnd::Limit => Ok(true),
    }
}

/// Why a turn ends.
enum TurnEnd {
    /// There are no more requests.
    Empty,
    /// The queue waits until it is notified.
    Waiting,
    /// The turn has reached a limit, or yields.
    Limit,
}

fn serve_requests(
    pass: &mut QueuePass<'_>,
    handler: &mut impl RequestHandler,
) -> Result<TurnEnd, VirtqueueError> {
    let began = Instant::now();
    handler.begin(pass);
    for _ in 0..MAX_TURN_REQUESTS {
        if handler.is_blocked() {
            return Ok(TurnEnd::Waiting);
        }
        let Some(chain) = pass.pop()? else {
            return Ok(TurnEnd::Empty);
        };
        match handler.serve(pass, chain) {
            Next::Request | Next::Again => {}
            Next::Yield => break,
            Next::Wait => return Ok(TurnEnd::Waiting),
        }
        // What a request freed takes memory until the commit.
        pass.commit_changes();
        if began.elapsed() >= MAX_TURN_TIME {
            break;
        }
    }
    Ok(TurnEnd::Limit)
}
