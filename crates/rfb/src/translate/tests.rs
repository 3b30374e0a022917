// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::pixel_format::Channel;

fn format(bits: u8, big_endian: bool, channels: [(u16, u8); 3]) -> PixelFormat {
    let channels = channels.map(|(max, shift)| Channel { max, shift });
    PixelFormat::true_colour(bits, bits.min(24), big_endian, channels).expect("a format")
}

fn wire_of(translator: &Translator, pixel: u32) -> u32 {
    let mut pixels = [pixel];
    translator.in_place(&mut pixels);
    pixels[0]
}

fn bytes(format: PixelFormat, pixel: u32) -> Vec<u8> {
    let mut out = Vec::new();
    Translator::new(format).append_row(&pixel.to_le_bytes(), &mut out);
    out
}

#[test]
fn pixels_have_the_bytes_of_their_format() {
    let pixel = 0x0011_2233;
    assert_eq!(bytes(PixelFormat::XRGB8888, pixel), [0x33, 0x22, 0x11, 0]);
    let rgbx = [(255, 24), (255, 16), (255, 8)];
    assert_eq!(bytes(format(32, false, rgbx), pixel), [0, 0x33, 0x22, 0x11]);
    assert_eq!(bytes(format(32, true, rgbx), pixel), [0x11, 0x22, 0x33, 0]);
    assert_eq!(bytes(PixelFormat::RGB565, 0x00ff_0000), [0x00, 0xf8]);
    let rgb565 = [(31, 11), (63, 5), (31, 0)];
    assert_eq!(bytes(format(16, true, rgb565), 0x00ff_0000), [0xf8, 0x00]);
    assert_eq!(bytes(PixelFormat::BGR233, 0x00ff_00ff), [0b1100_0111]);
}

#[test]
fn a_translated_pixel_comes_back_in_what_its_format_has() {
    let formats = [
        PixelFormat::XRGB8888,
        PixelFormat::RGB565,
        PixelFormat::BGR233,
        format(32, true, [(255, 0), (255, 8), (255, 16)]),
        format(32, false, [(1023, 20), (1023, 10), (1023, 0)]),
        format(16, true, [(31, 10), (31, 5), (31, 0)]),
    ];
    for format in formats {
        let translator = Translator::new(format);
        for pixel in (0..1 << 24).step_by(4099) {
            let wire = wire_of(&translator, pixel | 0xab00_0000);
            let back = from_wire(format, wire);
            // Once through the format, nothing more is lost.
            assert_eq!(wire_of(&translator, back), wire, "{format:?} {pixel:#x}");
            if format.channels().iter().all(|channel| channel.max >= 255) {
                assert_eq!(back, pixel, "{format:?}");
            }
            assert_eq!(wire_pixel(&bytes(format, pixel)), wire);
        }
    }
}
