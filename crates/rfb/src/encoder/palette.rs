// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The few colours of a tile.

/// Colours in the order in which they came, found again by a hash.
#[derive(Debug)]
pub(super) struct Palette {
    colours: [u32; Palette::COLOURS_MAX],
    len: usize,
    /// Slots with a colour's index plus 1; 0: empty. At most a quarter is used.
    slots: [u16; SLOTS],
}

const SLOT_BITS: u32 = 10;
const SLOTS: usize = 1 << SLOT_BITS;

impl Palette {
    /// The most colours.
    pub(super) const COLOURS_MAX: usize = 256;

    pub(super) fn new() -> Self {
        Self {
            colours: [0; Self::COLOURS_MAX],
            len: 0,
            slots: [0; SLOTS],
        }
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
        self.slots.fill(0);
    }

    pub(super) fn colours(&self) -> &[u32] {
        self.colours.get(..self.len).unwrap_or_default()
    }

    /// Sorts the colours, and gives each old index its new one. Equal sets of colours are then equal palettes, with
    /// equal indices, which deflate finds again. No colour can be added until all are cleared.
    pub(super) fn sort(&mut self) -> [u8; Self::COLOURS_MAX] {
        let mut order = [(0, 0); Self::COLOURS_MAX];
        let numbered = self.colours.iter().copied().zip(0..=u8::MAX);
        for (to, from) in order.iter_mut().zip(numbered) {
            *to = from;
        }
        let used = order.get_mut(..self.len).unwrap_or_default();
        used.sort_unstable();
        let mut new_indices = [0; Self::COLOURS_MAX];
        for (((colour, old), to), new) in used.iter().zip(&mut self.colours).zip(0..=u8::MAX) {
            *to = *colour;
            new_indices[usize::from(*old)] = new;
        }
        new_indices
    }

    /// The index of a colour, which is added if it is new; `None`: it would be one more than `limit`.
    #[inline]
    pub(super) fn index(&mut self, colour: u32, limit: usize) -> Option<u8> {
        // Fibonacci hashing: the upper bits depend on all others.
        let hash = colour.wrapping_mul(0x9e37_79b1) >> (u32::BITS - SLOT_BITS);
        let mut slot = hash as usize;
        loop {
            let used = self.slots.get_mut(slot % SLOTS)?;
            let Some(index) = used.checked_sub(1) else {
                let index = u8::try_from(self.len).ok().filter(|_| self.len < limit)?;
                *self.colours.get_mut(self.len)? = colour;
                self.len += 1;
                *used = u16::from(index) + 1;
                return Some(index);
            };
            if self.colours.get(usize::from(index)) == Some(&colour) {
                return u8::try_from(index).ok();
            }
            slot += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_keep_their_order_and_number() {
        let mut palette = Palette::new();
        for round in 0..2 {
            for value in 0..=255u8 {
                // Equal upper bits of the hash for many of them.
                let colour = u32::from(value) << 16;
                assert_eq!(palette.index(colour, 256), Some(value), "{round}");
            }
        }
        assert_eq!(palette.colours().len(), 256);
        assert_eq!(palette.index(1, 256), None);
        palette.clear();
        assert_eq!(palette.index(7, 1), Some(0));
        assert_eq!(palette.index(8, 1), None);
        assert_eq!(palette.index(7, 1), Some(0));
        assert_eq!(palette.colours(), [7]);
    }
}
