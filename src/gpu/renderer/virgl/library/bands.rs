//! Transfers of pictures, a few rows at a time.
//!
//! The library looks for each row in all the vectors that it is given, from the first on. For a large
//! picture in single pages that takes longer than copying it: so it is given the rows in bands, each with
//! the vectors in which these lie and no others.

use super::super::super::{Copied, Direction, PIECE_WORK, WORK};
use super::super::Transfer3d;
use super::{Library, Refused};

/// Most vectors that are looked at for the rows of a band, each for all of them.
const STEPS: usize = 1 << 18;
const INVALID: Refused = Refused(rustix::io::Errno::INVAL.raw_os_error());

impl Library {
    /// Copies rows of a transfer between a picture and its pages: those from `first` on, as many as make
    /// [`WORK`]. `row_len` bytes of each are copied, and they lie `stride` bytes apart.
    pub(in super::super) fn transfer_rows(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
        first: u32,
        [row_len, stride]: [u64; 2],
    ) -> Result<Copied, Refused> {
        let pages = self.pages(transfer.id).ok_or(INVALID)?;
        let height = transfer.part.height;
        // From the first byte of a row to the last of the last one.
        let reach = |rows: u32| {
            let steps = u64::from(rows.saturating_sub(1)).saturating_mul(stride);
            steps.saturating_add(row_len)
        };
        if transfer.offset.saturating_add(reach(height)) > pages.len() {
            return Err(INVALID);
        }
        let mut finder = pages.finder();
        let mut copied = Copied { rows: 0, work: 0 };
        let most = u32::try_from(WORK.checked_div(row_len).unwrap_or(0)).unwrap_or(u32::MAX);
        let mut band = most.max(1);
        loop {
            let done = first.saturating_add(copied.rows);
            let left = height.saturating_sub(done);
            if left == 0 || copied.work >= WORK {
                return Ok(copied);
            }
            band = band.min(left);
            let down = u64::from(done).saturating_mul(stride);
            let offset = transfer.offset.saturating_add(down);
            let (vectors, skip) = loop {
                let most = STEPS.checked_div(band as usize).unwrap_or(STEPS);
                let most = if band == 1 { usize::MAX } else { most };
                match finder.find(offset, reach(band), most) {
                    Some(found) => break found,
                    None => band = (band / 2).max(1),
                }
            };
            let mut rows = *transfer;
            rows.offset = skip;
            rows.part.y = transfer.part.y.saturating_add(done);
            rows.part.height = band;
            self.transfer_by(context, &rows, direction, vectors)?;
            copied.rows = copied.rows.saturating_add(band);
            let bytes = u64::from(band).saturating_mul(row_len);
            let pieces = (vectors.len() as u64).saturating_mul(PIECE_WORK);
            copied.work = copied.work.saturating_add(bytes).saturating_add(pieces);
            band = band.saturating_mul(2);
        }
    }
}
