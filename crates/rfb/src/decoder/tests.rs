// SPDX-License-Identifier: Apache-2.0 OR MIT

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

use super::*;
use crate::Channel;

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("a vector takes all");
    encoder.flush().expect("a vector takes all");
    // Without the end of the stream: it goes on with the next rectangle.
    encoder.get_ref().clone()
}

fn zrle(tiles: &[u8]) -> Vec<u8> {
    let data = zlib(tiles);
    let len = u32::try_from(data.len()).expect("a short rectangle");
    [&len.to_be_bytes()[..], &data].concat()
}

fn draw(
    encoding: Encoding,
    (width, height): (u16, u16),
    format: PixelFormat,
    bytes: &[u8],
) -> Result<Vec<u32>, ServerMessageError> {
    let mut frame = Frame::new(width, height).expect("a frame");
    let mut reader = bytes;
    Decoder::new(format).rect(&mut reader, frame.rect(), encoding, &mut frame)?;
    assert!(reader.is_empty(), "{} bytes are left", reader.len());
    Ok(crate::frame::pixels(frame.bytes()).collect())
}

fn reason(drawn: Result<Vec<u32>, ServerMessageError>) -> &'static str {
    match drawn {
        Err(ServerMessageError::Broken { reason, .. }) => reason,
        Err(ServerMessageError::Unsupported { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

const RED: u32 = 0x00ff_0000;
const BLUE: u32 = 0x0000_00ff;

#[test]
fn tiles_of_zrle_are_those_of_the_rfc() {
    let native = PixelFormat::XRGB8888;
    let draw =
        |size, tiles: &[u8]| draw(Encoding::ZRLE, size, native, &zrle(tiles)).expect("tiles");
    assert_eq!(draw((2, 1), &[0, 0, 0, 255, 255, 0, 0]), [RED, BLUE]);
    assert_eq!(draw((2, 2), &[1, 0, 0, 255]), [RED; 4]);
    // 3 colours: two bits each, rows padded.
    let palette = [3, 0, 0, 255, 255, 0, 0, 0, 0, 0];
    let packed = [&palette[..], &[0b0001_1000, 0b0100_0000]].concat();
    assert_eq!(draw((3, 2), &packed), [RED, BLUE, 0, BLUE, RED, RED]);
    // Runs of 256 and 44.
    let runs = [128, 0, 0, 255, 255, 0, 255, 0, 0, 43];
    let drawn = draw((60, 5), &runs);
    assert_eq!(drawn[..256], [RED; 256]);
    assert_eq!(drawn[256..], [BLUE; 44]);
    let palette_runs = [130, 0, 0, 255, 255, 0, 0, 0, 0x81, 2];
    assert_eq!(draw((4, 1), &palette_runs), [RED, BLUE, BLUE, BLUE]);
}

#[test]
fn broken_tiles_of_zrle_are_told() {
    let native = PixelFormat::XRGB8888;
    let reason = |tiles: &[u8]| reason(draw(Encoding::ZRLE, (2, 2), native, &zrle(tiles)));
    for subencoding in [17, 127, 129] {
        assert!(reason(&[subencoding]).contains("unknown subencoding"));
    }
    assert!(reason(&[0, 1, 2]).contains("ends too early"));
    assert!(reason(&[1, 1, 2, 3, 9]).contains("more data"));
    assert!(reason(&[128, 1, 2, 3, 4]).contains("run is longer"));
    assert!(reason(&[&[128, 1, 2, 3][..], &[255; 40]].concat()).contains("run is longer"));
    assert!(reason(&[3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0b1111_0000, 0]).contains("beyond its palette"));
    assert!(reason(&[130, 1, 2, 3, 4, 5, 6, 2]).contains("beyond its palette"));
    let no_zlib = [0, 0, 0, 3, 1, 2, 3];
    let drawn = draw(Encoding::ZRLE, (2, 2), native, &no_zlib);
    assert!(
        matches!(drawn, Err(ServerMessageError::Broken { .. })),
        "{drawn:?}"
    );
    // The connection ends within the rectangle.
    let drawn = draw(Encoding::ZRLE, (2, 2), native, &[0, 0, 1, 0, 0x78, 0x5e]);
    assert!(matches!(drawn, Err(ServerMessageError::Io(_))), "{drawn:?}");
}

#[test]
fn a_stream_that_unpacks_to_more_than_its_rectangle_is_stopped() {
    let bomb = zrle(&vec![0; 1 << 20]);
    let drawn = draw(Encoding::ZRLE, (1, 1), PixelFormat::XRGB8888, &bomb);
    assert!(reason(drawn).contains("more data"));
}

#[test]
fn pixels_outside_the_frame_are_refused() {
    let mut frame = Frame::new(10, 10).expect("a frame");
    for encoding in [
        Encoding::RAW,
        Encoding::ZRLE,
        Encoding::TIGHT,
        Encoding::COPY_RECT,
    ] {
        let rect = Rect::new(5, 5, 6, 1);
        let drawn = Decoder::default().rect(&mut &[0; 100][..], rect, encoding, &mut frame);
        assert!(
            matches!(drawn, Err(ServerMessageError::Outside(_))),
            "{encoding:?}: {drawn:?}"
        );
    }
    let rect = Rect::new(0, 0, 5, 5);
    let from = [0, 6, 0, 0];
    let drawn = Decoder::default().rect(&mut &from[..], rect, Encoding::COPY_RECT, &mut frame);
    assert!(
        matches!(drawn, Err(ServerMessageError::Outside(_))),
        "{drawn:?}"
    );
    let unknown = Encoding(999);
    let drawn = Decoder::default().rect(&mut &from[..], rect, unknown, &mut frame);
    assert!(
        matches!(drawn, Err(ServerMessageError::UnknownEncoding(_))),
        "{drawn:?}"
    );
}

#[test]
fn rectangles_of_tight_are_those_of_the_wiki() {
    let native = PixelFormat::XRGB8888;
    let draw =
        |size, bytes: &[u8]| draw(Encoding::TIGHT, size, native, bytes).expect("a rectangle");
    assert_eq!(draw((2, 1), &[0x80, 255, 0, 0]), [RED, RED]);
    assert_eq!(draw((2, 1), &[0x00, 255, 0, 0, 0, 0, 255]), [RED, BLUE]);
    assert_eq!(draw((2, 1), &[0x40, 0, 255, 0, 0, 0, 0, 255]), [RED, BLUE]);
    let mono = [0x50, 1, 1, 255, 0, 0, 0, 0, 255, 0b1010_0000, 0b0100_0000];
    assert_eq!(draw((3, 2), &mono), [BLUE, RED, BLUE, RED, BLUE, RED]);
    let three = [0x60, 1, 2, 255, 0, 0, 0, 0, 255, 0, 0, 0, 2, 1, 0];
    assert_eq!(draw((3, 1), &three), [0, BLUE, RED]);
    // 12 bytes and more are compressed.
    let data = zlib(&[255, 0, 0].repeat(4));
    let len = u8::try_from(data.len()).expect("a short rectangle");
    assert_eq!(draw((4, 1), &[&[0x30, len], &data[..]].concat()), [RED; 4]);
}

#[test]
fn broken_rectangles_of_tight_are_told() {
    let native = PixelFormat::XRGB8888;
    let reason = |bytes: &[u8]| reason(draw(Encoding::TIGHT, (3, 1), native, bytes));
    assert!(reason(&[0x90]).contains("JPEG"));
    assert!(reason(&[0xa0]).contains("PNG"));
    for control in [0xb0, 0xc0, 0xf0] {
        assert!(reason(&[control]).contains("unknown compression"));
    }
    assert!(reason(&[0x40, 3]).contains("unknown filter"));
    let three = [0x60, 1, 2, 255, 0, 0, 0, 0, 255, 0, 0, 0, 3, 1, 0];
    assert!(reason(&three).contains("beyond its palette"));
    // One colour only: the bits may name another.
    assert!(reason(&[0x40, 1, 0, 1, 2, 3, 0b0100_0000]).contains("beyond its palette"));
    let bgr233 = draw(Encoding::TIGHT, (3, 1), PixelFormat::BGR233, &[0x40, 2]);
    assert!(matches!(bgr233, Err(ServerMessageError::Broken { .. })));
}

#[test]
fn a_stream_of_tight_begins_again_when_it_is_told_to() {
    let mut frame = Frame::new(4, 1).expect("a frame");
    let data = zlib(&[255, 0, 0].repeat(4));
    let len = u8::try_from(data.len()).expect("a short rectangle");
    let mut decoder = Decoder::default();
    let mut draw = |control| {
        let bytes = [&[control, len], &data[..]].concat();
        decoder.rect(
            &mut &bytes[..],
            Rect::of_size(4, 1),
            Encoding::TIGHT,
            &mut frame,
        )
    };
    assert!(draw(0x20).is_ok());
    assert!(draw(0x24).is_ok());
    // A header of zlib within the stream, where stream 1 was begun again instead of 2.
    assert!(draw(0x22).is_err());
}

/// Differences as the wiki defines them, computed from the whole picture.
fn gradient(pixels: &[[u32; 3]], width: usize, max: [u32; 3]) -> Vec<[u32; 3]> {
    let at = |x: usize, y: usize, colour: usize| {
        // Beyond the left and upper edge all is black; x and y are shifted by one.
        if x == 0 || y == 0 {
            0
        } else {
            pixels[(y - 1) * width + x - 1][colour]
        }
    };
    let coded = (0..pixels.len()).map(|number| {
        let (x, y) = (number % width + 1, number / width + 1);
        [0, 1, 2].map(|colour| {
            let neighbours = [
                at(x - 1, y, colour),
                at(x, y - 1, colour),
                at(x - 1, y - 1, colour),
            ];
            let [left, above, corner] = neighbours.map(i64::from);
            let expected = (left + above - corner).clamp(0, max[colour].into());
            let difference = i64::from(at(x, y, colour)) - expected;
            difference.rem_euclid(i64::from(max[colour]) + 1) as u32
        })
    });
    coded.collect()
}

#[test]
fn the_gradient_filter_is_undone() {
    let big_endian = [(31, 10), (31, 5), (31, 0)].map(|(max, shift)| Channel { max, shift });
    let big_endian = PixelFormat::true_colour(16, 15, true, big_endian).expect("a format");
    for format in [PixelFormat::XRGB8888, PixelFormat::RGB565, big_endian] {
        let max = format.channels().map(|channel| u32::from(channel.max));
        let (width, height) = (13, 7);
        let mut noise = 1u32;
        let pixels: Vec<[u32; 3]> = (0..width * height)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                [noise >> 24, noise >> 16 & 0xff, noise >> 8 & 0xff]
            })
            .map(|[red, green, blue]| [red & max[0], green & max[1], blue & max[2]])
            .collect();
        let mut data = Vec::new();
        for colours in gradient(&pixels, width, max) {
            if format == PixelFormat::XRGB8888 {
                data.extend(colours.map(|colour| colour as u8));
            } else {
                let channels = format.channels();
                let number =
                    (0..3).fold(0, |number, at| number | colours[at] << channels[at].shift);
                let wire = crate::translate::to_wire(format, number);
                data.extend_from_slice(&wire.to_le_bytes()[..2]);
            }
        }
        let data = zlib(&data);
        let len = [data.len() as u8 & 0x7f | 0x80, (data.len() >> 7) as u8];
        let bytes = [&[0x40, 2][..], &len, &data].concat();
        let size = (width as u16, height as u16);
        let drawn = draw(Encoding::TIGHT, size, format, &bytes).expect("a rectangle");
        let expected: Vec<u32> = pixels
            .iter()
            .map(|colours| {
                let channels = format.channels();
                let number =
                    (0..3).fold(0, |number, at| number | colours[at] << channels[at].shift);
                from_wire(format, crate::translate::to_wire(format, number))
            })
            .collect();
        assert_eq!(drawn, expected, "{format:?}");
    }
}
