// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn is_within_limits(slice: &Rect) -> bool {
    slice.width <= MAX_COLUMNS && slice.area() <= u64::from(SLICE)
}

#[test]
fn pieces_cover_the_rectangle_without_overlap() {
    let rect = Rect::from_edges(5, 7, 5000, 300);
    for encoding in [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT] {
        let pieces: Vec<_> = cut(rect, Some(slice_size(rect, encoding))).collect();
        let area: u64 = pieces.iter().map(Rect::area).sum();
        assert_eq!(area, rect.area());
        let around = pieces
            .iter()
            .fold(Rect::default(), |all, piece| all.around(piece));
        assert_eq!(around, rect);
        assert!(pieces.iter().all(is_within_limits));
        for (n, piece) in pieces.iter().enumerate() {
            let mut others = pieces.iter().take(n);
            assert!(others.all(|other| other.intersection(piece).is_none()));
        }
    }
    assert_eq!(cut(rect, None).collect::<Vec<_>>(), [rect]);
}

#[test]
fn slice_of_any_shape_is_one_rectangle_of_tight() {
    for (width, height) in [(1, 16_384), (64, 64), (1920, 1080), (2049, 33), (16_384, 3)] {
        let rect = Rect::sized(width, height);
        for slice in cut(rect, Some(slice_size(rect, Encoding::TIGHT))) {
            assert!(slice.width <= Encoder::TIGHT_WIDTH_MAX.into(), "{slice:?}");
            assert!(
                slice.area() <= Encoder::TIGHT_PIXELS_MAX as u64,
                "{slice:?}"
            );
        }
    }
}

fn contents(rects: Vec<Rect>, picture: &SharedFramebuffer, known: Size) -> Contents<'_> {
    Contents {
        rects,
        picture,
        known,
        encoding: Encoding::ZRLE,
        painted: None,
    }
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
    let known = Size::new(700, 400);
    let (mut encoder, mut output) = (Encoder::new(), Output::default());
    let contents = contents(vec![known.into()], &picture, known);
    let mut update = Update::begin(contents, 0, &encoder, &mut output);
    let slices = update.slices.len();
    assert!(slices > 1);
    update.forget_pixels();
    assert_eq!(SharedFramebuffer::strong_count(&picture), 1);
    assert_eq!(update.slices.len(), slices);
    let mut area = 0;
    while !update.is_done() {
        area += update.encode_slice(&mut encoder, &mut output);
    }
    assert_eq!(area, known.area());
}

#[test]
fn black_around_the_picture_covers_none_of_it() {
    let size = Size::new(1000, 1000);
    let picture = Framebuffer::black(size);
    let rects = vec![
        Rect::from_edges(1500, 40, 1501, 41),
        Rect::from_edges(40, 1500, 41, 1501),
        Rect::from_edges(990, 990, 1010, 1010),
    ];
    let mut output = Output::default();
    let contents = contents(rects, &picture, Size::new(2000, 2000));
    let update = Update::begin(contents, 0, &Encoder::new(), &mut output);
    let of = |black| {
        update
            .slices
            .iter()
            .filter(move |slice| slice.is_black == black)
    };
    let shown: Vec<_> = of(false).map(|slice| slice.rect).collect();
    assert_eq!(shown, [Rect::from_edges(990, 990, 1000, 1000)]);
    assert!(of(true).all(|slice| slice.rect.intersection(&size.into()).is_none()));
    assert_eq!(
        of(true).map(|slice| slice.rect.area()).sum::<u64>(),
        1 + 1 + 300
    );
}

#[test]
fn many_small_rectangles_are_copied_and_large_ones_are_not() {
    let picture = Framebuffer::black(Size::new(1920, 1080));
    let encoder = Encoder::new();
    let update = |encoding| {
        let mut contents = contents(Vec::new(), &picture, Size::new(1920, 1080));
        contents.encoding = encoding;
        Update::begin(contents, 0, &encoder, &mut Output::default())
    };
    let raw = update(Encoding::RAW);
    for (width, height, uncopied) in [
        (1920, 1080, true),
        (256, 1, true),
        (16, 1080, true),
        (252, 64, false),
        (4, 1, false),
    ] {
        let rect = Rect::sized(width, height);
        let is_black = false;
        let slice = Slice { rect, is_black };
        assert_eq!(raw.is_sent_uncopied(&slice, &encoder), uncopied, "{rect:?}");
        assert!(!update(Encoding::ZRLE).is_sent_uncopied(&slice, &encoder));
    }
}
