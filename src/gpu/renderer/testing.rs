// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What tests do with a renderer in one go.

use crate::backend::MemoryGuard;
use crate::geometry::Rect;
use crate::gpu::protocol::{MemEntry, Transfer2d};
use crate::gpu::region::Region;
use crate::gpu::resource::{Backing, ResourceError};

use super::Renderer;

/// Requests that the device executes in several steps.
pub(super) trait WholeRequests: Renderer {
    /// Attaches a backing of `pieces`.
    fn attach(
        &mut self,
        id: u32,
        pieces: &[(u64, u32)],
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        let mut backing: Backing = self.new_backing(id, pieces.len() as u32)?;
        backing
            .add(pieces.iter().copied().map(MemEntry::from), memory)
            .map_err(|source| ResourceError::Backing { id, source })?;
        backing.finish();
        self.attach_backing(id, backing, memory)
    }

    /// Executes all steps of a transfer.
    fn transfer(
        &mut self,
        id: u32,
        rect: Rect,
        offset: u64,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<(), ResourceError> {
        let transfer = Transfer2d { id, rect, offset };
        let mut rows = 0;
        loop {
            rows += self
                .transfer_to_host_2d(&transfer, rows, memory, changed)?
                .rows;
            if rows >= rect.height {
                return Ok(());
            }
        }
    }
}

impl<R: Renderer> WholeRequests for R {}
