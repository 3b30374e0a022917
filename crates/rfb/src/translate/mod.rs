// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pixels of a frame in a viewer's format, and back.

use crate::PixelFormat;
use crate::frame::{PIXEL_LEN, pixels};

/// Translates pixels 0xXXRRGGBB.
///
/// A *wire pixel* is a number whose little-endian bytes are those of the message, in whatever format.
#[derive(Debug)]
pub(crate) struct Translator {
    format: PixelFormat,
    way: Way,
}

/// How a format's wire pixels come about.
#[derive(Debug)]
enum Way {
    /// As they are, without the unused byte.
    Native,
    /// Three bytes in another order: shifts of red, green and blue, as noVNC wants them.
    Bytes([u32; 3]),
    /// Wire pixels of each value of red, green and blue.
    Tables(Box<[[u32; 256]; 3]>),
}

impl Translator {
    pub(crate) fn new(format: PixelFormat) -> Self {
        let way = if format.is_native() {
            Way::Native
        } else if let Some(shifts) = byte_shifts(format) {
            Way::Bytes(shifts)
        } else {
            let mut tables = Box::new([[0; 256]; 3]);
            for (table, channel) in tables.iter_mut().zip(format.channels()) {
                for (entry, value) in table.iter_mut().zip(0..=u8::MAX) {
                    *entry = to_wire(format, channel.of_8_bits(value));
                }
            }
            Way::Tables(tables)
        };
        Self { format, way }
    }

    pub(crate) fn format(&self) -> PixelFormat {
        self.format
    }

    /// Replaces pixels by wire pixels.
    pub(crate) fn in_place(&self, pixels: &mut [u32]) {
        match &self.way {
            Way::Native => pixels.iter_mut().for_each(|pixel| *pixel &= 0x00ff_ffff),
            Way::Bytes(shifts) => {
                for pixel in pixels {
                    *pixel = reorder(*shifts, *pixel);
                }
            }
            Way::Tables(tables) => {
                for pixel in pixels {
                    *pixel = look_up(tables, *pixel);
                }
            }
        }
    }

    /// Appends a row of a frame as the viewer's pixels.
    pub(crate) fn append_row(&self, row: &[u8], out: &mut Vec<u8>) {
        match (&self.way, self.format.bytes_per_pixel()) {
            (Way::Native, _) => out.extend_from_slice(row),
            (Way::Bytes(shifts), _) => append::<4>(row, out, |pixel| reorder(*shifts, pixel)),
            (Way::Tables(tables), 1) => append::<1>(row, out, |pixel| look_up(tables, pixel)),
            (Way::Tables(tables), 2) => append::<2>(row, out, |pixel| look_up(tables, pixel)),
            (Way::Tables(tables), _) => append::<4>(row, out, |pixel| look_up(tables, pixel)),
        }
    }
}

/// Shifts within a wire pixel, where each colour is a byte of four.
fn byte_shifts(format: PixelFormat) -> Option<[u32; 3]> {
    let channels = format.channels();
    let are_bytes = channels
        .iter()
        .all(|channel| channel.max == 255 && channel.shift % 8 < 1);
    if format.bits_per_pixel() != 32 || !are_bytes {
        return None;
    }
    Some(channels.map(|channel| {
        let shift = u32::from(channel.shift);
        if format.is_big_endian() {
            24 - shift.min(24)
        } else {
            shift
        }
    }))
}

fn append<const LEN: usize>(row: &[u8], out: &mut Vec<u8>, wire: impl Fn(u32) -> u32) {
    let start = out.len();
    out.resize(start + row.len() / PIXEL_LEN * LEN, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    for (to, pixel) in room.chunks_exact_mut(LEN).zip(pixels(row)) {
        for (to, from) in to.iter_mut().zip(wire(pixel).to_le_bytes()) {
            *to = from;
        }
    }
}

#[inline]
fn reorder([red, green, blue]: [u32; 3], pixel: u32) -> u32 {
    (pixel >> 16 & 0xff) << red | (pixel >> 8 & 0xff) << green | (pixel & 0xff) << blue
}

#[inline]
fn look_up(tables: &[[u32; 256]; 3], pixel: u32) -> u32 {
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
