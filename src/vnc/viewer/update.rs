// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An update on its way to a viewer, encoded slice by slice.
//!
//! No rectangle is a CopyRect. The GPU's protocol does not say that pixels moved, so one would have to be found by
//! comparing rows with those above and below. And what was found would be true only for a viewer that has the whole
//! picture before the move: Raw pixels are read from the picture when the socket takes them, so that a viewer with an
//! update under way may have any part of the move already.

use std::collections::VecDeque;

use rfb::server_message::{write_rect_header, write_update_header};
use rfb::{Encoder, Encoding, FrameView};

use crate::geometry::{Rect, Size};
use crate::vnc::damage::Merging;
use crate::vnc::head::{Cursor, Framebuffer, SharedFramebuffer};
use crate::vnc::wire::{to_u16, to_wire};

use super::output::Output;

/// Most pixels of a rectangle that is encoded at once.
const SLICE: u32 = 128 << 10;
/// Rows of a tile of ZRLE, to which slices are aligned.
const TILE: u32 = 64;
/// Most columns of a slice.
const MAX_COLUMNS: u32 = Encoder::TIGHT_WIDTH_MAX as u32;
/// Columns of a Raw rectangle that is sent without a copy. Many short rows are sent faster from one place.
const UNCOPIED_COLUMNS: u32 = 256;
/// Pixels of one that is sent without a copy however short its rows are: a copy takes memory.
const UNCOPIED_PIXELS: u64 = 16 << 10;

/// Pixels that are still to be encoded for an update. Its header, and its rectangles without pixels, are written.
pub(super) struct Update {
    slices: VecDeque<Slice>,
    picture: SharedFramebuffer,
    /// What the viewer sees where its picture is larger.
    black: Option<SharedFramebuffer>,
    encoding: Encoding,
    /// The cursor, for a viewer that cannot show it by itself.
    painted: Option<Cursor>,
}

struct Slice {
    rect: Rect,
    is_black: bool,
}

/// What an update is made of.
pub(super) struct Contents<'a> {
    /// The pixels, within what the viewer knows of the picture's size, as
    /// [`take_rects`](crate::vnc::damage::DamageMap::take_rects) returns them.
    pub(super) rects: Vec<Rect>,
    /// The picture.
    pub(super) picture: &'a SharedFramebuffer,
    /// The size that the viewer knows. What lies outside the picture is black.
    pub(super) known: Size,
    /// How the pixels are encoded.
    pub(super) encoding: Encoding,
    pub(super) painted: Option<Cursor>,
}

impl Update {
    /// Writes the header of an update with these pixels after `others` rectangles without pixels, which are to be
    /// written before [`Self::encode_slice`].
    pub(super) fn begin(
        contents: Contents<'_>,
        others: u16,
        encoder: &Encoder,
        output: &mut Output,
    ) -> Self {
        let Contents {
            rects,
            picture,
            known,
            encoding,
            painted,
        } = contents;
        let parts = Parts::new(picture.borrow().size(), known);
        let mut update = Self {
            slices: VecDeque::new(),
            picture: SharedFramebuffer::clone(picture),
            black: parts.has_black().then(|| Framebuffer::black(known)),
            encoding,
            painted,
        };
        for (rect, is_black) in rects.iter().flat_map(|rect| parts.of(rect)) {
            let whole = Slice { rect, is_black };
            let is_cut = !update.is_sent_uncopied(&whole, encoder);
            let slices = cut(rect, is_cut.then(|| slice_size(rect, encoding)));
            let slices = slices.map(|rect| Slice { rect, is_black });
            update.slices.extend(slices);
        }
        // The largest pictures, in as many rectangles as there may be, are 50000 slices.
        let count = u16::try_from(update.slices.len()).unwrap_or(u16::MAX);
        let count = count.saturating_add(others);
        output.write(|out| write_update_header(count, out));
        update
    }

    /// Whether a slice is sent as it lies in the picture. Nothing bounds its size.
    fn is_sent_uncopied(&self, slice: &Slice, encoder: &Encoder) -> bool {
        let rect = &slice.rect;
        self.encoding == Encoding::RAW
            && encoder.format().is_native()
            && (rect.width >= UNCOPIED_COLUMNS || rect.area() >= UNCOPIED_PIXELS)
            && self.cursor_on(slice).is_none()
    }

    /// The cursor that is to be painted on a slice. Beside the picture it is not seen.
    fn cursor_on(&self, slice: &Slice) -> Option<&Cursor> {
        let cursor = self.painted.as_ref().filter(|_| !slice.is_black);
        cursor.filter(|cursor| cursor.covers().intersection(&slice.rect).is_some())
    }

    /// Whether all pixels are encoded.
    pub(super) fn is_done(&self) -> bool {
        self.slices.is_empty()
    }

    /// Sends black for the pixels that are still to be encoded, so that their picture need not be kept: it was replaced,
    /// and the viewer gets all of the new one next.
    pub(super) fn forget_pixels(&mut self) {
        Framebuffer::blacken(std::iter::once(&mut self.picture));
        self.painted = None;
    }

    /// Encodes the next slice. Returns its number of pixels.
    pub(super) fn encode_slice(&mut self, encoder: &mut Encoder, output: &mut Output) -> u64 {
        let Some(slice) = self.slices.pop_front() else {
            return 0;
        };
        let rect = slice.rect;
        let black = self.black.as_ref().filter(|_| slice.is_black);
        let picture = black.unwrap_or(&self.picture);
        let wire = to_wire(rect);
        if self.is_sent_uncopied(&slice, encoder) {
            output.write(|out| write_rect_header(wire, Encoding::RAW, out));
            output.add_rows(picture, rect);
            return rect.area();
        }
        let mut encode = |picture: &Framebuffer| {
            let Size { width, height } = picture.size();
            let (width, height) = (to_u16(width), to_u16(height));
            let view = FrameView::new(picture.bytes(), picture.stride(), width, height);
            let Some(view) = view else { return };
            output.write(|out| {
                let rects = encoder.encode(self.encoding, wire, &view, out);
                debug_assert_eq!(rects, 1, "{rect:?}");
            });
        };
        match self.cursor_on(&slice) {
            Some(cursor) => cursor.with_painted(&mut picture.borrow_mut(), encode),
            None => encode(&picture.borrow()),
        }
        rect.area()
    }
}

/// The parts of what the viewer knows: the picture, and what lies right of it and below it.
struct Parts([(Rect, bool); 3]);

impl Parts {
    fn new(picture: Size, known: Size) -> Self {
        let Size { width, height } = picture;
        let right = Rect::from_edges(width, 0, known.width, known.height);
        let below = Rect::from_edges(0, height, width.min(known.width), known.height);
        Self([(picture.into(), false), (right, true), (below, true)])
    }

    /// Whether anything lies outside the picture.
    fn has_black(&self) -> bool {
        self.0
            .iter()
            .any(|(part, is_black)| *is_black && !part.is_empty())
    }

    /// The parts of `rect`, and whether each lies outside the picture.
    fn of(&self, rect: &Rect) -> impl Iterator<Item = (Rect, bool)> {
        let parts = self.0.iter();
        parts.filter_map(|(part, is_black)| Some((rect.intersection(part)?, *is_black)))
    }
}

/// How pieces that changed are sent in an encoding.
pub(super) fn merging(encoding: Encoding) -> Merging {
    if encoding == Encoding::RAW {
        Merging::FINE
    } else {
        Merging::COARSE
    }
}

/// The size of pieces that are encoded at once; each is one rectangle in all encodings.
fn slice_size(rect: Rect, encoding: Encoding) -> Size {
    let width = rect.width.clamp(1, MAX_COLUMNS);
    let rows = if encoding == Encoding::TIGHT {
        Encoder::TIGHT_PIXELS_MAX as u32 / width
    } else {
        (SLICE / width / TILE * TILE).max(TILE)
    };
    Size::new(width, rows)
}

/// Cuts a rectangle into pieces of at most `size`.
fn cut(rect: Rect, size: Option<Size>) -> impl Iterator<Item = Rect> {
    let size = size.unwrap_or(Size::new(rect.width, rect.height));
    let rows = (rect.y..rect.bottom()).step_by(size.height.max(1) as usize);
    rows.flat_map(move |y| {
        let columns = (rect.x..rect.right()).step_by(size.width.max(1) as usize);
        columns.map(move |x| {
            let right = rect.right().min(x.saturating_add(size.width));
            let bottom = rect.bottom().min(y.saturating_add(size.height));
            Rect::from_edges(x, y, right, bottom)
        })
    })
}

#[cfg(test)]
mod tests;
