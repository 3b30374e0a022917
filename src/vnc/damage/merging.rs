// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes rectangles of pieces.

use std::ops::Range;

use super::piece::{PIECE, WORD};
use crate::geometry::{Rect, Size};

/// Most rectangles that pieces become. (Text that scrolls over 1920x1080 becomes 2000.)
pub(super) const MAX_RECTS: usize = 4096;

/// How pieces become rectangles.
///
/// Each rectangle costs a viewer 12 bytes and more, and each pixel too many its own. So unchanged pixels between
/// pieces of a row may be taken in, and a rectangle goes on below while few of its pieces there are unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Merging {
    /// Rows that are looked at together.
    band: u32,
    /// Most unchanged pieces between two of a row that are taken in.
    gap: u32,
    /// One piece of so many may be unchanged. Those in gaps do not count, nor rows that a run of a band takes in because
    /// it goes from its first row to its last one.
    waste: u64,
}

impl Merging {
    /// Where unchanged pixels cost as much as others.
    pub(crate) const FINE: Self = Self {
        band: 1,
        gap: 4,
        waste: 8,
    };
    /// Where unchanged pixels cost little and rectangles much: a flush of the compressor, a hundred bytes of its state.
    pub(crate) const COARSE: Self = Self {
        band: 64,
        gap: 16,
        waste: 4,
    };

    /// One that makes far fewer rectangles, in the end a single one.
    pub(super) fn coarser(self) -> Self {
        Self {
            band: self.band.saturating_mul(8),
            gap: self.gap.saturating_mul(8),
            waste: Self::COARSE.waste,
        }
    }

    /// The end of the band with row `y`.
    pub(super) fn band_end(self, y: u32) -> u32 {
        (y / self.band).saturating_add(1).saturating_mul(self.band)
    }

    /// Adds the runs of pieces in `words` to `runs`, with the gaps between them that are to be taken in.
    pub(super) fn find_runs(
        self,
        words: impl Iterator<Item = (usize, u64)>,
        runs: &mut Vec<Range<u32>>,
    ) {
        for (n, mut word) in words {
            let base = n as u32 * WORD;
            while word != 0 {
                let start = word.trailing_zeros();
                let end = start + (!(word >> start)).trailing_zeros();
                word &= u64::MAX.checked_shl(end).unwrap_or(0);
                let run = base + start..base + end;
                match runs.last_mut() {
                    Some(last) if run.start.saturating_sub(last.end) <= self.gap => {
                        last.end = run.end;
                    }
                    _ => runs.push(run),
                }
            }
        }
    }
}

/// Pieces next to each other in a band.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// From piece to piece.
    pub(super) columns: Range<u32>,
    /// From the first to the last row with some of them.
    pub(super) rows: Range<u32>,
}

impl Run {
    fn area(&self) -> u64 {
        u64::from(self.columns.end - self.columns.start)
            * u64::from(self.rows.end - self.rows.start)
    }
}

/// Makes rectangles of runs that come band by band, from above to below.
pub(super) struct Merger {
    merging: Merging,
    size: Size,
    /// Rectangles that may go on in the next band; from left to right, none above another one.
    open: Vec<Open>,
    rects: Vec<Rect>,
}

struct Open {
    pieces: Run,
    /// How many of them are unchanged.
    waste: u64,
}

impl Merger {
    /// Of a picture of `size`.
    pub(super) fn new(merging: Merging, size: Size) -> Self {
        Self {
            merging,
            size,
            open: Vec::new(),
            rects: Vec::new(),
        }
    }

    /// Adds the runs of the next band, from left to right. Returns false if there are too many rectangles.
    pub(super) fn add(&mut self, runs: &[Run]) -> bool {
        let mut new = runs;
        for mut open in std::mem::take(&mut self.open) {
            let columns = &open.pieces.columns;
            self.begin(&mut new, |run| run.columns.end <= columns.start);
            let touching = new.iter().take_while(|run| run.columns.start < columns.end);
            let (below, rest) = new.split_at(touching.count());
            if open.goes_on(below, self.merging) {
                self.open.push(open);
                new = rest;
            } else {
                self.close(&open);
            }
        }
        self.begin(&mut new, |_| true);
        self.open.len() + self.rects.len() <= MAX_RECTS
    }

    /// Begins rectangles with the first of `runs`, as long as `is_first` says so.
    fn begin(&mut self, runs: &mut &[Run], is_first: impl Fn(&Run) -> bool) {
        while let Some((run, rest)) = runs.split_first().filter(|(run, _)| is_first(run)) {
            self.open.push(Open {
                pieces: run.clone(),
                waste: 0,
            });
            *runs = rest;
        }
    }

    fn close(&mut self, open: &Open) {
        let Run { columns, rows } = &open.pieces;
        let right = (columns.end * PIECE).min(self.size.width);
        let rect = Rect::from_edges(columns.start * PIECE, rows.start, right, rows.end);
        self.rects.push(rect);
    }

    /// All rectangles.
    pub(super) fn finish(mut self) -> Vec<Rect> {
        for open in std::mem::take(&mut self.open) {
            self.close(&open);
        }
        self.rects
    }
}

impl Open {
    /// Takes in the runs below it, from left to right, unless one reaches beyond it or they are too few.
    fn goes_on(&mut self, below: &[Run], merging: Merging) -> bool {
        let Run { columns, rows } = &self.pieces;
        let (Some(first), Some(last)) = (below.first(), below.last()) else {
            return false;
        };
        if first.columns.start < columns.start || last.columns.end > columns.end {
            return false;
        }
        let end = below.iter().map(|run| run.rows.end).max();
        let whole = Run {
            columns: columns.clone(),
            rows: rows.start..end.unwrap_or(rows.end),
        };
        let added = whole.area() - self.pieces.area();
        let changed: u64 = below.iter().map(Run::area).sum();
        let waste = self.waste + added.saturating_sub(changed);
        if waste > whole.area() / merging.waste {
            return false;
        }
        *self = Self {
            pieces: whole,
            waste,
        };
        true
    }
}
