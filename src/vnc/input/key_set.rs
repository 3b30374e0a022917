// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sets of keys and buttons.

/// Number of codes that evdev has for keys and buttons (`KEY_CNT`).
const KEY_COUNT: u16 = 0x300;
const WORD_BITS: u16 = 64;
const WORDS: usize = (KEY_COUNT / WORD_BITS) as usize;

/// A set of keys and buttons by their evdev codes (`KEY_*`, `BTN_*`). It never contains codes from 768 on, which
/// evdev does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeySet([u64; WORDS]);

impl KeySet {
    /// Whether `code` is in the set.
    pub(crate) fn contains(&self, code: u16) -> bool {
        let word = self.0.get(usize::from(code / WORD_BITS)).copied();
        word.unwrap_or(0) >> (code % WORD_BITS) & 1 == 1
    }

    /// Adds `code`.
    pub(crate) fn insert(&mut self, code: u16) {
        if let Some(word) = self.0.get_mut(usize::from(code / WORD_BITS)) {
            *word |= 1 << (code % WORD_BITS);
        }
    }

    /// Removes `code`.
    pub(crate) fn remove(&mut self, code: u16) {
        if let Some(word) = self.0.get_mut(usize::from(code / WORD_BITS)) {
            *word &= !(1 << (code % WORD_BITS));
        }
    }

    /// Adds all of `other`.
    pub(crate) fn insert_all(&mut self, other: &Self) {
        for (word, added) in self.0.iter_mut().zip(other.0) {
            *word |= added;
        }
    }

    /// The codes in this set that are not in `other`.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut left = *self;
        for (word, taken) in left.0.iter_mut().zip(other.0) {
            *word &= !taken;
        }
        left
    }

    /// The codes in the set, in ascending order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..KEY_COUNT).filter(|code| self.contains(*code))
    }
}

impl FromIterator<u16> for KeySet {
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> Self {
        let mut set = Self::default();
        for code in codes {
            set.insert(code);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_holds_every_code_of_evdev_and_no_other() {
        let mut set: KeySet = [0, 63, 64, 767, 768, u16::MAX].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 767]);
        assert!(!set.contains(768) && !set.contains(u16::MAX));
        set.remove(64);
        set.remove(u16::MAX);
        let other: KeySet = [0, 1].into_iter().collect();
        assert_eq!(set.without(&other).iter().collect::<Vec<_>>(), [63, 767]);
        set.insert_all(&other);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 1, 63, 767]);
    }
}
