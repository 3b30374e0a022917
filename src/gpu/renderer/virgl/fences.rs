// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Fences: points in the work of virglrenderer.

use crate::gpu::renderer::Fence;

use super::library::Library;

/// Numbers the fences of a library.
#[derive(Debug, Default)]
pub(super) struct Fences {
    last: u32,
}

impl Fences {
    /// Creates a fence after all work submitted so far; `None` if the library cannot create one: it
    /// would never signal it.
    pub(super) fn create(&mut self, library: &mut Library) -> Option<Fence> {
        let fence = self.last.wrapping_add(1);
        library.create_fence(fence).ok()?;
        self.last = fence;
        Some(Fence(fence))
    }
}

/// Whether the work before `fence` is done.
pub(super) fn is_retired(library: &Library, fence: Fence) -> bool {
    // The numbers wrap around; those in flight are close to each other.
    library.retired().wrapping_sub(fence.0) as i32 >= 0
}
