// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A bit for each piece of a picture.

use std::ops::Range;

use super::merging::{Merger, Merging, Run};
use super::piece::{PIECE, WORD};
use crate::geometry::{Rect, Size};

/// Pieces of a picture. One of 1920x1080 takes 68 KiB, the largest one 1 MiB.
#[derive(Debug)]
pub(crate) struct DamageMap {
    size: Size,
    /// Words of a row.
    stride: usize,
    words: Vec<u64>,
    /// The rows from the first to the last one with a piece.
    rows: Range<u32>,
}

impl DamageMap {
    /// None of the pieces of a picture of `size`, which is within its limits.
    pub(crate) fn new(size: Size) -> Self {
        let stride = size.width.div_ceil(PIECE * WORD) as usize;
        Self {
            size,
            stride,
            words: vec![0; stride * size.height as usize],
            rows: 0..0,
        }
    }

    /// All pieces of a picture of `size`.
    pub(crate) fn full(size: Size) -> Self {
        let mut map = Self::new(size);
        map.add(&size.into());
        map
    }

    /// The picture's size.
    pub(crate) fn size(&self) -> Size {
        self.size
    }

    /// Whether there is no piece.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Removes all pieces.
    pub(crate) fn clear(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        self.rows_of_mut(rows).for_each(|row| row.fill(0));
    }

    /// Adds the pieces that have pixels of `rect`, as far as it lies within the picture.
    pub(crate) fn add(&mut self, rect: &Rect) {
        let Some(rect) = rect.intersection(&self.size.into()) else {
            return;
        };
        let columns = columns_of(&rect);
        let rows = rect.y..rect.bottom();
        for row in self.rows_of_mut(rows.clone()) {
            for (n, word) in words_in(&columns) {
                if let Some(at) = row.get_mut(n) {
                    *at |= word;
                }
            }
        }
        self.extend_rows(rows);
    }

    /// Adds `pieces` of row `y`: those of the `word`th 64 ones. They lie within the picture.
    pub(crate) fn add_word(&mut self, y: u32, word: usize, pieces: u64) {
        let row = self.rows_of_mut(y..y.saturating_add(1)).next();
        if let Some(at) = row.and_then(|row| row.get_mut(word)) {
            *at |= pieces;
            if pieces != 0 {
                self.extend_rows(y..y + 1);
            }
        }
    }

    /// Adds the pieces of `other` that lie within this picture.
    pub(crate) fn add_all(&mut self, other: &Self) {
        let rows = other.rows.start..other.rows.end.min(self.size.height);
        let columns = 0..self.size.width.min(other.size.width).div_ceil(PIECE);
        let mut found = 0..0;
        let others = other.rows_of(rows.clone());
        for ((y, row), other) in rows.clone().zip(self.rows_of_mut(rows)).zip(others) {
            let mut any = 0;
            for (n, mask) in words_in(&columns) {
                if let (Some(word), Some(other)) = (row.get_mut(n), other.get(n)) {
                    *word |= other & mask;
                    any |= other & mask;
                }
            }
            if any != 0 {
                let first = if found.is_empty() { y } else { found.start };
                found = first..y + 1;
            }
        }
        self.extend_rows(found);
    }

    /// Removes the pieces that have pixels of `within`, and returns them as rectangles. These do not overlap, are at most
    /// [`MAX_RECTS`](super::merging::MAX_RECTS), and have pixels more than the pieces only as `merging` allows.
    pub(crate) fn take_rects(&mut self, within: &Rect, merging: Merging) -> Vec<Rect> {
        let Some(within) = within.intersection(&self.size.into()) else {
            return Vec::new();
        };
        let columns = columns_of(&within);
        let rows = within.y.max(self.rows.start)..within.bottom().min(self.rows.end);
        if rows.is_empty() {
            return Vec::new();
        }
        let mut merging = merging;
        let rects = loop {
            match self.merge(rows.clone(), &columns, merging) {
                Some(rects) => break rects,
                None => merging = merging.coarser(),
            }
        };
        self.remove(rows, &columns);
        rects
    }

    /// The pieces as rectangles; none if these are too many.
    fn merge(&self, rows: Range<u32>, columns: &Range<u32>, merging: Merging) -> Option<Vec<Rect>> {
        let mut merger = Merger::new(merging, self.size);
        let mut band = vec![0; self.stride];
        let mut columns_of_runs = Vec::new();
        let mut runs = Vec::new();
        let mut y = rows.start;
        while y < rows.end {
            let end = merging.band_end(y).min(rows.end);
            band.fill(0);
            for row in self.rows_of(y..end) {
                for (all, word) in band.iter_mut().zip(row) {
                    *all |= word;
                }
            }
            let words = words_in(columns).map(|(n, mask)| (n, mask & band.get(n).unwrap_or(&0)));
            merging.find_runs(words, &mut columns_of_runs);
            runs.extend(columns_of_runs.drain(..).map(|columns| Run {
                rows: self.rows_with(y..end, &columns),
                columns,
            }));
            if !merger.add(&runs) {
                return None;
            }
            runs.clear();
            y = end;
        }
        Some(merger.finish())
    }

    /// The rows of these from the first to the last one with a piece in `columns`.
    fn rows_with(&self, rows: Range<u32>, columns: &Range<u32>) -> Range<u32> {
        let has_piece = |row: &[u64]| {
            let mut words = words_in(columns);
            words.any(|(n, mask)| row.get(n).is_some_and(|word| word & mask != 0))
        };
        let (mut start, mut end) = (rows.start, rows.end);
        // One row has some, or it would not be asked.
        while end - start > 1 && !self.rows_of(start..start + 1).any(has_piece) {
            start += 1;
        }
        while end - start > 1 && !self.rows_of(end - 1..end).any(has_piece) {
            end -= 1;
        }
        start..end
    }

    fn remove(&mut self, rows: Range<u32>, columns: &Range<u32>) {
        for row in self.rows_of_mut(rows) {
            for (n, word) in words_in(columns) {
                if let Some(at) = row.get_mut(n) {
                    *at &= !word;
                }
            }
        }
        let is_empty = |y: u32| {
            let mut words = self.rows_of(y..y + 1).flatten();
            words.all(|word| *word == 0)
        };
        let Range { mut start, mut end } = self.rows.clone();
        while start < end && is_empty(start) {
            start += 1;
        }
        while start < end && is_empty(end - 1) {
            end -= 1;
        }
        self.rows = start..end;
    }

    fn extend_rows(&mut self, rows: Range<u32>) {
        if rows.is_empty() {
            return;
        }
        self.rows = if self.rows.is_empty() {
            rows
        } else {
            self.rows.start.min(rows.start)..self.rows.end.max(rows.end)
        };
    }

    fn words_range(&self, rows: Range<u32>) -> Range<usize> {
        rows.start as usize * self.stride..rows.end as usize * self.stride
    }

    /// The words of each of these rows.
    fn rows_of(&self, rows: Range<u32>) -> impl Iterator<Item = &[u64]> {
        let words = self.words.get(self.words_range(rows)).unwrap_or_default();
        words.chunks_exact(self.stride.max(1))
    }

    fn rows_of_mut(&mut self, rows: Range<u32>) -> impl Iterator<Item = &mut [u64]> {
        let range = self.words_range(rows);
        let words = self.words.get_mut(range).unwrap_or_default();
        words.chunks_exact_mut(self.stride.max(1))
    }
}

/// The pieces of a row that have pixels of `rect`.
fn columns_of(rect: &Rect) -> Range<u32> {
    rect.x / PIECE..rect.right().div_ceil(PIECE)
}

/// The words that have pieces of `columns`, each by its number, with those pieces.
fn words_in(columns: &Range<u32>) -> impl Iterator<Item = (usize, u64)> + use<> {
    let Range { start, end } = *columns;
    (start / WORD..end.div_ceil(WORD)).map(move |n| {
        let from = start.saturating_sub(n * WORD);
        let to = (end - n * WORD).min(WORD);
        let pieces = to.saturating_sub(from);
        let mask = u64::MAX.checked_shr(WORD - pieces).unwrap_or(0);
        (n as usize, mask << from)
    })
}

#[cfg(test)]
mod tests;
