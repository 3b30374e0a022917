// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's pointer on a head.

use std::rc::Rc;

use crate::geometry::{Rect, Size};

use super::framebuffer::{Framebuffer, PIXEL_LEN};

/// Width and height in pixels of the cursor in a message of the GPU.
const SENT_SIDE: u32 = 64;
/// Bytes of the cursor in a message of the GPU.
pub(crate) const SENT_CURSOR_LEN: usize = (SENT_SIDE * SENT_SIDE) as usize * PIXEL_LEN;

/// What a pointer looks like.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CursorShape {
    size: Size,
    hot_x: u32,
    hot_y: u32,
    pixels: Vec<u8>,
}

impl CursorShape {
    /// The shape in a message of the GPU: 64 by 64 pixels of blue, green, red and alpha, with the colours multiplied by
    /// alpha. Transparent columns at the right and rows at the bottom are cut off.
    pub(crate) fn from_sent(sent: &[u8; SENT_CURSOR_LEN], hot_x: u32, hot_y: u32) -> Self {
        let row_len = SENT_SIDE as usize * PIXEL_LEN;
        let (hot_x, hot_y) = (hot_x.min(SENT_SIDE - 1), hot_y.min(SENT_SIDE - 1));
        let mut size = Size::default();
        for (y, row) in (1..).zip(sent.chunks_exact(row_len)) {
            let pixels = row.chunks_exact(PIXEL_LEN);
            if let Some(last) = pixels
                .into_iter()
                .rposition(|pixel| pixel != [0; PIXEL_LEN])
            {
                size = Size::new(size.width.max(last as u32 + 1), y);
            }
        }
        if !size.is_empty() {
            // Viewers want the hot spot within.
            size = Size::new(size.width.max(hot_x + 1), size.height.max(hot_y + 1));
        }
        let rows = sent.chunks_exact(row_len).take(size.height as usize);
        let visible = rows.filter_map(|row| row.get(..size.width as usize * PIXEL_LEN));
        Self {
            size,
            hot_x,
            hot_y,
            pixels: visible.flatten().copied().collect(),
        }
    }

    /// Its size; empty if no pixel is visible.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// The pixel that points, within the shape.
    pub(crate) fn hot_spot(&self) -> (u32, u32) {
        (self.hot_x, self.hot_y)
    }

    /// Its pixels: blue, green, red, alpha; colours are multiplied by alpha.
    pub(crate) fn pixels(&self) -> &[u8] {
        &self.pixels
    }
}

/// A head's pointer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursor {
    /// Its shape; none before the guest gave one.
    pub(super) shape: Option<Rc<CursorShape>>,
    pub(super) visible: bool,
    /// Its upper left corner, which may lie left of the picture or above it.
    pub(super) x: i32,
    pub(super) y: i32,
}

impl Cursor {
    /// What there is to see, if anything.
    pub(crate) fn visible_shape(&self) -> Option<&Rc<CursorShape>> {
        let shape = self.shape.as_ref().filter(|shape| !shape.size.is_empty());
        shape.filter(|_| self.visible)
    }

    /// The pixels that it covers, which may lie right of the picture or below it; without those left of it or above it.
    pub(crate) fn covers(&self) -> Rect {
        let size = self
            .visible_shape()
            .map_or(Size::default(), |shape| shape.size);
        // Beyond the right and lower edges of any picture, the numbers need not be right.
        let edge = |start: i32, len: u32| start.saturating_add_unsigned(len).max(0).unsigned_abs();
        Rect::from_edges(
            edge(self.x, 0),
            edge(self.y, 0),
            edge(self.x, size.width),
            edge(self.y, size.height),
        )
    }

    /// Calls `read` with the picture as it looks with the cursor.
    pub(crate) fn with_painted<T>(
        &self,
        picture: &mut Framebuffer,
        read: impl FnOnce(&Framebuffer) -> T,
    ) -> T {
        let covered = self.covers().intersection(&picture.size().into());
        let (Some(covered), Some(shape)) = (covered, self.visible_shape()) else {
            return read(picture);
        };
        let below: Vec<u8> = picture.rows(covered, 0).flatten().copied().collect();
        let row_len = covered.width as usize * PIXEL_LEN;
        // The shape's first row and column within the picture.
        let hidden = |start: i32| start.min(0).unsigned_abs() as usize;
        let (rows, columns) = (hidden(self.y), hidden(self.x));
        let above = shape
            .pixels
            .chunks_exact(shape.size.width as usize * PIXEL_LEN)
            .skip(rows);
        for (row, above) in rows_of(picture, covered).zip(above) {
            let pixels = row.chunks_exact_mut(PIXEL_LEN);
            for (below, above) in pixels.zip(above.chunks_exact(PIXEL_LEN).skip(columns)) {
                blend(below, above);
            }
        }
        let result = read(picture);
        for (row, below) in rows_of(picture, covered).zip(below.chunks_exact(row_len)) {
            row.copy_from_slice(below);
        }
        result
    }
}

/// The rows of `rect`, each for itself.
fn rows_of(picture: &mut Framebuffer, rect: Rect) -> impl Iterator<Item = &mut [u8]> {
    let row_len = rect.width as usize * PIXEL_LEN;
    let rows = picture.rows_mut(rect, 0);
    rows.flat_map(move |rows| rows.chunks_exact_mut(row_len))
}

/// Lays a pixel with colours multiplied by alpha over another one.
fn blend(below: &mut [u8], above: &[u8]) {
    let transparency = 255 - u32::from(above.get(3).copied().unwrap_or(0));
    for (below, above) in below.iter_mut().zip(above).take(3) {
        let seen = (u32::from(*below) * transparency + 127) / 255;
        *below = (u32::from(*above) + seen).min(255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pixels: &[(usize, usize, [u8; 4])]) -> Box<[u8; SENT_CURSOR_LEN]> {
        let mut sent = Box::new([0; SENT_CURSOR_LEN]);
        for (x, y, pixel) in pixels {
            let start = (y * 64 + x) * 4;
            sent[start..start + 4].copy_from_slice(pixel);
        }
        sent
    }

    #[test]
    fn transparent_edges_are_cut_off_and_the_hot_spot_stays_within() {
        let shape = CursorShape::from_sent(&sent(&[(2, 1, [1, 2, 3, 255])]), 1, 4);
        assert_eq!(shape.size(), Size::new(3, 5));
        assert_eq!(shape.hot_spot(), (1, 4));
        assert_eq!(shape.pixels().len(), 3 * 5 * 4);
        assert_eq!(shape.pixels()[20..24], [1, 2, 3, 255]);
        let shape = CursorShape::from_sent(&sent(&[]), u32::MAX, 7);
        assert!(shape.size().is_empty());
        let shape = CursorShape::from_sent(&sent(&[(63, 63, [0, 0, 0, 1])]), u32::MAX, u32::MAX);
        assert_eq!(
            (shape.size(), shape.hot_spot()),
            (Size::new(64, 64), (63, 63))
        );
    }

    fn pixel(picture: &Framebuffer, x: u32, y: u32) -> [u8; 4] {
        let rect = Rect::from_edges(x, y, x + 1, y + 1);
        let row = picture.rows(rect, 0).next().unwrap();
        row.try_into().unwrap()
    }

    #[test]
    fn cursor_is_seen_only_while_the_picture_is_read() {
        let shape = CursorShape::from_sent(
            &sent(&[
                (0, 0, [10, 20, 30, 255]),
                (1, 0, [100, 0, 0, 128]),
                (1, 1, [9, 9, 9, 255]),
            ]),
            0,
            0,
        );
        let mut cursor = Cursor {
            shape: Some(Rc::new(shape)),
            visible: true,
            x: 3,
            y: 5,
        };
        let mut picture = Framebuffer::new(Size::new(5, 6));
        picture
            .rows_mut(Size::new(5, 6).into(), 0)
            .flatten()
            .for_each(|byte| *byte = 200);
        cursor.with_painted(&mut picture, |picture| {
            assert_eq!(pixel(picture, 3, 5), [10, 20, 30, 200]);
            assert_eq!(pixel(picture, 4, 5), [200, 100, 100, 200]);
            assert_eq!(pixel(picture, 2, 5), [200; 4]);
            assert_eq!(
                picture.bytes().iter().filter(|byte| **byte != 200).count(),
                5
            );
        });
        assert!(picture.bytes().iter().all(|byte| *byte == 200));
        // The whole width of the picture, which is one piece of memory.
        cursor.x = 0;
        let mut narrow = Framebuffer::new(Size::new(2, 7));
        cursor.with_painted(&mut narrow, |picture| {
            assert_eq!(pixel(picture, 0, 5), [10, 20, 30, 0]);
            assert_eq!(pixel(picture, 1, 6), [9, 9, 9, 0]);
        });
        assert!(narrow.bytes().iter().all(|byte| *byte == 0));
        // Over the left and the upper edge.
        let corner = Cursor {
            x: -1,
            y: -1,
            ..cursor.clone()
        };
        assert_eq!(corner.covers(), Rect::from_edges(0, 0, 1, 1));
        corner.with_painted(&mut picture, |picture| {
            assert_eq!(pixel(picture, 0, 0), [9, 9, 9, 200]);
            assert_eq!(
                picture.bytes().iter().filter(|byte| **byte != 200).count(),
                3
            );
        });
        assert!(picture.bytes().iter().all(|byte| *byte == 200));
        for hidden in [
            Cursor {
                visible: false,
                ..cursor.clone()
            },
            Cursor {
                x: i32::MAX,
                ..cursor.clone()
            },
            Cursor {
                x: -2,
                ..cursor.clone()
            },
            Cursor {
                y: i32::MIN,
                ..cursor.clone()
            },
            Cursor { y: 6, ..cursor },
        ] {
            hidden.with_painted(&mut picture, |picture| {
                assert!(picture.bytes().iter().all(|byte| *byte == 200));
            });
        }
    }
}
