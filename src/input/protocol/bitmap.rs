// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sets of codes, laid out as bitmaps.

use std::fmt;

/// Size of a bitmap in bytes: that of the union in `struct virtio_input_config` (virtio 1.2, 5.8.4).
const SIZE: usize = 128;
/// Size of a word in bytes.
const WORD: usize = 8;

/// A set of codes of one event type. Code `n` is bit `n % 8` of byte `n / 8`, in evdev and in the
/// configuration space alike.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bitmap([u8; SIZE]);

impl Bitmap {
    /// Number of words of 64 codes.
    pub(crate) const WORDS: usize = SIZE / WORD;

    /// The number of the word that `code` is in.
    pub(crate) fn word_of(code: u16) -> usize {
        usize::from(code) / (WORD * 8)
    }

    /// The word `index`; `None` beyond the last.
    pub(crate) fn word(&self, index: usize) -> Option<[u8; WORD]> {
        let bytes = self.0.chunks_exact(WORD).nth(index)?;
        bytes.try_into().ok()
    }

    /// Sets the word `index`. Returns `false` beyond the last.
    #[must_use]
    pub(crate) fn set_word(&mut self, index: usize, word: [u8; WORD]) -> bool {
        let bytes = self.0.chunks_exact_mut(WORD).nth(index);
        bytes.map(|bytes| bytes.copy_from_slice(&word)).is_some()
    }

    /// The bitmap of which [`Self::trimmed`] returned `bytes`; `None` if these are too many.
    pub(crate) fn from_trimmed(bytes: &[u8]) -> Option<Self> {
        let mut bits = Self::default();
        bits.0.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(bits)
    }

    /// Whether `code` is in the set.
    pub fn contains(&self, code: u16) -> bool {
        let byte = self.0.get(usize::from(code / 8)).copied().unwrap_or(0);
        byte >> (code % 8) & 1 == 1
    }

    /// Adds `code` to the set or removes it. A set never contains codes from 1024 on, which evdev does
    /// not have.
    pub fn set(&mut self, code: u16, on: bool) {
        if let Some(byte) = self.0.get_mut(usize::from(code / 8)) {
            let bit = 1 << (code % 8);
            *byte = if on { *byte | bit } else { *byte & !bit };
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The codes in the set, in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(self.0).flat_map(|(at, byte)| {
            (0..8u16)
                .filter(move |bit| byte >> bit & 1 == 1)
                .map(move |bit| at * 8 + bit)
        })
    }

    /// The codes in this set that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = *self;
        for (byte, taken) in left.0.iter_mut().zip(other.0) {
            *byte &= !taken;
        }
        left
    }

    /// The codes in both sets.
    pub fn and(&self, other: &Self) -> Self {
        self.without(&self.without(other))
    }

    /// The bitmap without the zero bytes at its end, as the configuration space reports it.
    pub(crate) fn trimmed(&self) -> &[u8] {
        let length = self
            .0
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        self.0.get(..length).unwrap_or(&[])
    }
}

impl Default for Bitmap {
    fn default() -> Self {
        Self([0; SIZE])
    }
}

impl FromIterator<u16> for Bitmap {
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> Self {
        let mut bits = Self::default();
        for code in codes {
            bits.set(code, true);
        }
        bits
    }
}

impl fmt::Debug for Bitmap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_a_bit_of_its_byte() {
        let bits: Bitmap = [0, 9, 10].into_iter().collect();
        assert_eq!(bits.trimmed(), [0b1, 0b110]);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 9, 10]);
        assert!(bits.contains(9) && !bits.contains(8));
        assert!(Bitmap::default().trimmed().is_empty());
    }

    #[test]
    fn bitmap_holds_code_1023_and_ignores_those_beyond() {
        let bits: Bitmap = [1023, 1024, u16::MAX].into_iter().collect();
        assert_eq!(bits.iter().collect::<Vec<_>>(), [1023]);
        assert_eq!(bits.trimmed().len(), SIZE);
        assert!(!bits.contains(1024));
    }
}
