//! One turn of a virtqueue: bounded, and shown to the driver at once.

use crate::backend::{GuestMemory, QueuePass, RateLimitedLog, VirtqueueError, Vring};

/// Whether a turn left work for which no kick will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnEnd {
    /// There is no work until the next kick or event.
    Done,
    /// The turn reached its bound, and another one has to follow.
    Unfinished,
}

/// Serves a virtqueue for one turn by `serve`. The used ring is updated once, and the driver notified at
/// most once. A broken queue is logged as `name` in `guest_errors`, and the front-end told.
pub(super) fn serve_turn(
    name: &str,
    vring: &Vring,
    memory: &GuestMemory,
    guest_errors: &mut RateLimitedLog,
    serve: impl FnOnce(&mut QueuePass<'_>, &mut RateLimitedLog) -> Result<TurnEnd, VirtqueueError>,
) -> TurnEnd {
    let Some(mut pass) = QueuePass::begin(vring, memory) else {
        return TurnEnd::Done;
    };
    let end = serve(&mut pass, guest_errors);
    pass.flush_used().and(end).unwrap_or_else(|error| {
        vring.report_error();
        guest_errors.warn(format_args!("the {name} cannot be used: {error}"));
        TurnEnd::Done
    })
}
