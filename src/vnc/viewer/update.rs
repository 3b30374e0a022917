//! An update on its way to a viewer, encoded slice by slice.

use std::collections::VecDeque;

use rfb::server_message::{
    UNTIL_LAST_RECT, write_last_rect, write_rect_header, write_update_header,
};
use rfb::{Encoder, Encoding, EncodingSet, FrameView};

use crate::geometry::{Rect, Size};
use crate::vnc::head::{Cursor, Framebuffer, SharedFramebuffer};
use crate::vnc::region::Region;

use super::output::Output;

/// Most pixels of a rectangle that is encoded at once.
const SLICE: u32 = 128 << 10;
/// Rows of a tile of ZRLE, to which slices are aligned.
const TILE: u32 = 64;
/// Most columns of a slice: Tight allows no more.
const MAX_COLUMNS: u32 = 2048;

/// Pixels that are still to be encoded for an update. Its header, and its rectangles without pixels, are written.
pub(super) struct Update {
    slices: VecDeque<Slice>,
    encoding: Encoding,
    /// The cursor, for a viewer that cannot show it by itself.
    painted: Option<Cursor>,
    ends_with_last_rect: bool,
}

struct Slice {
    picture: SharedFramebuffer,
    rect: Rect,
}

/// What an update is made of.
pub(super) struct Contents<'a> {
    /// The pixels, within what the viewer knows of the picture's size.
    pub(super) region: &'a Region,
    /// The picture.
    pub(super) picture: &'a SharedFramebuffer,
    /// The size that the viewer knows. What lies outside the picture is black.
    pub(super) known: Size,
    pub(super) painted: Option<Cursor>,
}

impl Update {
    /// Writes the header of an update with these pixels after `others` rectangles without pixels, which are to be
    /// written before [`Self::encode_slice`].
    pub(super) fn begin(
        contents: &Contents<'_>,
        others: u16,
        encodings: &EncodingSet,
        encoder: &Encoder,
        output: &mut Output,
    ) -> Self {
        let ends_with_last_rect = encodings.contains(Encoding::LAST_RECT);
        let encoding = pixel_encoding(encodings);
        // Without a copy, so of any size.
        let is_whole = |rect: &Rect| {
            let cursor = contents.painted.as_ref().map(Cursor::covers);
            let covered = cursor.and_then(|cursor| cursor.intersection(rect));
            encoding == Encoding::RAW && encoder.format().is_native() && covered.is_none()
        };
        let mut slices = VecDeque::new();
        for (rect, picture) in contents.rects() {
            let size = (!is_whole(&rect)).then(|| slice_size(rect));
            slices.extend(cut(rect, size).map(|rect| Slice {
                picture: SharedFramebuffer::clone(&picture),
                rect,
            }));
        }
        let count = slices.len() + usize::from(others);
        let count = u16::try_from(count).ok().filter(|_| !ends_with_last_rect);
        output.write(|out| write_update_header(count.unwrap_or(UNTIL_LAST_RECT), out));
        Self {
            slices,
            encoding,
            painted: contents.painted.clone(),
            ends_with_last_rect,
        }
    }

    /// Whether all pixels are encoded.
    pub(super) fn is_done(&self) -> bool {
        self.slices.is_empty()
    }

    /// Sends black for the pixels that are still to be encoded, so that their picture need not be kept: it was replaced,
    /// and the viewer gets all of the new one next.
    pub(super) fn forget_pixels(&mut self) {
        Framebuffer::blacken(self.slices.iter_mut().map(|slice| &mut slice.picture));
        self.painted = None;
    }

    /// Encodes the next slice, and ends the update after the last one.
    pub(super) fn encode_slice(&mut self, encoder: &mut Encoder, output: &mut Output) {
        if let Some(Slice { picture, rect }) = self.slices.pop_front() {
            let covered = self.painted.as_ref().filter(|cursor| {
                let covers = cursor.covers();
                covers.intersection(&rect).is_some()
            });
            let wire = to_wire(rect);
            if self.encoding == Encoding::RAW && encoder.format().is_native() && covered.is_none() {
                output.write(|out| write_rect_header(wire, Encoding::RAW, out));
                output.add_rows(&picture, rect);
            } else {
                let mut encode = |picture: &Framebuffer| {
                    let Size { width, height } = picture.size();
                    let (width, height) = (to_u16(width), to_u16(height));
                    let view = FrameView::new(picture.bytes(), picture.stride(), width, height);
                    let Some(view) = view else { return };
                    output.write(|out| {
                        let rects = encoder.encode(self.encoding, wire, &view, out);
                        debug_assert!(rects == 1 || self.ends_with_last_rect, "{rects}");
                    });
                };
                match covered {
                    Some(cursor) => cursor.with_painted(&mut picture.borrow_mut(), encode),
                    None => encode(&picture.borrow()),
                }
            }
        }
        if self.slices.is_empty() && self.ends_with_last_rect {
            output.write(write_last_rect);
        }
    }
}

impl Contents<'_> {
    /// The rectangles, each with the picture that it is read from.
    fn rects(&self) -> Vec<(Rect, SharedFramebuffer)> {
        let picture = Rect::from(self.picture.borrow().size());
        let Size { width, height } = self.known;
        let (right, bottom) = (picture.right(), picture.bottom());
        let outside = [
            Rect::from_edges(right, 0, width, height),
            Rect::from_edges(0, bottom, right.min(width), height),
        ];
        let mut rects = Vec::new();
        let mut add = |part: &Rect, picture: &SharedFramebuffer| {
            // Each part for itself: rectangles of a region that become one then stay within the part.
            let within = self.region.clone().take_within(part);
            let within = within.rects().iter();
            rects.extend(within.map(|rect| (*rect, SharedFramebuffer::clone(picture))));
        };
        add(&picture, self.picture);
        if outside.iter().any(|part| !part.is_empty()) {
            let black = Framebuffer::black(self.known);
            outside.iter().for_each(|part| add(part, &black));
        }
        rects
    }
}

/// The encoding that the viewer prefers. One rectangle may become several in Tight, which is too late for the number of
/// rectangles in the header.
fn pixel_encoding(encodings: &EncodingSet) -> Encoding {
    match encodings.preferred() {
        Encoding::TIGHT if encodings.contains(Encoding::LAST_RECT) => Encoding::TIGHT,
        Encoding::TIGHT if encodings.contains(Encoding::ZRLE) => Encoding::ZRLE,
        Encoding::TIGHT => Encoding::RAW,
        other => other,
    }
}

fn slice_size(rect: Rect) -> Size {
    let width = rect.width.clamp(1, MAX_COLUMNS);
    let rows = SLICE / width / TILE * TILE;
    Size::new(width, rows.max(TILE))
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

/// As RFB has it. All sizes of pictures fit.
fn to_wire(rect: Rect) -> rfb::Rect {
    rfb::Rect::new(
        to_u16(rect.x),
        to_u16(rect.y),
        to_u16(rect.width),
        to_u16(rect.height),
    )
}

/// A number within a picture, as RFB has it.
pub(super) fn to_u16(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_rectangle_without_overlap() {
        let rect = Rect::from_edges(5, 7, 5000, 300);
        let pieces: Vec<_> = cut(rect, Some(slice_size(rect))).collect();
        let area: u64 = pieces.iter().map(Rect::area).sum();
        assert_eq!(area, rect.area());
        let mut region = Region::default();
        for piece in &pieces {
            assert!(piece.width <= MAX_COLUMNS && piece.area() <= u64::from(SLICE));
            region.add(*piece);
        }
        assert_eq!(region.rects(), [rect]);
        assert_eq!(cut(rect, None).collect::<Vec<_>>(), [rect]);
    }

    #[test]
    fn update_ends_as_it_was_announced_without_its_picture() {
        let size = Size::new(600, 400);
        let picture = Framebuffer::black(size);
        picture
            .borrow_mut()
            .rows_mut(size.into(), 0)
            .flatten()
            .for_each(|byte| *byte = 7);
        let mut region = Region::default();
        region.add(size.into());
        let contents = Contents {
            region: &region,
            picture: &picture,
            known: Size::new(700, 400),
            painted: None,
        };
        let encodings: EncodingSet = [Encoding::ZRLE].into_iter().collect();
        let (mut encoder, mut output) = (Encoder::new(), Output::default());
        let mut update = Update::begin(&contents, 0, &encodings, &encoder, &mut output);
        let slices = update.slices.len();
        assert!(slices > 1);
        update.forget_pixels();
        assert_eq!(SharedFramebuffer::strong_count(&picture), 1);
        assert_eq!(update.slices.len(), slices);
        while !update.is_done() {
            update.encode_slice(&mut encoder, &mut output);
        }
    }

    #[test]
    fn black_around_the_picture_covers_none_of_it() {
        let size = Size::new(1000, 1000);
        let picture = Framebuffer::black(size);
        let mut region = Region::default();
        // What lies outside is more rectangles than a region has; those at the corner are the nearest ones.
        for i in 0..16 {
            region.add(Rect::from_edges(1500, i * 40, 1501, i * 40 + 1));
        }
        for i in 0..15 {
            region.add(Rect::from_edges(i * 40, 1500, i * 40 + 1, 1501));
        }
        region.add(Rect::from_edges(995, 995, 1005, 1005));
        let contents = Contents {
            region: &region,
            picture: &picture,
            known: Size::new(2000, 2000),
            painted: None,
        };
        let mut black = Region::default();
        for (rect, source) in contents.rects() {
            if SharedFramebuffer::ptr_eq(&source, &picture) {
                assert_eq!(rect, Rect::from_edges(995, 995, 1000, 1000));
            } else {
                assert_eq!(rect.intersection(&size.into()), None, "{rect:?}");
                black.add(rect);
            }
        }
        let area: u64 = black.rects().iter().map(Rect::area).sum();
        assert!(area >= 31 + 75, "{area}");
    }

    #[test]
    fn tight_needs_last_rect() {
        let encodings = |list: &[Encoding]| pixel_encoding(&list.iter().copied().collect());
        let (tight, zrle, last) = (Encoding::TIGHT, Encoding::ZRLE, Encoding::LAST_RECT);
        assert_eq!(encodings(&[tight, zrle, last]), tight);
        assert_eq!(encodings(&[tight, zrle]), zrle);
        assert_eq!(encodings(&[tight]), Encoding::RAW);
        assert_eq!(encodings(&[zrle, tight, last]), zrle);
        assert_eq!(encodings(&[]), Encoding::RAW);
    }
}
