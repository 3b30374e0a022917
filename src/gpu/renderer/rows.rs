//! Rows of pixels on their way into an image.

use super::super::image::PIXEL_LEN;
use super::super::region::{Rect, Region};
use super::super::wire::Format;

/// Rows without a change between two changes that still make one rectangle.
const JOINED_ROWS: u32 = 16;

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
    pub(super) fn row(&mut self, y: u32, columns: std::ops::Range<u32>) {
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
