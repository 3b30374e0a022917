// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The shape of the pointer.

use crate::Rect;

/// A cursor. Its pixels are 0xAARRGGBB, colours multiplied by alpha, row by row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cursor {
    hot_x: u16,
    hot_y: u16,
    width: u16,
    height: u16,
    pixels: Vec<u32>,
}

impl Cursor {
    /// The most columns, and the most rows, of a cursor.
    pub const SIZE_MAX: u16 = 1024;

    /// A cursor; `None` where the pixels are not `width` x `height`, or a side is longer than
    /// [`Cursor::SIZE_MAX`]. A cursor without pixels hides the pointer.
    #[must_use]
    pub fn new(hot: (u16, u16), width: u16, height: u16, pixels: Vec<u32>) -> Option<Self> {
        let area = Rect::of_size(width, height).area();
        let fits = width <= Self::SIZE_MAX && height <= Self::SIZE_MAX && area == pixels.len();
        fits.then_some(Self {
            hot_x: hot.0,
            hot_y: hot.1,
            width,
            height,
            pixels,
        })
    }

    /// The pixel that points, from the upper left corner.
    #[must_use]
    pub fn hotspot(&self) -> (u16, u16) {
        (self.hot_x, self.hot_y)
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// 0xAARRGGBB, colours multiplied by alpha, row by row.
    #[must_use]
    pub fn pixels(&self) -> &[u32] {
        &self.pixels
    }

    /// Hotspot and size, as the header of a rectangle has them.
    pub(crate) fn rect(&self) -> Rect {
        Rect::new(self.hot_x, self.hot_y, self.width, self.height)
    }
}
