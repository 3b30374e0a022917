// SPDX-License-Identifier: Apache-2.0 OR MIT
//! ZRLE (RFC 6143, 7.7.6; its tiles are TRLE's, 7.7.5).

use std::io::{Read, Take};

use super::inflate::Inflater;
use crate::frame::PIXEL_LEN;
use crate::translate::{from_wire, wire_pixel};
use crate::{Frame, PixelFormat, Rect, ServerMessageError, read};

/// Columns and rows of a tile.
const TILE: u16 = 64;
const TILE_PIXELS: usize = TILE as usize * TILE as usize;

/// Decoder of ZRLE.
#[derive(Debug)]
pub(super) struct Zrle {
    inflater: Inflater,
    tile: Vec<u32>,
}

impl Zrle {
    pub(super) fn new() -> Self {
        Self {
            inflater: Inflater::new("ZRLE"),
            tile: Vec::with_capacity(TILE_PIXELS),
        }
    }

    /// Reads a rectangle but for its header, and draws it.
    pub(super) fn rect(
        &mut self,
        reader: &mut impl Read,
        rect: Rect,
        format: PixelFormat,
        frame: &mut Frame,
    ) -> Result<(), ServerMessageError> {
        let len = read::u32(reader)?;
        let mut source = reader.take(len.into());
        for block in rect.blocks(TILE, TILE) {
            self.tile.clear();
            self.read_tile(&mut source, block, format)?;
            let pixels = self.tile.chunks_exact(block.width.into());
            for (row, pixels) in frame.rows_mut(block).zip(pixels) {
                for (to, pixel) in row.chunks_exact_mut(PIXEL_LEN).zip(pixels) {
                    to.copy_from_slice(&pixel.to_le_bytes());
                }
            }
        }
        self.inflater.finish(&mut source)
    }

    fn read_tile(
        &mut self,
        source: &mut Take<impl Read>,
        block: Rect,
        format: PixelFormat,
    ) -> Result<(), ServerMessageError> {
        let Self { inflater, tile } = self;
        let area = block.area();
        let cpixel = format.cpixel_bytes();
        let subencoding = inflater.byte(source)?;
        match subencoding {
            0 => {
                // A tile has at most 16 KiB.
                let bytes = inflater.take(source, area * cpixel.len())?;
                let cpixels = bytes.chunks_exact(cpixel.len());
                tile.extend(cpixels.map(|bytes| pixel_of(bytes, format)));
                Ok(())
            }
            1 => {
                let bytes = inflater.take(source, cpixel.len())?;
                tile.resize(area, pixel_of(bytes, format));
                Ok(())
            }
            2..=16 => {
                let palette = Colours::read(inflater, source, subencoding, format)?;
                packed(inflater, source, block, &palette, tile)
            }
            128 => {
                while tile.len() < area {
                    let bytes = inflater.take(source, cpixel.len())?;
                    let colour = pixel_of(bytes, format);
                    let len = run_len(inflater, source)?;
                    append_run(inflater, tile, (colour, len), area)?;
                }
                Ok(())
            }
            130..=255 => {
                let palette = Colours::read(inflater, source, subencoding - 128, format)?;
                while tile.len() < area {
                    let byte = inflater.byte(source)?;
                    let len = if byte & 0x80 == 0 {
                        1
                    } else {
                        run_len(inflater, source)?
                    };
                    let colour = palette.get(inflater, byte & 0x7f)?;
                    append_run(inflater, tile, (colour, len), area)?;
                }
                Ok(())
            }
            17..=127 | 129 => Err(inflater.broken("a tile has an unknown subencoding")),
        }
    }
}

fn pixel_of(cpixel: &[u8], format: PixelFormat) -> u32 {
    let shift = format.cpixel_bytes().start * 8;
    from_wire(format, wire_pixel(cpixel) << shift)
}

/// A tile's palette.
struct Colours {
    colours: [u32; 128],
    len: usize,
}

impl Colours {
    fn read(
        inflater: &mut Inflater,
        source: &mut Take<impl Read>,
        count: u8,
        format: PixelFormat,
    ) -> Result<Self, ServerMessageError> {
        let cpixel = format.cpixel_bytes();
        let mut colours = [0; 128];
        let bytes = inflater.take(source, usize::from(count) * cpixel.len())?;
        for (to, bytes) in colours.iter_mut().zip(bytes.chunks_exact(cpixel.len())) {
            *to = pixel_of(bytes, format);
        }
        let len = count.into();
        Ok(Self { colours, len })
    }

    fn get(&self, inflater: &Inflater, index: u8) -> Result<u32, ServerMessageError> {
        let colours = self.colours.get(..self.len).unwrap_or_default();
        let colour = colours.get(usize::from(index)).copied();
        colour.ok_or_else(|| inflater.broken("a pixel has a colour beyond its palette"))
    }
}

fn packed(
    inflater: &mut Inflater,
    source: &mut Take<impl Read>,
    block: Rect,
    palette: &Colours,
    tile: &mut Vec<u32>,
) -> Result<(), ServerMessageError> {
    let bits: u8 = match palette.len {
        0..=2 => 1,
        3..=4 => 2,
        _ => 4,
    };
    let width = usize::from(block.width);
    let row_len = (width * usize::from(bits)).div_ceil(8);
    for _ in 0..block.height {
        let mut row = [0; TILE as usize / 2];
        for (to, from) in row.iter_mut().zip(inflater.take(source, row_len)?) {
            *to = *from;
        }
        let indices = row.iter().flat_map(|byte| {
            let shifts = (0..8)
                .step_by(bits.into())
                .map(move |shift| 8 - bits - shift);
            shifts.map(move |shift| (byte >> shift) & ((1 << bits) - 1))
        });
        for index in indices.take(width) {
            tile.push(palette.get(inflater, index)?);
        }
    }
    Ok(())
}

/// A run's length: the sum of bytes, of which all but the last are 255, and 1.
fn run_len(
    inflater: &mut Inflater,
    source: &mut Take<impl Read>,
) -> Result<usize, ServerMessageError> {
    let mut len = 1;
    loop {
        let byte = inflater.byte(source)?;
        len += usize::from(byte);
        if byte != u8::MAX {
            return Ok(len);
        }
        if len > TILE_PIXELS {
            return Err(inflater.broken(TOO_LONG));
        }
    }
}

const TOO_LONG: &str = "a run is longer than its tile";

fn append_run(
    inflater: &Inflater,
    tile: &mut Vec<u32>,
    (colour, len): (u32, usize),
    area: usize,
) -> Result<(), ServerMessageError> {
    if len > area - tile.len().min(area) {
        return Err(inflater.broken(TOO_LONG));
    }
    tile.resize(tile.len() + len, colour);
    Ok(())
}
