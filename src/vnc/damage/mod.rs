// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Which pixels of a picture changed, piece by piece.

#[cfg(feature = "fuzzing")]
mod benchmarks;
mod map;
mod merging;
mod piece;

#[cfg(feature = "fuzzing")]
pub use benchmarks::{Part, parts};
pub(crate) use map::DamageMap;
pub(crate) use merging::Merging;
pub(crate) use piece::PIECE;
