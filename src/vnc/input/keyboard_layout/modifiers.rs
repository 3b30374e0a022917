// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What decides which character a key types.

/// The modifiers that choose a key's level, and the locks that take part in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Modifiers {
    /// Shift is pressed.
    pub(crate) shift: bool,
    /// AltGr is pressed.
    pub(crate) alt_gr: bool,
    /// Caps Lock is on.
    pub(crate) caps_lock: bool,
    /// Num Lock is on.
    pub(crate) num_lock: bool,
}

impl Modifiers {
    /// All combinations, with AltGr or without.
    pub(crate) fn all(with_alt_gr: bool) -> impl Iterator<Item = Self> {
        let count: u8 = if with_alt_gr { 16 } else { 8 };
        (0..count).map(|bits| Self {
            shift: bits & 1 != 0,
            caps_lock: bits & 2 != 0,
            num_lock: bits & 4 != 0,
            alt_gr: bits & 8 != 0,
        })
    }
}
