//! Pixels of a frame in a viewer's format, and back.

use crate::PixelFormat;
use crate::frame::pixels;

/// Translates pixels 0xXXRRGGBB.
///
/// A *wire pixel* is a number whose little-endian bytes are those of the message, in whatever format.
#[derive(Debug)]
pub(crate) struct Translator {
    format: PixelFormat,
    /// Wire pixels of each value of red, green and blue; none where a pixel needs no translation.
    tables: Option<Box<[[u32; 256]; 3]>>,
}

impl Translator {
    pub(crate) fn new(format: PixelFormat) -> Self {
        let tables = (!format.is_native()).then(|| {
            let mut tables = Box::new([[0; 256]; 3]);
            for (table, channel) in tables.iter_mut().zip(format.channels()) {
                for (entry, value) in table.iter_mut().zip(0..=u8::MAX) {
                    *entry = to_wire(format, channel.of_8_bits(value));
                }
            }
            tables
        });
        Self { format, tables }
    }

    pub(crate) fn format(&self) -> PixelFormat {
        self.format
    }

    /// Replaces pixels by wire pixels.
    pub(crate) fn in_place(&self, pixels: &mut [u32]) {
        match &self.tables {
            None => pixels.iter_mut().for_each(|pixel| *pixel &= 0x00ff_ffff),
            Some(tables) => {
                for pixel in pixels {
                    *pixel = translate(tables, *pixel);
                }
            }
        }
    }

    /// Appends a row of a frame as the viewer's pixels.
    pub(crate) fn append_row(&self, row: &[u8], out: &mut Vec<u8>) {
        let Some(tables) = &self.tables else {
            out.extend_from_slice(row);
            return;
        };
        let wire = pixels(row).map(|pixel| translate(tables, pixel).to_le_bytes());
        match self.format.bytes_per_pixel() {
            1 => out.extend(wire.map(|[byte, ..]| byte)),
            2 => out.extend(wire.flat_map(|[first, second, ..]| [first, second])),
            _ => out.extend(wire.flatten()),
        }
    }
}

fn translate(tables: &[[u32; 256]; 3], pixel: u32) -> u32 {
    let [blue, green, red, _] = pixel.to_le_bytes();
    let [reds, greens, blues] = tables;
    reds[usize::from(red)] | greens[usize::from(green)] | blues[usize::from(blue)]
}

/// A pixel as a number in its format, as a wire pixel; and back, as swapping twice is the identity.
pub(crate) fn to_wire(format: PixelFormat, pixel: u32) -> u32 {
    match (format.is_big_endian(), format.bits_per_pixel()) {
        (true, 32) => pixel.swap_bytes(),
        (true, 16) => pixel.swap_bytes() >> 16,
        _ => pixel,
    }
}

/// A wire pixel as a pixel 0x00RRGGBB.
pub(crate) fn from_wire(format: PixelFormat, wire: u32) -> u32 {
    if format.is_native() {
        return wire & 0x00ff_ffff;
    }
    let pixel = to_wire(format, wire);
    let [red, green, blue] = format.channels().map(|channel| channel.to_8_bits(pixel));
    u32::from_le_bytes([blue, green, red, 0])
}

/// Bytes of a message, at most four, as a wire pixel.
pub(crate) fn wire_pixel(bytes: &[u8]) -> u32 {
    let mut wire = [0; 4];
    for (to, from) in wire.iter_mut().zip(bytes) {
        *to = *from;
    }
    u32::from_le_bytes(wire)
}

#[cfg(test)]
mod tests;
