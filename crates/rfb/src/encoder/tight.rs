// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tight (community wiki: Tight encoding), without JPEG: no pixel is lost.

use super::deflate::Deflater;
use super::tile::{Tile, append_pixels, is_solid};
use super::{DEFAULT_LEVEL, DEFAULT_LEVEL_OF_PIXELS};
use crate::server_message::write_rect_header;
use crate::translate::Translator;
use crate::{Encoding, FrameView, Rect};

/// The most columns of a rectangle.
pub(super) const WIDTH_MAX: u16 = 2048;
/// The most pixels of a rectangle, but for one of one colour. Wide and low ones take the fewest bytes.
pub(super) const PIXELS_MAX: usize = 1 << 16;
/// The most colours of a palette.
const PALETTE_MAX: usize = 256;
/// Data shorter than this is not compressed.
const COMPRESS_MIN: usize = 12;
/// How many pixels are given to deflate at once.
const BATCH: usize = 8 << 10;

/// What a rectangle begins with.
mod control {
    /// One colour.
    pub(super) const FILL: u8 = 0x80;
    /// A filter is named; without it: copy.
    pub(super) const FILTER: u8 = 0x40;
    /// Where the number of a stream is.
    pub(super) const STREAM_SHIFT: u32 = 4;
}
const PALETTE_FILTER: u8 = 1;

/// Streams, so that each has data of one kind.
#[derive(Debug, Clone, Copy)]
enum Stream {
    Pixels = 0,
    Bits = 1,
    Indices = 2,
}

/// Encoder of Tight.
#[derive(Debug, Default)]
pub(super) struct Tight {
    deflaters: [Deflater; 3],
    batch: Vec<u8>,
}

impl Tight {
    /// Appends a rectangle with its headers, and returns how many it became.
    pub(super) fn encode(
        &mut self,
        translator: &Translator,
        tile: &mut Tile,
        (rect, frame): (Rect, &FrameView<'_>),
        level: Option<u32>,
        out: &mut Vec<u8>,
    ) -> u16 {
        let format = translator.format();
        let is_tpixel = format.has_tpixel();
        let pixel_len = if is_tpixel {
            3
        } else {
            format.bytes_per_pixel()
        };
        let is_fill = is_solid(frame, rect);
        let width = rect.width.clamp(1, WIDTH_MAX);
        let height = if is_fill {
            u16::MAX
        } else {
            u16::try_from(PIXELS_MAX / usize::from(width)).unwrap_or(u16::MAX)
        };
        let mut rects: u16 = 0;
        for block in rect.blocks(width, height) {
            write_rect_header(block, Encoding::TIGHT, out);
            let seen = if is_fill {
                // A pixel tells the colour.
                Rect {
                    width: 1,
                    height: 1,
                    ..block
                }
            } else {
                block
            };
            tile.load(frame, seen, |pixels| {
                if is_tpixel {
                    // Bytes red, green, blue.
                    pixels
                        .iter_mut()
                        .for_each(|pixel| *pixel = pixel.swap_bytes() >> 8);
                } else {
                    translator.in_place(pixels);
                }
            });
            self.block(tile, pixel_len, level, out);
            rects = rects.saturating_add(1);
        }
        rects
    }

    fn block(&mut self, tile: &mut Tile, pixel_len: usize, level: Option<u32>, out: &mut Vec<u8>) {
        if let Some(colour) = tile.solid() {
            out.push(control::FILL);
            append_pixels(&[colour], pixel_len, out);
            return;
        }
        let area = tile.pixels().len();
        if tile.find_palette(PALETTE_MAX) {
            let colours = tile.colours().len();
            let palette_len = colours * pixel_len;
            let is_short = if colours == 2 {
                palette_len + tile.packed_len(1) < area * pixel_len
            } else {
                // The palette is not compressed. Where each colour comes once, as in a ramp, it costs more than it saves.
                let new = tile.count_new();
                palette_len + new < new * pixel_len
            };
            if is_short {
                return self.palette(tile, pixel_len, level, out);
            }
        }
        out.push((Stream::Pixels as u8) << control::STREAM_SHIFT);
        self.pixels(tile.pixels(), pixel_len, level, out);
    }

    fn palette(
        &mut self,
        tile: &mut Tile,
        pixel_len: usize,
        level: Option<u32>,
        out: &mut Vec<u8>,
    ) {
        let colours = tile.colours();
        let is_mono = colours.len() == 2;
        let stream = if is_mono {
            Stream::Bits
        } else {
            Stream::Indices
        };
        out.push((stream as u8) << control::STREAM_SHIFT | control::FILTER);
        out.push(PALETTE_FILTER);
        out.push(u8::try_from(colours.len() - 1).unwrap_or(u8::MAX));
        append_pixels(colours, pixel_len, out);
        if is_mono {
            self.batch.clear();
            tile.append_packed(1, &mut self.batch);
            let deflater = &mut self.deflaters[stream as usize];
            append_data(deflater, &self.batch, level.unwrap_or(DEFAULT_LEVEL), out);
        } else {
            let deflater = &mut self.deflaters[stream as usize];
            append_data(
                deflater,
                tile.indices(),
                level.unwrap_or(DEFAULT_LEVEL),
                out,
            );
        }
    }

    fn pixels(&mut self, pixels: &[u32], pixel_len: usize, level: Option<u32>, out: &mut Vec<u8>) {
        if pixels.len() * pixel_len < COMPRESS_MIN {
            append_pixels(pixels, pixel_len, out);
            return;
        }
        let Self { deflaters, batch } = self;
        let deflater = &mut deflaters[Stream::Pixels as usize];
        let level = level.unwrap_or(DEFAULT_LEVEL_OF_PIXELS);
        with_len(out, |out| {
            for pixels in pixels.chunks(BATCH) {
                batch.clear();
                append_pixels(pixels, pixel_len, batch);
                deflater.append(batch, level, false, out);
            }
            deflater.append(&[], level, true, out);
        });
    }
}

fn append_data(deflater: &mut Deflater, data: &[u8], level: u32, out: &mut Vec<u8>) {
    if data.len() < COMPRESS_MIN {
        out.extend_from_slice(data);
    } else {
        with_len(out, |out| deflater.append(data, level, true, out));
    }
}

/// Appends what `append` appends behind its length: 7 bits a byte, the least significant first, in as few bytes as it
/// takes.
fn with_len(out: &mut Vec<u8>, append: impl FnOnce(&mut Vec<u8>)) {
    const LEN_MAX: usize = 3;
    let at = out.len();
    out.extend_from_slice(&[0; LEN_MAX]);
    append(out);
    let data_at = at + LEN_MAX;
    // At most 64 Ki pixels: far less than 22 bits tell.
    let mut left = out.len() - data_at;
    let mut len_bytes = 0;
    for byte in out.iter_mut().skip(at).take(LEN_MAX) {
        let more = if left > 0x7f { 0x80 } else { 0 };
        *byte = u8::try_from(left & 0x7f).unwrap_or(0) | more;
        left >>= 7;
        len_bytes += 1;
        if left == 0 {
            break;
        }
    }
    if len_bytes < LEN_MAX {
        out.copy_within(data_at.., at + len_bytes);
        out.truncate(out.len() - (LEN_MAX - len_bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_takes_as_few_bytes_as_the_wiki_says() {
        for (len, bytes) in [
            (0, &[0][..]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (10_000, &[0x90, 0x4e]),
            (0x3fff, &[0xff, 0x7f]),
            (0x4000, &[0x80, 0x80, 1]),
            (0x3f_ffff, &[0xff, 0xff, 0xff]),
        ] {
            let mut out = vec![9];
            let data = vec![7; len];
            with_len(&mut out, |out| out.extend_from_slice(&data));
            let data_at = 1 + bytes.len();
            assert_eq!(out[1..data_at], *bytes, "{len}");
            assert_eq!(out[data_at..], data);
        }
    }
}
