//! Rows of pixels on their way into an image.

use std::ops::Range;

use super::super::backing::{BackingError, MAX_PIECE, Reader};
use super::super::image::{PIXEL_LEN, merge};
use super::super::protocol::Format;
use super::super::region::{Rect, Region};

/// Rows without a change between two changes that still make one rectangle.
const JOINED_ROWS: u32 = 16;

fn is_display_order(format: Format) -> bool {
    matches!(format, Format::B8G8R8A8 | Format::B8G8R8X8)
}

/// Puts a row's bytes into the display's order (blue, green, red, alpha or unused), in place.
pub(super) fn to_display_order(format: Format, row: &mut [u8]) {
    let (pixels, _) = row.as_chunks_mut::<PIXEL_LEN>();
    match format {
        Format::B8G8R8A8 | Format::B8G8R8X8 => {}
        Format::A8R8G8B8 | Format::X8R8G8B8 => pixels.iter_mut().for_each(|p| p.reverse()),
        Format::R8G8B8A8 | Format::R8G8B8X8 => pixels.iter_mut().for_each(|p| p.swap(0, 2)),
        Format::A8B8G8R8 | Format::X8B8G8R8 => pixels.iter_mut().for_each(|p| p.rotate_left(1)),
    }
}

/// Copies the next pixels of `backing` over the first of `old`, of which there is at least one. Tells
/// how many bytes that were, and which of them changed, from the first pixel to the last. `block` is
/// where they can be kept meanwhile.
pub(super) fn copy_pixels(
    backing: &mut Reader<'_>,
    format: Format,
    old: &mut [u8],
    block: &mut [u8; MAX_PIECE],
) -> Result<(usize, Option<Range<usize>>), BackingError> {
    let piece = backing.piece(old.len())?;
    let len = piece.len();
    if is_display_order(format) && len.is_multiple_of(PIXEL_LEN) {
        let old = old.get_mut(..len).unwrap_or_default();
        // Where everything has changed, one copy is enough.
        let [mut first, mut last] = [[0; PIXEL_LEN]; 2];
        piece.copy_to(&mut first);
        let before_last = len.saturating_sub(PIXEL_LEN);
        if let Ok(pixel) = piece.offset(before_last) {
            pixel.copy_to(&mut last);
        }
        if !old.starts_with(&first) && !old.ends_with(&last) {
            piece.copy_to(old);
            return Ok((len, Some(0..len)));
        }
        // Compared is a copy, small enough for the nearest cache: the guest may write to its pages
        // meanwhile, and memcmp(3) may then do anything.
        let new = block.get_mut(..len).unwrap_or_default();
        piece.copy_to(new);
        return Ok((len, merge(old, new)));
    }
    let len = old.len().min(MAX_PIECE);
    let new = block.get_mut(..len).unwrap_or_default();
    piece.copy_to(new);
    backing.read(new.get_mut(piece.len()..).unwrap_or_default())?;
    to_display_order(format, new);
    Ok((len, merge(old.get_mut(..len).unwrap_or_default(), new)))
}

/// Joins changed rows to rectangles, and adds them to a region: also when it is dropped half-way.
pub(super) struct Joined<'a> {
    region: &'a mut Region,
    open: Option<Rect>,
}

impl<'a> Joined<'a> {
    pub(super) fn new(region: &'a mut Region) -> Self {
        Self { region, open: None }
    }

    /// Adds the pixels `columns` of row `y`; rows come from above to below.
    pub(super) fn row(&mut self, y: u32, columns: Range<u32>) {
        let row = Rect {
            x: columns.start,
            y,
            width: columns.end.saturating_sub(columns.start),
            height: 1,
        };
        self.open = Some(match self.open.take() {
            Some(open) if y.saturating_sub(open.y.saturating_add(open.height)) <= JOINED_ROWS => {
                open.around(&row)
            }
            Some(open) => {
                self.region.add(open);
                row
            }
            None => row,
        });
    }
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.region.add(open);
        }
    }
}
