//! Transfers between resources and the guest's memory: their bounds, and how they are executed.

mod bands;

use crate::gpu::protocol::Transfer3d;
use crate::gpu::renderer::{Copied, Direction};
use crate::gpu::resource::{BackingError, PIXEL_LEN, ResourceError};

use super::command_stream::{self, StreamTransfer};
use super::library::Library;
use super::limits;
use super::resources::{Resource, Resources};
use bands::RowLayout;

/// Most iovecs that the library looks at for one call, over all rows. This takes some seconds.
const MAX_STEPS: u64 = 1 << 32;

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
    let is_inside = limits::level_size(args, transfer.level).is_some_and(|level| {
        let part = &transfer.part;
        part.lies_within(level.width, level.height, level.depth)
    });
    if !is_inside || !limits::is_computable(args, transfer) {
        return Err(out_of_bounds);
    }
    let iovecs = library.iovecs(id).ok_or(ResourceError::NoBacking(id))?;
    if !is_of_picture(resource, transfer)
        && limits::steps(transfer, iovecs.as_slice().len()) > MAX_STEPS
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

/// Checks the transfers in a command stream.
pub(super) fn check_stream(
    library: &Library,
    resources: &Resources,
    stream: &[u32],
) -> Result<(), ResourceError> {
    let mut steps: u64 = 0;
    for StreamTransfer { transfer, backing } in command_stream::transfers(stream) {
        let iovecs = backing.and_then(|id| library.iovecs(id));
        let iovecs = iovecs.map_or(0, |iovecs| iovecs.as_slice().len());
        steps = steps.saturating_add(limits::steps(&transfer, iovecs));
        // The library refuses transfers of unknown resources.
        let resource = resources.get(transfer.id);
        let is_computable = resource.map_or(true, |resource| {
            limits::is_computable(resource.args(), &transfer)
        });
        if !is_computable || steps > MAX_STEPS {
            return Err(ResourceError::Transfer { transfer });
        }
    }
    Ok(())
}

/// Whether a transfer copies rows of a picture and nothing else.
fn is_of_picture(resource: &Resource, transfer: &Transfer3d) -> bool {
    resource.picture_format().is_some() && transfer.level == 0 && transfer.part.depth == 1
}
