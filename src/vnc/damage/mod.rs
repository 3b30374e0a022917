//! Which pixels of a picture changed, piece by piece.

mod map;
mod merging;
mod piece;

pub(crate) use map::DamageMap;
pub(crate) use merging::Merging;
pub(crate) use piece::PIECE;
