// SPDX-License-Identifier: Apache-2.0 OR MIT
//! ZRLE (RFC 6143, 7.7.6; its tiles are TRLE's, 7.7.5).

use super::deflate::Deflater;
use super::tile::{Tile, append_pixels};
use super::{DEFAULT_LEVEL, DEFAULT_LEVEL_OF_PIXELS};
use crate::translate::Translator;
use crate::{FrameView, Rect};

/// Columns and rows of a tile.
const TILE: u16 = 64;
/// The most colours of a palette.
const PALETTE_MAX: usize = 127;
/// How many bytes of tiles are collected for a call of deflate.
const BATCH: usize = 32 << 10;

/// Encoder of ZRLE.
#[derive(Debug, Default)]
pub(super) struct Zrle {
    deflater: Deflater,
    batch: Vec<u8>,
}

impl Zrle {
    /// Appends a rectangle but for its header.
    pub(super) fn encode(
        &mut self,
        translator: &Translator,
        tile: &mut Tile,
        (rect, frame): (Rect, &FrameView<'_>),
        level: Option<u32>,
        out: &mut Vec<u8>,
    ) {
        let cpixel = translator.format().cpixel_bytes();
        let shift = u32::try_from(cpixel.start * 8).unwrap_or(0);
        let level = level.unwrap_or_else(|| default_level(tile, rect, frame));
        let len_at = out.len();
        out.extend_from_slice(&[0; 4]);
        self.batch.clear();
        for block in rect.blocks(TILE, TILE) {
            tile.load(frame, block, |pixels| {
                translator.in_place(pixels);
                if shift != 0 {
                    pixels.iter_mut().for_each(|pixel| *pixel >>= shift);
                }
            });
            append_tile(tile, cpixel.len(), &mut self.batch);
            if self.batch.len() >= BATCH {
                self.deflater.append(&self.batch, level, false, out);
                self.batch.clear();
            }
        }
        self.deflater.append(&self.batch, level, true, out);
        let data_at = len_at + 4;
        let len = u32::try_from(out.len() - data_at).unwrap_or(u32::MAX);
        if let Some(at) = out.get_mut(len_at..data_at) {
            at.copy_from_slice(&len.to_be_bytes());
        }
    }
}

/// The level for a rectangle: that of pixels if some of its tiles have too many colours for a palette. These tiles
/// are then most of the bytes.
fn default_level(tile: &mut Tile, rect: Rect, frame: &FrameView<'_>) -> u32 {
    /// One tile in so many is looked at.
    const STEP: usize = 8;
    if rect.area() < STEP * usize::from(TILE) * usize::from(TILE) {
        return DEFAULT_LEVEL;
    }
    let (mut seen, mut colourful) = (0, 0);
    for block in rect.blocks(TILE, TILE).step_by(STEP) {
        tile.load(frame, block, |pixels| {
            pixels.iter_mut().for_each(|pixel| *pixel &= 0x00ff_ffff);
        });
        seen += 1;
        colourful += usize::from(!tile.find_palette(PALETTE_MAX));
    }
    if colourful * 8 >= seen {
        DEFAULT_LEVEL_OF_PIXELS
    } else {
        DEFAULT_LEVEL
    }
}

/// Appends a tile in the subencoding that takes the fewest bytes.
fn append_tile(tile: &mut Tile, cpixel: usize, out: &mut Vec<u8>) {
    if let Some(colour) = tile.solid() {
        out.push(1);
        append_pixels(&[colour], cpixel, out);
        return;
    }
    let raw = tile.pixels().len() * cpixel;
    // A run has one byte of length, seldom more.
    let plain_runs = tile.count_runs() * (cpixel + 1);
    if !tile.find_palette(PALETTE_MAX) {
        if plain_runs < raw {
            append_plain_runs(tile, cpixel, out);
        } else {
            out.push(0);
            append_pixels(tile.pixels(), cpixel, out);
        }
        return;
    }
    let colours = tile.colours().len();
    let palette_len = colours * cpixel;
    let runs = tile.runs().iter().map(|run| match run.len {
        1 => 1,
        len => 1 + run_len_bytes(len),
    });
    let palette_runs = palette_len + runs.sum::<usize>();
    let packed = index_bits(colours).map(|bits| (bits, palette_len + tile.packed_len(bits)));
    // 2 to 127 colours.
    let count = u8::try_from(colours).unwrap_or(0);
    let best = raw.min(plain_runs).min(palette_runs);
    if let Some((bits, _)) = packed.filter(|(_, len)| *len <= best) {
        out.push(count);
        append_pixels(tile.colours(), cpixel, out);
        tile.append_packed(bits, out);
    } else if palette_runs <= best {
        out.push(128 + count);
        append_pixels(tile.colours(), cpixel, out);
        append_palette_runs(tile, out);
    } else if plain_runs <= best {
        append_plain_runs(tile, cpixel, out);
    } else {
        out.push(0);
        append_pixels(tile.pixels(), cpixel, out);
    }
}

/// Bits of an index in a palette without runs; `None`: there are too many colours.
fn index_bits(colours: usize) -> Option<u8> {
    match colours {
        0..=2 => Some(1),
        3..=4 => Some(2),
        5..=16 => Some(4),
        _ => None,
    }
}

fn append_palette_runs(tile: &Tile, out: &mut Vec<u8>) {
    for run in tile.runs() {
        if run.len == 1 {
            out.push(run.index);
        } else {
            out.push(run.index | 0x80);
            append_run_len(run.len, out);
        }
    }
}

fn append_plain_runs(tile: &Tile, cpixel: usize, out: &mut Vec<u8>) {
    out.push(128);
    for (colour, len) in tile.plain_runs() {
        append_pixels(&[colour], cpixel, out);
        append_run_len(len, out);
    }
}

/// Bytes of a run's length: one for each 255 begun.
fn run_len_bytes(len: u32) -> usize {
    usize::try_from(len.saturating_sub(1) / 255 + 1).unwrap_or(usize::MAX)
}

fn append_run_len(len: u32, out: &mut Vec<u8>) {
    let mut left = len.saturating_sub(1);
    while left >= 255 {
        out.push(255);
        left -= 255;
    }
    out.push(u8::try_from(left).unwrap_or(u8::MAX));
}
