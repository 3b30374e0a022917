// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much memory the guest's pictures of all heads take together.

use std::cell::Cell;
use std::rc::Rc;

use crate::geometry::Size;

use super::framebuffer::PIXEL_LEN;

/// Bytes that the guest's pictures of all heads may take together: 16 screens of 3840x2160, or 4 of 7680x4320.
///
/// This is half of `MemoryMax=` of vhost-vnc@.service. The rest is for 32 viewers, each some 3 MiB and 1 MiB for the
/// buffers of its socket, for texts in the place of pictures, and for the program.
const LIMIT: u64 = 512 << 20;

/// What is left for pictures. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct PictureBudget(Rc<Cell<u64>>);

impl Default for PictureBudget {
    fn default() -> Self {
        Self(Rc::new(Cell::new(LIMIT)))
    }
}

impl PictureBudget {
    /// The part for a picture of `size`, if there is so much left.
    pub(super) fn take(&self, size: Size) -> Option<PictureShare> {
        let bytes = size.area().checked_mul(PIXEL_LEN as u64)?;
        self.0.set(self.0.get().checked_sub(bytes)?);
        Some(PictureShare {
            budget: self.clone(),
            bytes,
        })
    }
}

/// A part of the budget, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct PictureShare {
    budget: PictureBudget,
    bytes: u64,
}

impl Drop for PictureShare {
    fn drop(&mut self) {
        let left = &self.budget.0;
        left.set(left.get().saturating_add(self.bytes));
    }
}
