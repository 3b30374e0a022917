// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a bit of a map stands for.

/// Pixels of a piece: so many columns of one row.
///
/// A terminal that scrolls changes pieces of 4x1 that take 2.6 MiB in Raw, of 8x1 2.8, of 16x1 3.0 and of 16x16 4.9
/// MiB, each with gaps closed as [`Merging::FINE`](super::Merging::FINE) does: glyphs change some rows and not others.
pub(crate) const PIECE: u32 = 4;
/// Pieces of a word.
pub(super) const WORD: u32 = u64::BITS;
