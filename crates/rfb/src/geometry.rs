// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Rectangles, and the screens of a framebuffer.

/// A rectangle of a framebuffer, in pixels (RFC 6143, 7.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rect {
    /// Left column.
    pub x: u16,
    /// Top row.
    pub y: u16,
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

impl Rect {
    /// A rectangle by its corner and size.
    #[must_use]
    pub const fn new(x: u16, y: u16, width: u16, height: u16) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// A rectangle at the origin.
    #[must_use]
    pub const fn of_size(width: u16, height: u16) -> Self {
        Self::new(0, 0, width, height)
    }

    /// Whether it has no pixel.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// The column right of it, which may exceed 16 bits.
    #[must_use]
    pub fn right(self) -> u32 {
        u32::from(self.x) + u32::from(self.width)
    }

    /// The row below it, which may exceed 16 bits.
    #[must_use]
    pub fn bottom(self) -> u32 {
        u32::from(self.y) + u32::from(self.height)
    }

    /// How many pixels it has.
    #[must_use]
    pub fn area(self) -> usize {
        usize::from(self.width) * usize::from(self.height)
    }

    /// Whether all of it lies within a framebuffer of that size.
    #[must_use]
    pub fn fits(self, width: u16, height: u16) -> bool {
        self.right() <= u32::from(width) && self.bottom() <= u32::from(height)
    }

    /// What both rectangles have in common; empty if nothing.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        let x = self.x.max(other.x);
        let y = self.y.max(other.y);
        Self {
            x,
            y,
            width: span(x, self.right().min(other.right())),
            height: span(y, self.bottom().min(other.bottom())),
        }
    }

    /// This rectangle in blocks of at most `width` x `height`, row by row. A size of 0 counts as 1.
    pub(crate) fn blocks(self, width: u16, height: u16) -> impl Iterator<Item = Self> {
        let (width, height) = (width.max(1), height.max(1));
        let rows = (0..self.height).step_by(usize::from(height));
        rows.flat_map(move |y| {
            let columns = (0..self.width).step_by(usize::from(width));
            columns.map(move |x| Self {
                x: self.x.saturating_add(x),
                y: self.y.saturating_add(y),
                width: width.min(self.width - x),
                height: height.min(self.height - y),
            })
        })
    }

    pub(crate) fn read(bytes: [u8; 8]) -> Self {
        let [x0, x1, y0, y1, w0, w1, h0, h1] = bytes;
        Self {
            x: u16::from_be_bytes([x0, x1]),
            y: u16::from_be_bytes([y0, y1]),
            width: u16::from_be_bytes([w0, w1]),
            height: u16::from_be_bytes([h0, h1]),
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        for value in [self.x, self.y, self.width, self.height] {
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

fn span(from: u16, to: u32) -> u16 {
    let span = to.saturating_sub(u32::from(from));
    u16::try_from(span).unwrap_or(u16::MAX)
}

/// A screen in the framebuffer (community wiki: ExtendedDesktopSize pseudo-encoding).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Screen {
    /// An id that stays the same while the screen exists.
    pub id: u32,
    /// Its place in the framebuffer.
    pub rect: Rect,
    /// Undefined bits, to be kept as they are.
    pub flags: u32,
}

impl Screen {
    /// Bytes of a screen in a message.
    pub(crate) const LEN: usize = 16;

    pub(crate) fn read(bytes: [u8; Self::LEN]) -> Self {
        let [i0, i1, i2, i3, rect @ .., f0, f1, f2, f3] = bytes;
        Self {
            id: u32::from_be_bytes([i0, i1, i2, i3]),
            rect: Rect::read(rect),
            flags: u32::from_be_bytes([f0, f1, f2, f3]),
        }
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        self.rect.write(out);
        out.extend_from_slice(&self.flags.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_beyond_16_bits_neither_overflow_nor_fit() {
        let rect = Rect::new(u16::MAX, 1, u16::MAX, 1);
        assert_eq!(rect.right(), 131_070);
        assert!(!rect.fits(u16::MAX, u16::MAX));
        assert!(Rect::of_size(u16::MAX, u16::MAX).fits(u16::MAX, u16::MAX));
    }

    #[test]
    fn what_does_not_touch_has_an_empty_intersection() {
        let rect = Rect::new(10, 10, 10, 10);
        assert_eq!(
            rect.intersection(Rect::new(15, 5, 100, 10)),
            Rect::new(15, 10, 5, 5)
        );
        assert!(rect.intersection(Rect::new(20, 10, 5, 5)).is_empty());
        assert!(rect.intersection(Rect::of_size(5, 5)).is_empty());
    }

    #[test]
    fn blocks_cover_each_pixel_once() {
        let rect = Rect::new(3, 4, 130, 65);
        let blocks: Vec<_> = rect.blocks(64, 64).collect();
        assert_eq!(blocks.len(), 6);
        assert_eq!(
            blocks.iter().map(|block| block.area()).sum::<usize>(),
            rect.area()
        );
        assert_eq!(blocks.last(), Some(&Rect::new(131, 68, 2, 1)));
        assert_eq!(Rect::new(1, 1, 0, 7).blocks(64, 64).count(), 0);
    }
}
