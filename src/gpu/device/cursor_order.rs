//! The order of requests across the two queues, where it matters.
//!
//! Some drivers (Windows' viogpudo) transfer a cursor's pixels by the control queue and make
//! UPDATE_CURSOR available on the cursor queue at once, without waiting for that. So a cursor request
//! that reads pixels waits for the control requests that are available when it is first popped, and for
//! no others: a driver that floods the control queue does not block its cursor. Other cursor requests
//! wait only for those before them.

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use crate::backend::{GuestMemory, QueuePass, Vring};

/// Consecutive requests of a queue, by their positions.
#[derive(Clone, Copy)]
struct Span {
    start: u16,
    len: u16,
}

impl Span {
    /// The available requests of a queue that were not popped yet; `None` if the queue is not started, or
    /// broken.
    fn waiting(vring: &Vring, memory: &GuestMemory) -> Option<Self> {
        let len = QueuePass::begin(vring, memory)?.available().ok()?;
        let start = position(vring);
        Some(Self { start, len })
    }

    fn contains(self, position: u16) -> bool {
        position.wrapping_sub(self.start) < self.len
    }
}

/// The next available index of a queue.
pub(super) fn position(vring: &Vring) -> u16 {
    vring.get_ref().get_queue().next_avail()
}

struct Wait {
    /// The requests that wait.
    cursors: Span,
    /// The requests that they wait for.
    control: Span,
    is_over: bool,
}

/// Whether the cursor queue waits for the control queue.
#[derive(Default)]
pub(super) struct CursorOrder(Option<Wait>);

impl CursorOrder {
    /// Has the requests of the cursor queue wait for those of the control queue, if there are any.
    pub(super) fn wait(&mut self, cursor: &Vring, control: Option<&Vring>, memory: &GuestMemory) {
        // In this order: control requests that were made available before a cursor request are included.
        let cursors = Span::waiting(cursor, memory).unwrap_or(Span {
            start: position(cursor),
            len: 1,
        });
        let control = control
            .and_then(|control| Span::waiting(control, memory))
            .unwrap_or(Span { start: 0, len: 0 });
        self.0 = Some(Wait {
            cursors,
            control,
            is_over: control.len == 0,
        });
    }

    /// Whether the cursor queue waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.0.as_ref().is_some_and(|wait| !wait.is_over)
    }

    /// Whether the request of the cursor queue at `position` has waited.
    pub(super) fn has_waited(&self, position: u16) -> bool {
        let wait = self.0.as_ref();
        wait.is_some_and(|wait| wait.is_over && wait.cursors.contains(position))
    }

    /// The control queue is at `position` now, and goes on by itself, or not: then nothing waits for it
    /// any more. Tells whether that ends a wait.
    pub(super) fn control_went_on(&mut self, position: u16, goes_on: bool) -> bool {
        let Some(wait) = self.0.as_mut().filter(|wait| !wait.is_over) else {
            return false;
        };
        wait.is_over = !goes_on || !wait.control.contains(position);
        wait.is_over
    }

    /// One of the queues is stopped: nothing waits any more. Tells whether anything did.
    pub(super) fn forget(&mut self) -> bool {
        let waited = self.is_waiting();
        self.0 = None;
        waited
    }
}
