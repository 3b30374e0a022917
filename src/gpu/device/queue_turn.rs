//! One turn of a queue: how many requests are served, and for how long, before the others have theirs.

use std::time::{Duration, Instant};

use crate::backend::{Chain, GuestMemory, QueuePass, VirtqueueError, Vring};

/// Requests of one queue after which the others have their turn: more than drivers make for a frame, so
/// that what is ready together is shown together.
pub(super) const PASS_REQUESTS: usize = 120;
/// Time after which the others have their turn: following a request of very many descriptors can take
/// longer than executing it, and how long a 3D command takes is up to the guest.
const PASS_TIME: Duration = Duration::from_millis(10);

/// What follows a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The next request.
    Request,
    /// The turn of the others; then the queue goes on by itself.
    Yield,
    /// The queue waits until it is notified.
    Wait,
}

/// Serves the requests of one queue.
pub(super) trait RequestHandler {
    /// Called before the first request.
    fn begin(&mut self, queue: &mut QueuePass<'_>) {
        let _ = queue;
    }

    /// Whether no request may be taken now; the queue is notified when one may.
    fn is_blocked(&self) -> bool {
        false
    }

    /// Serves a request.
    fn serve(&mut self, queue: &mut QueuePass<'_>, chain: Chain) -> Next;
}

/// Serves a queue for one turn. `true` if requests are left of which no event will tell.
///
/// # Errors
/// If the queue is broken; what was served until then is completed.
pub(super) fn serve_turn(
    vring: &Vring,
    memory: &GuestMemory,
    handler: &mut impl RequestHandler,
) -> Result<bool, VirtqueueError> {
    let Some(mut queue) = QueuePass::begin(vring, memory) else {
        return Ok(false);
    };
    let end = serve_requests(&mut queue, handler);
    queue.flush_used()?;
    match end? {
        TurnEnd::Empty => queue.enable_notification(),
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
    /// It is the others' turn.
    Limit,
}

fn serve_requests(
    queue: &mut QueuePass<'_>,
    handler: &mut impl RequestHandler,
) -> Result<TurnEnd, VirtqueueError> {
    let began = Instant::now();
    handler.begin(queue);
    for _ in 0..PASS_REQUESTS {
        if handler.is_blocked() {
            return Ok(TurnEnd::Waiting);
        }
        let Some(chain) = queue.pop()? else {
            return Ok(TurnEnd::Empty);
        };
        match handler.serve(queue, chain) {
            Next::Request => {}
            Next::Yield => break,
            Next::Wait => return Ok(TurnEnd::Waiting),
        }
        if began.elapsed() >= PASS_TIME {
            break;
        }
    }
    Ok(TurnEnd::Limit)
}
