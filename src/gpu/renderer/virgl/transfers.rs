//! Transfers between resources and the guest's pages: where they may lie, and how they are done.

use super::super::super::protocol::Transfer3d;
use super::super::{Copied, Direction};
use super::{Resource, VirglRenderer, limits};
use crate::gpu::resource::{BackingError, PIXEL_LEN, ResourceError};

/// Most vectors that the library looks at for a transfer that it does in one go, each for all its rows:
/// some seconds.
pub(super) const MAX_STEPS: u64 = 1 << 32;

impl VirglRenderer {
    /// Does a transfer that was checked: of pictures, the rows from `first` on, as many as can be done
    /// without the others having to wait for it.
    pub(super) fn transfer_from(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
        first: u32,
    ) -> Result<Copied, ResourceError> {
        let id = transfer.id;
        let resource = self.resources.get(id)?;
        let done = if is_picture_of(resource, transfer) {
            let row = |width: u32| u64::from(width).saturating_mul(PIXEL_LEN as u64);
            let stride = match transfer.stride {
                0 => row(resource.new.width),
                given => given.into(),
            };
            let lengths = [row(transfer.part.width), stride];
            self.library
                .transfer_rows(context, transfer, direction, first, lengths)
        } else {
            let done = self.library.transfer(context, transfer, direction);
            done.map(|()| Copied {
                rows: transfer.part.height,
                work: transfer.part.volume().saturating_mul(PIXEL_LEN as u64),
            })
        };
        done.map_err(|_| ResourceError::Refused(id))
    }

    /// Where a transfer lies within its resource and its backing; the library looks at both again.
    pub(super) fn check_transfer(&self, transfer: &Transfer3d) -> Result<(), ResourceError> {
        let id = transfer.id;
        let new = &self.resources.get(id)?.new;
        let inside = limits::level_size(new, transfer.level)
            .is_some_and(|(width, height, depth)| transfer.part.lies_within(width, height, depth));
        if !inside || !limits::is_computable(new, transfer) {
            let transfer = *transfer;
            return Err(ResourceError::Transfer { transfer });
        }
        let pages = self.library.pages(id).ok_or(ResourceError::NoBacking(id))?;
        if !is_picture_of(self.resources.get(id)?, transfer)
            && limits::steps(transfer, pages.vectors().len()) > MAX_STEPS
        {
            let transfer = *transfer;
            return Err(ResourceError::Transfer { transfer });
        }
        if transfer.offset >= pages.len() {
            let source = BackingError::Short {
                has: pages.len(),
                needed: transfer.offset.saturating_add(1),
            };
            return Err(ResourceError::Backing { id, source });
        }
        Ok(())
    }
}

/// Whether a transfer is one of a picture's own pixels: rows, and nothing else.
fn is_picture_of(resource: &Resource, transfer: &Transfer3d) -> bool {
    resource.format().is_some() && transfer.level == 0 && transfer.part.depth == 1
}
