//! What tests do with a renderer in one go.

use super::super::backing::Backing;
use super::super::protocol::Transfer2d;
use super::super::region::{Rect, Region};
use super::{Renderer, ResourceError};
use crate::backend::MemoryGuard;

/// Requests that the device does in several steps.
pub(super) trait InOneGo: Renderer {
    /// Attaches a backing of `pieces`.
    fn attach(
        &mut self,
        id: u32,
        pieces: &[(u64, u32)],
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        let mut backing: Backing = self.new_backing(id)?;
        backing
            .add(pieces.iter().copied(), memory)
            .map_err(|error| ResourceError::Backing { id, error })?;
        backing.finish();
        self.attach_backing(id, backing, memory)
    }

    /// Does all of a transfer.
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

impl<R: Renderer> InOneGo for R {}
