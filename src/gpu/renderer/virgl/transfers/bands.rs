// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Transfers of pictures, a few rows at a time.
//!
//! For each row, virglrenderer searches all iovecs that it is given, from the first on. With a large
//! picture in single pages this takes longer than the copy. So each call to the library transfers a
//! band of rows, with only the iovecs that contain it.

use crate::gpu::protocol::Transfer3d;
use crate::gpu::renderer::virgl::library::{Library, Refused};
use crate::gpu::renderer::{Copied, Direction, MAX_STEP_WORK, PIECE_COST};

/// Most iovecs that the library looks at for a band of several rows, over all its rows.
const MAX_BAND_STEPS: usize = 1 << 18;

/// How the rows of a transfer lie in its backing.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowLayout {
    /// Bytes of a row.
    pub(super) len: u64,
    /// Bytes from one row to the next.
    pub(super) stride: u64,
}

impl RowLayout {
    /// Bytes from the start of the first of `rows` rows to the end of the last.
    fn span(self, rows: u32) -> u64 {
        let steps = u64::from(rows.saturating_sub(1)).saturating_mul(self.stride);
        steps.saturating_add(self.len)
    }
}

/// Copies rows between a picture and its backing: from `first` on, until [`MAX_STEP_WORK`] is done.
pub(super) fn transfer_rows(
    library: &mut Library,
    context: u32,
    transfer: &Transfer3d,
    direction: Direction,
    first: u32,
    layout: RowLayout,
) -> Result<Copied, Refused> {
    let iovecs = library.iovecs(transfer.id).ok_or(Refused::INVALID)?;
    let height = transfer.part.height;
    if transfer.offset.saturating_add(layout.span(height)) > iovecs.len() {
        return Err(Refused::INVALID);
    }
    let mut finder = iovecs.finder();
    let mut copied = Copied { rows: 0, work: 0 };
    let most =
        u32::try_from(MAX_STEP_WORK.checked_div(layout.len).unwrap_or(0)).unwrap_or(u32::MAX);
    let mut band = most.max(1);
    loop {
        let done = first.saturating_add(copied.rows);
        let left = height.saturating_sub(done);
        if left == 0 || copied.work >= MAX_STEP_WORK {
            return Ok(copied);
        }
        band = band.min(left);
        let down = u64::from(done).saturating_mul(layout.stride);
        let offset = transfer.offset.saturating_add(down);
        let found = loop {
            let most = MAX_BAND_STEPS
                .checked_div(band as usize)
                .unwrap_or(MAX_BAND_STEPS);
            let most = if band == 1 { usize::MAX } else { most };
            match finder.find(offset, layout.span(band), most) {
                Some(found) => break found,
                None => band = (band / 2).max(1),
            }
        };
        let mut rows = *transfer;
        rows.offset = found.offset;
        rows.part.y = transfer.part.y.saturating_add(done);
        rows.part.height = band;
        library.transfer_with(context, &rows, direction, found.iovecs)?;
        copied.rows = copied.rows.saturating_add(band);
        let bytes = u64::from(band).saturating_mul(layout.len);
        let pieces = (found.iovecs.len() as u64).saturating_mul(PIECE_COST);
        copied.work = copied.work.saturating_add(bytes).saturating_add(pieces);
        band = band.saturating_mul(2);
    }
}
