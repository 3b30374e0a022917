// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::server_message::read_rect_header;
use crate::translate::{from_wire, wire_pixel};
use crate::{Channel, Decoder, Frame};

/// A small generator of numbers (xorshift), the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32
    }

    fn below(&mut self, limit: u16) -> u16 {
        (self.next() % u32::from(limit)) as u16
    }
}

/// Kinds of pictures: all that encodings tell apart.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Solid,
    /// So many colours, in runs of at most so many pixels.
    Colours(u16, u16),
    /// A colour of its own for each run of at most so many pixels.
    Runs(u16),
    /// Each 64x64 block another kind.
    Mixed,
}

fn picture(width: u16, height: u16, kind: Kind, random: &mut Random) -> Frame {
    let mut frame = Frame::new(width, height).expect("a frame");
    let blocks: Vec<Rect> = match kind {
        Kind::Mixed => frame.rect().blocks(64, 64).collect(),
        _ => vec![frame.rect()],
    };
    for block in blocks {
        let kind = match (kind, random.below(5)) {
            (Kind::Mixed, 0) => Kind::Solid,
            (Kind::Mixed, 1) => Kind::Colours(2, 9),
            (Kind::Mixed, 2) => Kind::Colours(100, 300),
            (Kind::Mixed, 3) => Kind::Runs(1),
            (Kind::Mixed, _) => Kind::Runs(20),
            _ => kind,
        };
        let colours: Vec<u32> = match kind {
            Kind::Solid => vec![random.next()],
            Kind::Colours(count, _) => (0..count).map(|_| random.next()).collect(),
            _ => Vec::new(),
        };
        let (mut left, mut colour) = (0, 0);
        for row in frame.rows_mut(block) {
            for pixel in row.chunks_exact_mut(4) {
                if left == 0 {
                    let longest = match kind {
                        Kind::Colours(_, longest) | Kind::Runs(longest) => longest,
                        _ => 1,
                    };
                    left = random.below(longest) + 1;
                    colour = match colours.len() {
                        0 => random.next(),
                        len => colours[random.next() as usize % len],
                    };
                }
                left -= 1;
                pixel.copy_from_slice(&colour.to_le_bytes());
            }
        }
    }
    frame
}

fn formats() -> Vec<PixelFormat> {
    let true_colour = |bits, depth, big_endian, channels: [(u16, u8); 3]| {
        let channels = channels.map(|(max, shift)| Channel { max, shift });
        PixelFormat::true_colour(bits, depth, big_endian, channels).expect("a format")
    };
    vec![
        PixelFormat::XRGB8888,
        PixelFormat::RGB565,
        PixelFormat::BGR233,
        true_colour(32, 24, false, [(255, 0), (255, 8), (255, 16)]),
        true_colour(32, 24, true, [(255, 16), (255, 8), (255, 0)]),
        true_colour(32, 24, false, [(255, 24), (255, 16), (255, 8)]),
        true_colour(32, 32, false, [(255, 16), (255, 8), (255, 0)]),
        true_colour(32, 30, false, [(1023, 20), (1023, 10), (1023, 0)]),
        true_colour(16, 15, true, [(31, 10), (31, 5), (31, 0)]),
        true_colour(8, 6, false, [(3, 4), (3, 2), (3, 0)]),
    ]
}

/// What a frame looks like once it was in that format.
fn through(format: PixelFormat, frame: &Frame) -> Frame {
    let mut seen = frame.clone();
    let translator = Translator::new(format);
    for pixel in seen.bytes_mut().chunks_exact_mut(4) {
        let mut wire = [wire_pixel(pixel)];
        translator.in_place(&mut wire);
        pixel.copy_from_slice(&from_wire(format, wire[0]).to_le_bytes());
    }
    seen
}

fn decode(decoder: &mut Decoder, bytes: &[u8], rects: u16, frame: &mut Frame) {
    let mut reader = bytes;
    for _ in 0..rects {
        let (rect, encoding) = read_rect_header(&mut reader).expect("a header");
        let done = decoder.rect(&mut reader, rect, encoding, frame);
        done.unwrap_or_else(|error| panic!("{rect:?}: {error}"));
    }
    assert!(reader.is_empty(), "{} bytes are left", reader.len());
}

const ENCODINGS: [Encoding; 3] = [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT];

const KINDS: [Kind; 12] = [
    Kind::Solid,
    Kind::Colours(2, 1),
    Kind::Colours(3, 4),
    Kind::Colours(5, 2),
    Kind::Colours(16, 3),
    Kind::Colours(17, 300),
    Kind::Colours(127, 900),
    Kind::Colours(128, 1),
    Kind::Colours(300, 5),
    Kind::Runs(1),
    Kind::Runs(2000),
    Kind::Mixed,
];

const SIZES: [(u16, u16); 9] = [
    (1, 1),
    (1, 200),
    (2100, 3),
    (7, 9),
    (63, 64),
    (64, 64),
    (65, 66),
    (128, 70),
    (257, 300),
];

#[test]
fn every_picture_survives_every_encoding_and_format() {
    let mut random = Random(1);
    for encoding in ENCODINGS {
        for format in formats() {
            // One encoder and one decoder: streams go on over all pictures.
            let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(format));
            encoder.set_format(format);
            for (number, kind) in KINDS.into_iter().enumerate() {
                let (width, height) =
                    SIZES[(number * 4 + usize::from(format.bits_per_pixel())) % SIZES.len()];
                let frame = picture(width, height, kind, &mut random);
                let mut out = Vec::new();
                let rects = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
                let mut seen = Frame::new(width, height).expect("a frame");
                decode(&mut decoder, &out, rects, &mut seen);
                assert!(
                    seen == through(format, &frame),
                    "{encoding:?} {format:?} {kind:?} {width}x{height}"
                );
            }
        }
    }
}

#[test]
fn every_size_survives_every_kind_and_level() {
    let mut random = Random(2);
    for encoding in ENCODINGS {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::default());
        for (number, (width, height)) in SIZES.into_iter().enumerate() {
            for (kind, level) in KINDS.into_iter().zip((number..10).cycle()) {
                // The level changes within the stream.
                encoder.set_compress_level(u8::try_from(level).ok());
                let frame = picture(width, height, kind, &mut random);
                let mut out = Vec::new();
                let rects = encoder.encode(encoding, frame.rect(), &frame.view(), &mut out);
                let mut seen = Frame::new(width, height).expect("a frame");
                decode(&mut decoder, &out, rects, &mut seen);
                let expected = through(PixelFormat::XRGB8888, &frame);
                let seen = through(PixelFormat::XRGB8888, &seen);
                assert!(seen == expected, "{encoding:?} {kind:?} {width}x{height}");
            }
        }
    }
}

#[test]
fn parts_of_a_frame_with_gaps_between_rows_are_cut_at_its_edge() {
    let mut random = Random(3);
    let frame = picture(200, 150, Kind::Mixed, &mut random);
    let mut padded = Vec::new();
    for row in frame.view().rows(frame.rect()) {
        padded.extend_from_slice(row);
        padded.extend_from_slice(&[0xee; 12]);
    }
    let view = FrameView::new(&padded, 200 * 4 + 12, 200, 150).expect("a frame");
    for encoding in ENCODINGS {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::default());
        let mut seen = Frame::new(200, 150).expect("a frame");
        for rect in [
            Rect::new(3, 5, 70, 90),
            Rect::new(190, 140, 100, 100),
            frame.rect(),
        ] {
            let mut out = Vec::new();
            let rects = encoder.encode(encoding, rect, &view, &mut out);
            decode(&mut decoder, &out, rects, &mut seen);
            let inside = rect.intersection(frame.rect());
            let expected = through(PixelFormat::XRGB8888, &frame);
            let seen = through(PixelFormat::XRGB8888, &seen);
            assert!(seen.view().rows(inside).eq(expected.view().rows(inside)));
        }
        let mut out = Vec::new();
        let outside = Rect::new(200, 0, 10, 10);
        assert_eq!(encoder.encode(encoding, outside, &view, &mut out), 0);
        assert!(out.is_empty());
    }
}

/// Bytes of Tight for the last of some pictures of 64x64 in the same rectangle, with a header.
fn tight_bytes(mut colour: impl FnMut(u32, u32, u32) -> u32) -> usize {
    let mut encoder = Encoder::new();
    let mut out = Vec::new();
    for round in 0..50 {
        let mut frame = Frame::new(64, 64).expect("a frame");
        for (n, pixel) in (0..).zip(frame.bytes_mut().chunks_exact_mut(4)) {
            let colour = colour(round, n % 64, n / 64);
            pixel.copy_from_slice(&colour.to_le_bytes());
        }
        out.clear();
        let rects = encoder.encode(Encoding::TIGHT, frame.rect(), &frame.view(), &mut out);
        assert_eq!(rects, 1);
    }
    out.len()
}

#[test]
fn tight_takes_a_palette_only_where_that_is_shorter() {
    // A ramp of 64 colours, each row the same: a palette of them would have as many bytes as the first row.
    let ramp = tight_bytes(|round, x, _| (round * 0x0001_0305).wrapping_add(x));
    // QEMU 10.0 takes 221, its rectangle's header included.
    assert!(ramp <= 221, "{ramp}");
    // As many colours, in no order: three bytes each against less than one.
    let mut random = Random(5);
    let noise = tight_bytes(|_, _, _| random.next() % 64 * 0x0003_0501);
    assert!(noise < 64 * 64 * 7 / 8 + 192 + 64, "{noise}");
    // Runs of few colours.
    let runs = tight_bytes(|round, x, y| (x / 8 + y / 16 + round) % 5 * 0x0020_3010);
    assert!(runs < 120, "{runs}");
}
