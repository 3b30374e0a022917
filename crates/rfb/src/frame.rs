// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Framebuffers.

use crate::Rect;

/// Bytes of a pixel: B, G, R, X.
pub(crate) const PIXEL_LEN: usize = 4;

/// A framebuffer that somebody else owns: rows of 32-bit pixels, bytes B, G, R, X.
#[derive(Debug, Clone, Copy)]
pub struct FrameView<'a> {
    bytes: &'a [u8],
    stride: usize,
    width: u16,
    height: u16,
}

impl<'a> FrameView<'a> {
    /// A frame in `bytes`, each row beginning `stride` bytes after the one before. `None` where rows overlap or not
    /// all are there.
    #[must_use]
    pub fn new(bytes: &'a [u8], stride: usize, width: u16, height: u16) -> Option<Self> {
        let row_len = usize::from(width) * PIXEL_LEN;
        let needed = match height.checked_sub(1) {
            None => 0,
            Some(rows_before_last) => usize::from(rows_before_last)
                .checked_mul(stride)?
                .checked_add(row_len)?,
        };
        (stride >= row_len && bytes.len() >= needed).then_some(Self {
            bytes,
            stride,
            width,
            height,
        })
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// All of it.
    #[must_use]
    pub fn rect(&self) -> Rect {
        Rect::of_size(self.width, self.height)
    }

    /// The rows of a rectangle, of which what lies outside the frame is cut off.
    pub fn rows(&self, rect: Rect) -> impl Iterator<Item = &'a [u8]> + Clone + use<'a> {
        let rect = rect.intersection(self.rect());
        let Self { bytes, stride, .. } = *self;
        let from = usize::from(rect.x) * PIXEL_LEN;
        let len = usize::from(rect.width) * PIXEL_LEN;
        let rows = if rect.is_empty() { 0 } else { rect.height };
        (usize::from(rect.y)..).take(rows.into()).map(move |y| {
            let start = y * stride + from;
            bytes.get(start..start + len).unwrap_or_default()
        })
    }
}

/// Pixels of a row of a frame, as numbers 0xXXRRGGBB.
pub(crate) fn pixels(row: &[u8]) -> impl Iterator<Item = u32> {
    row.chunks_exact(PIXEL_LEN).map(|bytes| {
        let mut pixel = [0; PIXEL_LEN];
        pixel.copy_from_slice(bytes);
        u32::from_le_bytes(pixel)
    })
}

/// A framebuffer with pixels as [`FrameView`] has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Frame {
    bytes: Vec<u8>,
    width: u16,
    height: u16,
}

impl Frame {
    /// The most pixels of a frame, 2^26: 256 MiB.
    pub const PIXELS_MAX: usize = 1 << 26;

    /// A black frame; `None` where it would have more than [`Frame::PIXELS_MAX`] pixels.
    #[must_use]
    pub fn new(width: u16, height: u16) -> Option<Self> {
        let area = Rect::of_size(width, height).area();
        (area <= Self::PIXELS_MAX).then(|| Self {
            bytes: vec![0; area * PIXEL_LEN],
            width,
            height,
        })
    }

    /// A frame of another size that keeps what both have; `None` as for [`Frame::new`].
    #[must_use]
    pub fn resized(&self, width: u16, height: u16) -> Option<Self> {
        let mut resized = Self::new(width, height)?;
        let kept = self.rect().intersection(resized.rect());
        for (to, from) in resized.rows_mut(kept).zip(self.view().rows(kept)) {
            to.copy_from_slice(from);
        }
        Some(resized)
    }

    /// The frame, to read.
    #[must_use]
    pub fn view(&self) -> FrameView<'_> {
        FrameView {
            bytes: &self.bytes,
            stride: usize::from(self.width) * PIXEL_LEN,
            width: self.width,
            height: self.height,
        }
    }

    /// Width in pixels.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Height in pixels.
    #[must_use]
    pub fn height(&self) -> u16 {
        self.height
    }

    /// All of it.
    #[must_use]
    pub fn rect(&self) -> Rect {
        Rect::of_size(self.width, self.height)
    }

    /// All pixels, row by row without gaps.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All pixels, to write.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The rows of a rectangle, of which what lies outside the frame is cut off.
    pub fn rows_mut(&mut self, rect: Rect) -> impl Iterator<Item = &mut [u8]> {
        let rect = rect.intersection(self.rect());
        let from = usize::from(rect.x) * PIXEL_LEN;
        let len = usize::from(rect.width) * PIXEL_LEN;
        let rows = if rect.is_empty() { 0 } else { rect.height };
        let stride = (usize::from(self.width) * PIXEL_LEN).max(1);
        let all = self.bytes.chunks_exact_mut(stride);
        all.skip(rect.y.into())
            .take(rows.into())
            .map(move |row| row.get_mut(from..from + len).unwrap_or_default())
    }

    /// Moves pixels within the frame (RFC 6143, 7.7.2). False where either rectangle does not fit.
    pub(crate) fn copy_within(&mut self, from_x: u16, from_y: u16, to: Rect) -> bool {
        let from = Rect {
            x: from_x,
            y: from_y,
            ..to
        };
        if !from.fits(self.width, self.height) || !to.fits(self.width, self.height) {
            return false;
        }
        let stride = usize::from(self.width) * PIXEL_LEN;
        let at = |x: u16, y: u16| usize::from(y) * stride + usize::from(x) * PIXEL_LEN;
        let len = usize::from(to.width) * PIXEL_LEN;
        let mut copy_row = |row: u16| {
            let start = at(from.x, from.y + row);
            self.bytes
                .copy_within(start..start + len, at(to.x, to.y + row));
        };
        // A row that is still to be read is not overwritten.
        if to.y <= from.y {
            (0..to.height).for_each(&mut copy_row);
        } else {
            (0..to.height).rev().for_each(&mut copy_row);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_has_all_its_rows() {
        let bytes = [0; 4 * 7 * 3];
        assert!(FrameView::new(&bytes, 28, 7, 3).is_some());
        assert!(FrameView::new(&bytes, 28, 7, 4).is_none());
        assert!(FrameView::new(&bytes, 27, 7, 1).is_none());
        assert!(FrameView::new(&bytes, usize::MAX, 7, 3).is_none());
        // The last row needs no padding.
        assert!(FrameView::new(&bytes, 40, 1, 3).is_some());
        assert!(FrameView::new(&[], 0, 0, 9).is_some());
    }

    #[test]
    fn rows_are_cut_at_the_frame() {
        let bytes: Vec<u8> = (0..4 * 5 * 3).collect();
        let view = FrameView::new(&bytes, 20, 5, 3).expect("a frame");
        let rows: Vec<_> = view.rows(Rect::new(3, 1, 100, 100)).collect();
        assert_eq!(rows, [&bytes[32..40], &bytes[52..60]]);
        assert_eq!(view.rows(Rect::new(5, 0, 1, 1)).count(), 0);
    }

    #[test]
    fn a_copy_may_overlap_in_any_direction() {
        let mut frame = Frame::new(6, 6).expect("a frame");
        for (pixel, value) in frame.bytes_mut().iter_mut().zip(0..) {
            *pixel = value;
        }
        let before = frame.clone();
        for (x, y) in [(0, 0), (2, 0), (0, 2), (2, 2), (1, 1)] {
            let mut moved = before.clone();
            let to = Rect::new(1, 1, 4, 4);
            assert!(moved.copy_within(x, y, to));
            let source = before.view();
            let expected: Vec<_> = source.rows(Rect::new(x, y, 4, 4)).collect();
            assert_eq!(
                moved.view().rows(to).collect::<Vec<_>>(),
                expected,
                "{x} {y}"
            );
        }
        assert!(!frame.copy_within(3, 0, Rect::new(0, 0, 4, 4)));
    }

    #[test]
    fn a_huge_frame_is_not_made() {
        assert!(Frame::new(u16::MAX, u16::MAX).is_none());
        assert!(Frame::new(8192, 8192).is_some());
    }
}
