// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The order of requests across the two queues, where it matters.
//!
//! Some drivers (Windows' viogpudo) transfer a cursor's pixels by the control queue and make
//! UPDATE_CURSOR available on the cursor queue at once, without waiting for that. So a cursor request
//! that reads pixels waits for the control requests that are available when it is first popped, and for
//! no others: a driver that floods the control queue does not block its cursor. Other cursor requests
//! wait only for those before them.

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
        let start = vring.next_available();
        Some(Self { start, len })
    }

    fn contains(self, position: u16) -> bool {
        position.wrapping_sub(self.start) < self.len
    }
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
    /// From now on the available requests of the cursor queue wait for those of the control queue, if
    /// there are any.
    pub(super) fn wait(
        &mut self,
        cursor_vring: &Vring,
        control_vring: Option<&Vring>,
        memory: &GuestMemory,
    ) {
        // In this order: control requests that were made available before a cursor request are included.
        let cursors = Span::waiting(cursor_vring, memory).unwrap_or(Span {
            start: cursor_vring.next_available(),
            len: 1,
        });
        let control = control_vring
            .and_then(|vring| Span::waiting(vring, memory))
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

    /// The control queue has reached `position`. With `goes_on` false it will not advance unprompted, so
    /// any wait ends. Returns whether a wait ended.
    pub(super) fn control_went_on(&mut self, position: u16, goes_on: bool) -> bool {
        let Some(wait) = self.0.as_mut().filter(|wait| !wait.is_over) else {
            return false;
        };
        wait.is_over = !goes_on || !wait.control.contains(position);
        wait.is_over
    }

    /// One of the queues is stopped: nothing waits any more. Returns whether anything did.
    pub(super) fn forget(&mut self) -> bool {
        let waited = self.is_waiting();
        self.0 = None;
        waited
    }
}
