// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keyboard layout of the United States, built in: the usual one needs no library and no data.

use super::modifiers::Modifiers;

/// The characters of each key without and with Shift, from the first key of a row on.
const ROWS: [(u16, &str, &str); 5] = [
    (2, "1234567890-=", "!@#$%^&*()_+"),
    (16, "qwertyuiop[]", "QWERTYUIOP{}"),
    (30, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (43, "\\", "|"),
    (44, "zxcvbnm,./", "ZXCVBNM<>?"),
];

/// The keysym that the key `key` types with `modifiers`; `None` for keys that type no character. All these characters are
/// of Latin-1: their keysyms are their numbers.
pub(super) fn keysym(key: u16, modifiers: Modifiers) -> Option<u32> {
    ROWS.iter().find_map(|(first, plain, shifted)| {
        let index = usize::from(key.checked_sub(*first)?);
        let letter = plain.as_bytes().get(index)?.is_ascii_alphabetic();
        let upper = modifiers.shift != (letter && modifiers.caps_lock);
        let row = if upper { shifted } else { plain };
        row.as_bytes()
            .get(index)
            .map(|character| u32::from(*character))
    })
}
