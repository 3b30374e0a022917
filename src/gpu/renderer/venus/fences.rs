// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fences of contexts' timelines: which are pending, and which a thread of virglrenderer has retired.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use crate::gpu::renderer::Fence;

/// What threads of virglrenderer tell: the fences that they have retired.
#[derive(Debug)]
pub(super) struct RetiredFences {
    /// At most as many as are pending.
    fences: Mutex<Vec<u32>>,
    event: OwnedFd,
}

impl RetiredFences {
    /// # Errors
    /// If the host has no descriptors left.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            fences: Mutex::default(),
            event: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.fences.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fence is retired. On any thread.
    pub(super) fn push(&self, fence: u64) {
        // All that were created have 32 bits.
        if let Ok(fence) = u32::try_from(fence) {
            self.lock().push(fence);
            self.notify();
        }
    }

    /// Makes the event readable.
    pub(super) fn notify(&self) {
        // It fails only where it is readable already, more often than anyone counts.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Ends the event.
    fn clear(&self) {
        // Nothing there is nothing to take.
        let _ = rustix::io::read(&self.event, &mut [0_u8; 8]);
    }
}

impl AsFd for RetiredFences {
    /// Readable after a fence is retired, until [`PendingFences::update`].
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

/// The fences that are not retired yet. All others are.
#[derive(Debug, Default)]
pub(super) struct PendingFences {
    /// The context of each.
    contexts: HashMap<u32, u32>,
    last: u32,
}

impl PendingFences {
    /// A new fence of a context, which `create` creates in the library; `None` if that fails.
    pub(super) fn add<E>(
        &mut self,
        context: u32,
        create: impl FnOnce(u64) -> Result<(), E>,
    ) -> Option<Fence> {
        let fence = self.last.wrapping_add(1);
        self.last = fence;
        // One that is pending after 4 billion others counts as retired.
        self.contexts.insert(fence, context);
        if create(fence.into()).is_err() {
            self.contexts.remove(&fence);
            return None;
        }
        Some(Fence(fence))
    }

    /// Takes what was retired.
    pub(super) fn update(&mut self, retired: &RetiredFences) {
        retired.clear();
        for fence in retired.lock().drain(..) {
            self.contexts.remove(&fence);
        }
    }

    /// The context is gone, with all its work.
    pub(super) fn forget_context(&mut self, context: u32, retired: &RetiredFences) {
        self.contexts.retain(|_, of| *of != context);
        retired.notify();
    }

    pub(super) fn is_retired(&self, fence: Fence) -> bool {
        !self.contexts.contains_key(&fence.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(pending: &mut PendingFences, context: u32) -> Fence {
        pending.add(context, |_| Ok::<_, ()>(())).unwrap()
    }

    #[test]
    fn fences_are_retired_in_any_order() {
        let retired = RetiredFences::new().unwrap();
        let mut pending = PendingFences::default();
        let [first, second] = [1, 2].map(|context| add(&mut pending, context));
        retired.push(second.0.into());
        assert!(!pending.is_retired(second));
        pending.update(&retired);
        assert!(pending.is_retired(second) && !pending.is_retired(first));
        // Numbers that were never created.
        retired.push(u64::MAX);
        retired.push(77);
        pending.update(&retired);
        assert!(!pending.is_retired(first));
    }

    #[test]
    fn context_takes_its_fences_with_it() {
        let retired = RetiredFences::new().unwrap();
        let mut pending = PendingFences::default();
        let [first, second] = [1, 2].map(|context| add(&mut pending, context));
        pending.forget_context(1, &retired);
        assert!(pending.is_retired(first) && !pending.is_retired(second));
        // The requests that wait for it have to be looked at.
        let mut count = [0; 8];
        assert_eq!(rustix::io::read(&retired, &mut count), Ok(8));
    }

    #[test]
    fn fence_that_cannot_be_created_is_none() {
        let mut pending = PendingFences::default();
        assert_eq!(pending.add(1, |_| Err(())), None);
        assert!(pending.contexts.is_empty());
    }
}
