// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn bytes(format: PixelFormat) -> [u8; 16] {
    let mut out = Vec::new();
    format.write(&mut out);
    out.try_into().expect("a format of 16 bytes")
}

#[test]
fn formats_survive_a_message() {
    for format in [
        PixelFormat::XRGB8888,
        PixelFormat::RGB565,
        PixelFormat::BGR233,
    ] {
        assert_eq!(PixelFormat::read(bytes(format)), Ok(format));
    }
    assert_eq!(
        bytes(PixelFormat::XRGB8888),
        [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]
    );
}

#[test]
fn what_does_not_fit_a_pixel_is_refused() {
    let good = bytes(PixelFormat::XRGB8888);
    let with = |at: usize, value| {
        let mut bytes = good;
        bytes[at] = value;
        PixelFormat::read(bytes)
    };
    assert_eq!(with(0, 24), Err(PixelFormatError::BitsPerPixel(24)));
    assert_eq!(with(0, 0), Err(PixelFormatError::BitsPerPixel(0)));
    for (at, value) in [(10, 25), (10, 32), (11, 255), (0, 16), (0, 8)] {
        assert!(
            matches!(with(at, value), Err(PixelFormatError::Colour { .. })),
            "byte {at} = {value}"
        );
    }
    assert!(with(10, 24).is_ok());
}

#[test]
fn a_colour_map_is_that_of_bgr233() {
    let mut asked = bytes(PixelFormat::BGR233);
    asked[3] = 0;
    asked[4..13].fill(0xff);
    let format = PixelFormat::read(asked).expect("a format");
    assert!(format.is_colour_map());
    assert_eq!(format.channels(), PixelFormat::BGR233.channels());
}

#[test]
fn a_cpixel_has_the_bytes_with_colours() {
    let format = |depth, big_endian, shifts: [u8; 3]| {
        let channels = shifts.map(|shift| Channel { max: 255, shift });
        PixelFormat::true_colour(32, depth, big_endian, channels).expect("a format")
    };
    assert_eq!(format(24, false, [16, 8, 0]).cpixel_bytes(), 0..3);
    assert_eq!(format(24, true, [16, 8, 0]).cpixel_bytes(), 1..4);
    assert_eq!(format(24, false, [24, 16, 8]).cpixel_bytes(), 1..4);
    assert_eq!(format(24, true, [24, 16, 8]).cpixel_bytes(), 0..3);
    assert_eq!(format(24, false, [24, 8, 0]).cpixel_bytes(), 0..4);
    assert_eq!(format(32, false, [16, 8, 0]).cpixel_bytes(), 0..4);
    assert_eq!(PixelFormat::RGB565.cpixel_bytes(), 0..2);
    assert_eq!(PixelFormat::BGR233.cpixel_bytes(), 0..1);
}

#[test]
fn eight_bits_survive_channels_that_have_them() {
    for max in [1, 3, 7, 31, 63, 255, 1023] {
        let channel = Channel { max, shift: 3 };
        assert_eq!(channel.to_8_bits(channel.of_8_bits(0)), 0);
        assert_eq!(channel.to_8_bits(channel.of_8_bits(255)), 255);
    }
    let channel = Channel { max: 255, shift: 3 };
    for value in 0..=255 {
        assert_eq!(channel.to_8_bits(channel.of_8_bits(value)), value);
    }
    assert_eq!(Channel { max: 0, shift: 3 }.to_8_bits(u32::MAX), 0);
}

#[test]
fn a_channel_without_bits_may_have_any_shift() {
    let mut asked = bytes(PixelFormat::XRGB8888);
    asked[8..10].fill(0);
    asked[12] = 0xb8;
    let format = PixelFormat::read(asked).expect("a format");
    let [_, _, blue] = format.channels();
    assert_eq!(blue.of_8_bits(255), 0);
    assert_eq!(blue.to_8_bits(u32::MAX), 0);
}
