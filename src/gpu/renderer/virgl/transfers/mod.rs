// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Transfers between resources and the guest's memory: their bounds, and how they are executed.

mod bands;
mod bounds;

use crate::gpu::protocol::Transfer3d;
use crate::gpu::renderer::{Copied, Direction};
use crate::gpu::resource::{BackingError, PIXEL_LEN, ResourceError};

use super::library::Library;
use super::limits::MAX_STEPS;
use super::resources::Resource;
use super::texture_layout::level_size;
use bands::RowLayout;

pub(super) use bounds::{end_fits_32_bits, iovec_steps};

/// Checks that a transfer is within its resource and starts within its backing. The library checks
/// both again, but not all sums that overflow.
pub(super) fn check(
    library: &Library,
    resource: &Resource,
    transfer: &Transfer3d,
) -> Result<(), ResourceError> {
    let id = transfer.id;
    let out_of_bounds = ResourceError::Transfer {
        transfer: *transfer,
    };
    let args = resource.args();
    let is_inside = level_size(args, transfer.level).is_some_and(|level| {
        let part = &transfer.part;
        part.lies_within(level.width, level.height, level.depth)
    });
    if !is_inside || !end_fits_32_bits(args, transfer) {
        return Err(out_of_bounds);
    }
    let iovecs = library.iovecs(id).ok_or(ResourceError::NoBacking(id))?;
    if !is_of_picture(resource, transfer)
        && iovec_steps(transfer, iovecs.as_slice().len()) > MAX_STEPS
    {
        return Err(out_of_bounds);
    }
    if transfer.offset >= iovecs.len() {
        let source = BackingError::Short {
            has: iovecs.len(),
            needed: transfer.offset.saturating_add(1),
        };
        return Err(ResourceError::Backing { id, source });
    }
    Ok(())
}

/// Executes a transfer that [`check`] accepted. Of a picture, it copies the rows from `first` on, about
/// as many as one step allows; of other resources, everything.
pub(super) fn execute(
    library: &mut Library,
    resource: &Resource,
    context: u32,
    transfer: &Transfer3d,
    direction: Direction,
    first: u32,
) -> Result<Copied, ResourceError> {
    let copied = if is_of_picture(resource, transfer) {
        let row_len = |width: u32| u64::from(width).saturating_mul(PIXEL_LEN as u64);
        let rows = RowLayout {
            len: row_len(transfer.part.width),
            stride: match transfer.stride {
                0 => row_len(resource.size().width),
                stride => stride.into(),
            },
        };
        bands::transfer_rows(library, context, transfer, direction, first, rows)
    } else {
        let result = library.transfer(context, transfer, direction);
        result.map(|()| Copied {
            rows: transfer.part.height,
            work: transfer.part.volume().saturating_mul(PIXEL_LEN as u64),
        })
    };
    copied.map_err(|_| ResourceError::Refused(transfer.id))
}

/// Whether a transfer copies rows of a picture and nothing else.
fn is_of_picture(resource: &Resource, transfer: &Transfer3d) -> bool {
    resource.picture_format().is_some() && transfer.level == 0 && transfer.part.depth == 1
}
