// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tight (community wiki: Tight encoding), without JPEG.

use std::io::Read;

use super::inflate::Inflater;
use crate::frame::PIXEL_LEN;
use crate::translate::{from_wire, to_wire, wire_pixel};
use crate::{Frame, PixelFormat, Rect, ServerMessageError, read};

const NAME: &str = "Tight";
/// Data shorter than this is not compressed.
const COMPRESS_MIN: usize = 12;

/// Decoder of Tight.
#[derive(Debug, Default)]
pub(super) struct Tight {
    inflaters: [Option<Inflater>; 4],
    row: Vec<u8>,
    /// The row above, as the gradient filter needs it.
    above: Vec<[u32; 3]>,
}

/// What a row's bytes are.
enum Filter {
    Copy,
    Palette(Vec<u32>),
    Gradient,
}

impl Tight {
    /// Reads a rectangle but for its header, and draws it.
    pub(super) fn rect(
        &mut self,
        reader: &mut impl Read,
        rect: Rect,
        format: PixelFormat,
        frame: &mut Frame,
    ) -> Result<(), ServerMessageError> {
        let control = read::u8(reader)?;
        for (bit, inflater) in self.inflaters.iter_mut().enumerate() {
            if control >> bit & 1 != 0 {
                *inflater = None;
            }
        }
        match control >> 4 {
            8 => fill(reader, rect, format, frame),
            9 => Err(unsupported("JPEG")),
            10 => Err(unsupported("PNG")),
            basic @ 0..=7 => {
                let filter = if basic & 4 == 0 {
                    Filter::Copy
                } else {
                    read_filter(reader, format)?
                };
                self.basic(reader, rect, (format, &filter), basic & 3, frame)
            }
            _ => Err(broken("a rectangle has an unknown compression")),
        }
    }

    fn basic(
        &mut self,
        reader: &mut impl Read,
        rect: Rect,
        (format, filter): (PixelFormat, &Filter),
        stream: u8,
        frame: &mut Frame,
    ) -> Result<(), ServerMessageError> {
        if rect.is_empty() {
            return Ok(());
        }
        let width = usize::from(rect.width);
        let row_len = match filter {
            Filter::Palette(colours) if colours.len() <= 2 => width.div_ceil(8),
            Filter::Palette(_) => width,
            Filter::Copy | Filter::Gradient => width * tpixel_len(format),
        };
        self.row.resize(row_len, 0);
        self.above.clear();
        self.above.resize(width, [0; 3]);
        let Self {
            inflaters,
            row,
            above,
        } = self;
        let total = row_len * usize::from(rect.height);
        if total < COMPRESS_MIN {
            for pixels in frame.rows_mut(rect) {
                reader.read_exact(row)?;
                draw_row(row, (format, filter), above, pixels)?;
            }
            return Ok(());
        }
        let len = compact_len(reader)?;
        let mut source = reader.take(len);
        let inflater = inflaters.get_mut(usize::from(stream));
        let inflater = inflater.ok_or_else(|| broken("a rectangle has an unknown stream"))?;
        let inflater = inflater.get_or_insert_with(|| Inflater::new(NAME));
        for pixels in frame.rows_mut(rect) {
            inflater.fill(&mut source, row)?;
            draw_row(row, (format, filter), above, pixels)?;
        }
        inflater.finish(&mut source)
    }
}

fn unsupported(reason: &'static str) -> ServerMessageError {
    ServerMessageError::Unsupported {
        encoding: NAME,
        reason,
    }
}

fn broken(reason: &'static str) -> ServerMessageError {
    ServerMessageError::Broken {
        encoding: NAME,
        reason,
    }
}

fn tpixel_len(format: PixelFormat) -> usize {
    if format.has_tpixel() {
        3
    } else {
        format.bytes_per_pixel()
    }
}

/// A `TPIXEL` as a pixel of a frame.
fn pixel_of(bytes: &[u8], format: PixelFormat) -> u32 {
    if format.has_tpixel() {
        wire_pixel(bytes).swap_bytes() >> 8
    } else {
        from_wire(format, wire_pixel(bytes))
    }
}

fn fill(
    reader: &mut impl Read,
    rect: Rect,
    format: PixelFormat,
    frame: &mut Frame,
) -> Result<(), ServerMessageError> {
    let mut bytes = Vec::new();
    read_pixels(reader, tpixel_len(format), &mut bytes)?;
    let pixel = pixel_of(&bytes, format).to_le_bytes();
    for row in frame.rows_mut(rect) {
        for to in row.chunks_exact_mut(PIXEL_LEN) {
            to.copy_from_slice(&pixel);
        }
    }
    Ok(())
}

fn read_pixels(reader: &mut impl Read, len: usize, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    bytes.resize(len, 0);
    reader.read_exact(bytes)
}

fn read_filter(reader: &mut impl Read, format: PixelFormat) -> Result<Filter, ServerMessageError> {
    match read::u8(reader)? {
        0 => Ok(Filter::Copy),
        1 => {
            let count = usize::from(read::u8(reader)?) + 1;
            let len = tpixel_len(format);
            let mut bytes = Vec::new();
            read_pixels(reader, count * len, &mut bytes)?;
            let colours = bytes.chunks_exact(len);
            let colours = colours.map(|bytes| pixel_of(bytes, format));
            Ok(Filter::Palette(colours.collect()))
        }
        2 if format.bits_per_pixel() == 8 => Err(broken("a gradient has pixels of 8 bits")),
        2 => Ok(Filter::Gradient),
        _ => Err(broken("a rectangle has an unknown filter")),
    }
}

/// A length of one to three bytes.
fn compact_len(reader: &mut impl Read) -> Result<u64, ServerMessageError> {
    let mut len = 0;
    for shift in [0, 7, 14] {
        let byte = u64::from(read::u8(reader)?);
        // The third byte has 8 bits of the length.
        let bits = if shift == 14 { byte } else { byte & 0x7f };
        len |= bits << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Ok(len)
}

fn draw_row(
    row: &[u8],
    (format, filter): (PixelFormat, &Filter),
    above: &mut [[u32; 3]],
    to: &mut [u8],
) -> Result<(), ServerMessageError> {
    let pixels = to.chunks_exact_mut(PIXEL_LEN);
    match filter {
        Filter::Copy => {
            for (to, bytes) in pixels.zip(row.chunks_exact(tpixel_len(format))) {
                to.copy_from_slice(&pixel_of(bytes, format).to_le_bytes());
            }
        }
        Filter::Palette(colours) => {
            let draw = |(to, index): (&mut [u8], u8)| {
                let colour = colours.get(usize::from(index));
                let colour =
                    colour.ok_or_else(|| broken("a pixel has a colour beyond its palette"))?;
                to.copy_from_slice(&colour.to_le_bytes());
                Ok::<(), ServerMessageError>(())
            };
            if colours.len() <= 2 {
                let bits = row
                    .iter()
                    .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
                pixels.zip(bits).try_for_each(draw)?;
            } else {
                pixels.zip(row.iter().copied()).try_for_each(draw)?;
            }
        }
        Filter::Gradient => gradient(row, format, above, to),
    }
    Ok(())
}

/// Each colour is the difference to what its neighbours let expect: left + above - above left.
fn gradient(row: &[u8], format: PixelFormat, above: &mut [[u32; 3]], to: &mut [u8]) {
    let channels = format.channels();
    let (mut left, mut above_left) = ([0; 3], [0; 3]);
    let bytes = row.chunks_exact(tpixel_len(format));
    let pixels = to.chunks_exact_mut(PIXEL_LEN);
    for ((to, bytes), above) in pixels.zip(bytes).zip(above) {
        let number = if format.has_tpixel() {
            let [red, green, blue, _] = wire_pixel(bytes).to_le_bytes();
            [red, green, blue].map(u32::from)
        } else {
            let number = to_wire(format, wire_pixel(bytes));
            channels.map(|channel| (number >> channel.shift) & u32::from(channel.max))
        };
        let mut colours = [0; 3];
        let neighbours = left.iter().zip(&*above).zip(&above_left);
        let differences = number.iter().zip(channels).zip(neighbours);
        for (to, ((difference, channel), ((left, above), above_left))) in
            colours.iter_mut().zip(differences)
        {
            let max = u32::from(channel.max);
            let expected = (left + above).saturating_sub(*above_left).min(max);
            *to = (expected + difference) & max;
        }
        above_left = std::mem::replace(above, colours);
        left = colours;
        let number = colours.iter().zip(channels);
        let number = number.fold(0, |number, (colour, channel)| {
            number | colour << channel.shift
        });
        to.copy_from_slice(&from_wire(format, to_wire(format, number)).to_le_bytes());
    }
}
