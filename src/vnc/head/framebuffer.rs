// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pixels of a picture.

use std::cell::RefCell;
use std::rc::Rc;

use crate::geometry::{Rect, Size};
use crate::vnc::damage::{DamageMap, PIECE};

/// Bytes of a pixel: blue, green, red, and one that says nothing.
pub(crate) const PIXEL_LEN: usize = 4;

/// Bytes of a piece of [`DamageMap`].
const PIECE_LEN: usize = PIECE as usize * PIXEL_LEN;
/// Bytes of the pieces of a word.
const WORD_LEN: usize = u64::BITS as usize * PIECE_LEN;

/// A picture in memory, row below row without gaps.
pub(crate) struct Framebuffer {
    size: Size,
    pixels: Vec<u8>,
}

/// A framebuffer that a head shows now, and that updates under way may still read after the head shows another one.
pub(crate) type SharedFramebuffer = Rc<RefCell<Framebuffer>>;

impl Framebuffer {
    /// Limit on the width and the height in pixels.
    pub(crate) const MAX_SIDE: u32 = 16_384;
    /// Limit on the number of pixels: 128 MiB. (7680x4320 fits.)
    pub(crate) const MAX_AREA: u64 = 1 << 25;

    /// Whether a picture of `size` is within the limits.
    pub(crate) fn fits(size: Size) -> bool {
        size.width <= Self::MAX_SIDE
            && size.height <= Self::MAX_SIDE
            && size.area() <= Self::MAX_AREA
    }

    /// A black picture; an empty one if `size` is beyond the limits.
    pub(crate) fn new(size: Size) -> Self {
        let size = if Self::fits(size) {
            size
        } else {
            Size::default()
        };
        // Zeroed by the kernel.
        let pixels = vec![0; size.area() as usize * PIXEL_LEN];
        Self { size, pixels }
    }

    /// A black picture to share. Pages that nothing is drawn on take no memory.
    pub(crate) fn black(size: Size) -> SharedFramebuffer {
        Rc::new(RefCell::new(Self::new(size)))
    }

    /// Replaces each of `pictures` by a black one of its size. Those of the same size that follow each other share one.
    pub(crate) fn blacken<'a>(pictures: impl Iterator<Item = &'a mut SharedFramebuffer>) {
        let mut black: Option<SharedFramebuffer> = None;
        for picture in pictures {
            let size = picture.borrow().size();
            let same = black.filter(|black| black.borrow().size() == size);
            let same = same.unwrap_or_else(|| Self::black(size));
            *picture = SharedFramebuffer::clone(&same);
            black = Some(same);
        }
    }

    /// Its size.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Bytes from a pixel to the one below it.
    pub(crate) fn stride(&self) -> usize {
        self.size.width as usize * PIXEL_LEN
    }

    /// All pixels.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.pixels
    }

    /// The rows of `rect` but for the first `skip` bytes, each in one piece; all in one piece where they lie next to
    /// each other. Nothing if the rectangle does not lie within the picture.
    pub(crate) fn rows(&self, rect: Rect, skip: usize) -> impl Iterator<Item = &[u8]> {
        let place = self.place(rect, skip);
        let bytes = self.pixels.get(place.start..place.end).unwrap_or_default();
        let rows = bytes.chunks(place.stride).enumerate();
        rows.filter_map(move |(n, row)| row.get(place.row_range(n)))
    }

    /// [`Self::rows`] to write to.
    pub(crate) fn rows_mut(&mut self, rect: Rect, skip: usize) -> impl Iterator<Item = &mut [u8]> {
        let place = self.place(rect, skip);
        let bytes = self.pixels.get_mut(place.start..place.end);
        let rows = bytes
            .unwrap_or_default()
            .chunks_mut(place.stride)
            .enumerate();
        rows.filter_map(move |(n, row)| row.get_mut(place.row_range(n)))
    }

    /// Writes `bytes` over those of `rect` from the `skip`th on, row by row, and adds the pieces that are different now
    /// to `changed`, a map of this picture. Bytes that do not fit are left out.
    pub(crate) fn overwrite(
        &mut self,
        rect: Rect,
        skip: usize,
        bytes: &[u8],
        changed: &mut DamageMap,
    ) {
        let row_len = rect.width as usize * PIXEL_LEN;
        if rect.is_empty() || !rect.lies_within(self.size) {
            return;
        }
        let (left, stride) = (rect.x as usize * PIXEL_LEN, self.stride());
        let (mut row, mut column) = (skip / row_len, skip % row_len);
        let mut bytes = bytes;
        while row < rect.height as usize && !bytes.is_empty() {
            let y = rect.y as usize + row;
            let at = left + column;
            let (new, rest) = bytes.split_at(bytes.len().min(row_len - column));
            let start = y * stride + at;
            if let Some(old) = self.pixels.get_mut(start..start + new.len()) {
                overwrite_row(old, new, at, |word, pieces| {
                    changed.add_word(y as u32, word, pieces);
                });
            }
            (row, column, bytes) = (row + 1, 0, rest);
        }
    }

    fn place(&self, rect: Rect, skip: usize) -> Place {
        let stride = self.stride();
        let row_len = rect.width as usize * PIXEL_LEN;
        let total = row_len.saturating_mul(rect.height as usize);
        if rect.is_empty() || !rect.lies_within(self.size) || skip >= total {
            return Place {
                start: 0,
                end: 0,
                stride: 1,
                row_len: 0,
                skip: 0,
            };
        }
        let corner = rect.y as usize * stride + rect.x as usize * PIXEL_LEN;
        if row_len == stride {
            return Place {
                start: corner + skip,
                end: corner + total,
                stride: total - skip,
                row_len: total - skip,
                skip: 0,
            };
        }
        Place {
            start: corner + skip / row_len * stride,
            end: corner + (rect.height as usize - 1) * stride + row_len,
            stride,
            row_len,
            skip: skip % row_len,
        }
    }
}

/// Writes `new` over `old`, bytes of a row from the `at`th on, and calls `changed` with each word of pieces some of
/// which are different now.
fn overwrite_row(old: &mut [u8], new: &[u8], at: usize, mut changed: impl FnMut(usize, u64)) {
    let (mut old, mut new, mut at) = (old, new, at);
    while !new.is_empty() {
        let len = new.len().min(WORD_LEN - at % WORD_LEN);
        let (old_word, old_rest) = old.split_at_mut(len);
        let (new_word, new_rest) = new.split_at(len);
        // Most that is sent anew is equal, and comparing all of it is much faster than piece by piece.
        if old_word != new_word {
            changed(
                at / WORD_LEN,
                different_pieces(old_word, new_word, at % WORD_LEN),
            );
            old_word.copy_from_slice(new_word);
        }
        (old, new, at) = (old_rest, new_rest, at + len);
    }
}

/// The pieces of a word that are different, if the bytes begin at its `at`th one.
fn different_pieces(old: &[u8], new: &[u8], at: usize) -> u64 {
    // The rest of a piece whose first bytes came before.
    let begun = (PIECE_LEN - at % PIECE_LEN) % PIECE_LEN;
    let (old_begun, old) = old.split_at(begun.min(old.len()));
    let (new_begun, new) = new.split_at(begun.min(new.len()));
    let mut pieces = u64::from(old_begun != new_begun) << (at / PIECE_LEN);
    let mut next = at.div_ceil(PIECE_LEN) as u32;
    let mut add = |differs| {
        // After the last piece of a whole word the remainder is empty, and `next` is one too many: it adds nothing.
        pieces |= u64::from(differs).checked_shl(next).unwrap_or(0);
        next += 1;
    };
    let (mut old, mut new) = (old.chunks_exact(PIECE_LEN), new.chunks_exact(PIECE_LEN));
    for (old, new) in old.by_ref().zip(new.by_ref()) {
        add(number(old) != number(new));
    }
    add(old.remainder() != new.remainder());
    pieces
}

/// The bytes of a piece as one number, which is compared in a third of the time that bytes take.
fn number(piece: &[u8]) -> u128 {
    let mut bytes = [0; PIECE_LEN];
    bytes.copy_from_slice(piece);
    u128::from_ne_bytes(bytes)
}

/// Where the rows of a rectangle lie.
struct Place {
    /// The first byte of the first row.
    start: usize,
    /// The end of the last row.
    end: usize,
    stride: usize,
    row_len: usize,
    /// Bytes of the first row that are left out.
    skip: usize,
}

impl Place {
    fn row_range(&self, row: usize) -> std::ops::Range<usize> {
        let start = if row == 0 { self.skip } else { 0 };
        start..self.row_len
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(size: Size) -> Framebuffer {
        let mut framebuffer = Framebuffer::new(size);
        for (n, byte) in framebuffer.pixels.iter_mut().enumerate() {
            *byte = n as u8;
        }
        framebuffer
    }

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn rows_are_those_of_the_rectangle() {
        let framebuffer = numbered(Size::new(4, 4));
        let rows: Vec<_> = framebuffer.rows(rect(1, 1, 2, 2), 0).collect();
        assert_eq!(rows, [&(20..28).collect::<Vec<u8>>(), &(36..44).collect()]);
        let rows: Vec<_> = framebuffer.rows(rect(1, 1, 2, 2), 3).collect();
        assert_eq!(rows, [&(23..28).collect::<Vec<u8>>(), &(36..44).collect()]);
        let rows: Vec<_> = framebuffer.rows(rect(1, 1, 2, 2), 9).collect();
        assert_eq!(rows, [&(37..44).collect::<Vec<u8>>()]);
        assert_eq!(framebuffer.rows(rect(1, 1, 2, 2), 16).count(), 0);
    }

    #[test]
    fn whole_rows_are_one_piece() {
        let mut framebuffer = numbered(Size::new(4, 4));
        let rows: Vec<_> = framebuffer.rows(rect(0, 1, 4, 2), 5).collect();
        assert_eq!(rows, [&(21..48).collect::<Vec<u8>>()]);
        assert_eq!(framebuffer.rows_mut(rect(0, 0, 4, 4), 0).count(), 1);
    }

    #[test]
    fn what_lies_outside_has_no_rows() {
        let framebuffer = numbered(Size::new(4, 4));
        for outside in [
            rect(1, 0, 4, 1),
            rect(0, 4, 1, 1),
            rect(u32::MAX, 0, 2, 1),
            rect(0, u32::MAX, 4, 2),
            rect(0, 0, 0, 1),
        ] {
            assert_eq!(framebuffer.rows(outside, 0).count(), 0, "{outside:?}");
        }
    }

    #[test]
    fn picture_beyond_the_limits_is_empty() {
        for size in [
            Size::new(16_385, 1),
            Size::new(16_384, 16_384),
            Size::new(u32::MAX, u32::MAX),
        ] {
            assert_eq!(Framebuffer::new(size).size(), Size::default());
        }
    }
}
