// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A tile's pixels, its colours and its runs.

use super::palette::Palette;
use crate::frame::pixels;
use crate::{FrameView, Rect};

/// Equal pixels one after the other, also from row to row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Index of the colour.
    pub(super) index: u8,
    /// How many pixels.
    pub(super) len: u32,
}

/// A tile. Its buffers are used again for the next one.
#[derive(Debug)]
pub(super) struct Tile {
    width: usize,
    pixels: Vec<u32>,
    palette: Palette,
    runs: Vec<Run>,
    indices: Vec<u8>,
}

impl Tile {
    pub(super) fn new() -> Self {
        Self {
            width: 0,
            pixels: Vec::new(),
            palette: Palette::new(),
            runs: Vec::new(),
            indices: Vec::new(),
        }
    }

    /// Takes the pixels 0xXXRRGGBB of a rectangle, and has them translated.
    pub(super) fn load(
        &mut self,
        frame: &FrameView<'_>,
        rect: Rect,
        translate: impl FnOnce(&mut [u32]),
    ) {
        self.width = rect.width.into();
        self.pixels.clear();
        for row in frame.rows(rect) {
            self.pixels.extend(pixels(row));
        }
        translate(&mut self.pixels);
    }

    /// All pixels, row by row.
    pub(super) fn pixels(&self) -> &[u32] {
        &self.pixels
    }

    /// The only colour, where there is but one.
    pub(super) fn solid(&self) -> Option<u32> {
        let (first, rest) = self.pixels.split_first()?;
        let but_last = self.pixels.get(..rest.len())?;
        (rest == but_last).then_some(*first)
    }

    /// How many runs it has.
    pub(super) fn count_runs(&self) -> usize {
        let next = self.pixels.iter().skip(1);
        let ends = self
            .pixels
            .iter()
            .zip(next)
            .filter(|(one, other)| one != other);
        ends.count() + usize::from(!self.pixels.is_empty())
    }

    /// How many pixels are like neither the one to the left nor the one above: few of the others cost anything once they
    /// are compressed.
    pub(super) fn count_new(&self) -> usize {
        let mut above: &[u32] = &[];
        let mut count = 0;
        for row in self.pixels.chunks(self.width.max(1)) {
            let mut left = None;
            for (x, pixel) in row.iter().enumerate() {
                count += usize::from(left != Some(pixel) && above.get(x) != Some(pixel));
                left = Some(pixel);
            }
            above = row;
        }
        count
    }

    /// Finds colours, in ascending order, and runs. False: there are more than `limit` colours.
    pub(super) fn find_palette(&mut self, limit: usize) -> bool {
        self.palette.clear();
        self.runs.clear();
        let mut rest = &self.pixels[..];
        while let Some((first, len)) = first_run(rest) {
            let Some(index) = self.palette.index(first, limit) else {
                return false;
            };
            rest = rest.get(len..).unwrap_or_default();
            let len = u32::try_from(len).unwrap_or(u32::MAX);
            self.runs.push(Run { index, len });
        }
        let new_indices = self.palette.sort();
        for run in &mut self.runs {
            run.index = new_indices[usize::from(run.index)];
        }
        true
    }

    /// Colours and lengths of runs, however many colours there are.
    pub(super) fn plain_runs(&self) -> impl Iterator<Item = (u32, u32)> {
        let mut rest = &self.pixels[..];
        std::iter::from_fn(move || {
            let (first, len) = first_run(rest)?;
            rest = rest.get(len..).unwrap_or_default();
            Some((first, u32::try_from(len).unwrap_or(u32::MAX)))
        })
    }

    /// The colours that [`Tile::find_palette`] found.
    pub(super) fn colours(&self) -> &[u32] {
        self.palette.colours()
    }

    /// The runs that [`Tile::find_palette`] found.
    pub(super) fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// How many bytes [`Tile::append_packed`] appends with `bits`.
    pub(super) fn packed_len(&self, bits: u8) -> usize {
        let rows = self.pixels.len() / self.width.max(1);
        rows * (self.width * usize::from(bits)).div_ceil(8)
    }

    /// Colours' indices, a byte each; of the runs that [`Tile::find_palette`] found.
    pub(super) fn indices(&mut self) -> &[u8] {
        self.indices.clear();
        for run in &self.runs {
            let len = usize::try_from(run.len).unwrap_or(0);
            self.indices.resize(self.indices.len() + len, run.index);
        }
        &self.indices
    }

    /// Appends rows of colours' indices of `bits` (1, 2 or 4) each, the first in the most significant bits.
    pub(super) fn append_packed(&mut self, bits: u8, out: &mut Vec<u8>) {
        let per_byte = usize::from(8 / bits.clamp(1, 8));
        let width = self.width.max(1);
        for row in self.indices().chunks_exact(width) {
            let mut bytes = row.chunks_exact(per_byte);
            out.extend(bytes.by_ref().map(|indices| pack(indices, bits)));
            let left = bytes.remainder();
            if !left.is_empty() {
                let unused = per_byte - left.len();
                let unused = u32::try_from(unused).unwrap_or(0) * u32::from(bits);
                out.push(pack(left, bits) << unused);
            }
        }
    }
}

/// The colour and length of the run at the beginning.
#[inline]
fn first_run(pixels: &[u32]) -> Option<(u32, usize)> {
    let (first, after) = pixels.split_first()?;
    let others = after.iter().position(|pixel| pixel != first);
    Some((*first, others.map_or(pixels.len(), |others| others + 1)))
}

/// Whether a rectangle has but one colour.
pub(super) fn is_solid(frame: &FrameView<'_>, rect: Rect) -> bool {
    let mut rows = frame.rows(rect);
    let first = rows.clone().flat_map(pixels).next().unwrap_or(0);
    rows.all(|row| {
        let differences = pixels(row).fold(0, |all, pixel| all | (pixel ^ first));
        differences & 0x00ff_ffff == 0
    })
}

#[inline]
fn pack(indices: &[u8], bits: u8) -> u8 {
    indices.iter().fold(0, |byte, index| byte << bits | index)
}

/// Appends the `len` lower bytes of each pixel, the least significant first.
pub(super) fn append_pixels(pixels: &[u32], len: usize, out: &mut Vec<u8>) {
    match len {
        1 => append_bytes::<1>(pixels, out),
        2 => append_bytes::<2>(pixels, out),
        3 => append_bytes::<3>(pixels, out),
        _ => append_bytes::<4>(pixels, out),
    }
}

fn append_bytes<const LEN: usize>(pixels: &[u32], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + pixels.len() * LEN, 0);
    let room = out.get_mut(start..).unwrap_or_default();
    for (to, pixel) in room.chunks_exact_mut(LEN).zip(pixels) {
        for (to, from) in to.iter_mut().zip(pixel.to_le_bytes()) {
            *to = from;
        }
    }
}
