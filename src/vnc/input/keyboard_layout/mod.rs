// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Keyboard layouts: which key, with which modifiers, types a keysym. A viewer that sends no keycodes says only what was
//! typed; the guest, which has a layout of its own, wants keys. The layout here has to be the guest's.

mod function_keys;
mod modifiers;
mod us_layout;
mod xkb;

pub(super) use modifiers::Modifiers;

use std::collections::HashMap;
use std::ops::RangeInclusive;

use evdev::KeyCode;

use function_keys::{KeypadKey, key_of_function_keysym, keypad_key};
use xkb::XkbKeymap;

/// The layout that is built in.
const BUILT_IN: &str = "us";
/// The keys that type characters: those of the main block, and what Brazil's and Japan's keyboards have there as well. A
/// character that another key types too, such as a parenthesis of a keypad, is typed here.
const KEYS: [RangeInclusive<u16>; 4] = [
    KeyCode::KEY_1.0..=KeyCode::KEY_SLASH.0,
    KeyCode::KEY_102ND.0..=KeyCode::KEY_102ND.0,
    KeyCode::KEY_RO.0..=KeyCode::KEY_RO.0,
    KeyCode::KEY_YEN.0..=KeyCode::KEY_YEN.0,
];
/// The keysym of a character without a keysym of its own has this added to its number (X11 protocol, appendix A).
const UNICODE: u32 = 0x0100_0000;

/// Why a keyboard layout cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The name cannot be one.
    #[error(
        "{0:?} is not a keyboard layout: it has the form LAYOUT or LAYOUT(VARIANT), such as de or de(nodeadkeys)"
    )]
    Syntax(String),
    /// The library is missing.
    #[error(
        "the keyboard layout {0} needs libxkbcommon.so.0, which cannot be loaded: install the package libxkbcommon0, or use the layout {BUILT_IN}"
    )]
    NoLibrary(String),
    /// The library does not know the layout, or has no data.
    #[error(
        "there is no keyboard layout {0} in /usr/share/X11/xkb: install the package xkb-data, or see `localectl list-x11-keymap-layouts` and `list-x11-keymap-variants` for names"
    )]
    Unknown(String),
}

/// A way to type a keysym.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stroke {
    /// The key's evdev code.
    pub(super) key: u16,
    /// Whether Shift and AltGr have to be pressed; `None` if it does not matter.
    pub(super) modifiers: Option<(bool, bool)>,
}

/// A keyboard layout. Characters are found by their keysyms, all other keys are the same on every layout.
#[derive(Debug)]
pub struct KeyboardLayout {
    /// The keys and modifiers that type each keysym.
    strokes: HashMap<u32, Vec<(u16, Modifiers)>>,
    /// Whether the right Alt key is AltGr.
    has_alt_gr: bool,
}

impl KeyboardLayout {
    /// Loads the layout `name`: `LAYOUT` or `LAYOUT(VARIANT)` as X names them. `us` is built in; any other one reads files
    /// below `/usr/share/X11/xkb` with libxkbcommon, and so has to be loaded before a sandbox forbids that.
    ///
    /// # Errors
    /// If there is no such layout, or no library to read it with.
    pub fn load(name: &str) -> Result<Self, LayoutError> {
        if name == BUILT_IN {
            return Ok(Self::us());
        }
        let (layout, variant) =
            parse_name(name).ok_or_else(|| LayoutError::Syntax(name.to_owned()))?;
        let keymap = XkbKeymap::load(name, layout, variant)?;
        let has_alt_gr = keymap.has_alt_gr();
        let mut strokes = Self::collect(has_alt_gr, |key, modifiers| keymap.keysym(key, modifiers));
        for keysym in strokes.keys().copied().collect::<Vec<_>>() {
            if let (Some(unicode), Some(ways)) = (keymap.unicode(keysym), strokes.get(&keysym)) {
                let ways = ways.clone();
                strokes.entry(UNICODE | unicode).or_insert(ways);
            }
        }
        Ok(Self {
            strokes,
            has_alt_gr,
        })
    }

    /// The layout of the United States.
    pub fn us() -> Self {
        Self {
            strokes: Self::collect(false, us_layout::keysym),
            has_alt_gr: false,
        }
    }

    fn collect(
        has_alt_gr: bool,
        keysym: impl Fn(u16, Modifiers) -> Option<u32>,
    ) -> HashMap<u32, Vec<(u16, Modifiers)>> {
        let mut strokes = HashMap::<u32, Vec<_>>::new();
        for key in KEYS.into_iter().flatten() {
            for modifiers in Modifiers::all(has_alt_gr) {
                let keysym = keysym(key, modifiers);
                let character = keysym.filter(|keysym| key_of_function_keysym(*keysym).is_none());
                if let Some(keysym) = character.filter(|keysym| keypad_key(*keysym).is_none()) {
                    strokes.entry(keysym).or_default().push((key, modifiers));
                }
            }
        }
        strokes
    }

    /// Whether the right Alt key is AltGr, which chooses characters.
    pub(super) fn has_alt_gr(&self) -> bool {
        self.has_alt_gr
    }

    /// The way to type `keysym` that changes the fewest of the modifiers `now`; `None` if the layout cannot type it.
    pub(super) fn stroke(&self, keysym: u32, now: Modifiers) -> Option<Stroke> {
        if let Some(keypad) = keypad_key(keysym) {
            return self.keypad_stroke(keypad, now);
        }
        if let Some(key) = key_of_function_keysym(keysym) {
            return Some(Stroke {
                key,
                modifiers: None,
            });
        }
        self.character_stroke(keysym, now)
    }

    /// A key of the keypad, if Num Lock makes it the wanted one; else another key that types the same.
    fn keypad_stroke(&self, keypad: KeypadKey, now: Modifiers) -> Option<Stroke> {
        if keypad.with_num_lock == now.num_lock {
            return Some(Stroke {
                key: keypad.key.0,
                modifiers: None,
            });
        }
        let elsewhere = keypad.elsewhere?;
        match key_of_function_keysym(elsewhere) {
            Some(key) => Some(Stroke {
                key,
                modifiers: None,
            }),
            None => self.character_stroke(elsewhere, now),
        }
    }

    fn character_stroke(&self, keysym: u32, now: Modifiers) -> Option<Stroke> {
        let ways = self.strokes.get(&latin_1(keysym))?;
        let possible = ways.iter().filter(|(_, needed)| {
            (needed.caps_lock, needed.num_lock) == (now.caps_lock, now.num_lock)
        });
        // Not every keyboard has the key beside the left Shift, and systems do not agree on what it types.
        let (key, needed) = possible.min_by_key(|(key, needed)| {
            let changes =
                u8::from(needed.shift != now.shift) + u8::from(needed.alt_gr != now.alt_gr);
            (*key == KeyCode::KEY_102ND.0, changes)
        })?;
        Some(Stroke {
            key: *key,
            modifiers: Some((needed.shift, needed.alt_gr)),
        })
    }
}

/// The keysym of the same character that layouts have: that of Latin-1 where there is one.
fn latin_1(keysym: u32) -> u32 {
    match keysym.checked_sub(UNICODE) {
        Some(character @ (0x20..=0x7e | 0xa0..=0xff)) => character,
        _ => keysym,
    }
}

/// Layout and variant (empty for none) of a name.
fn parse_name(name: &str) -> Option<(&str, &str)> {
    let (layout, variant) = match name.split_once('(') {
        Some((layout, rest)) => (
            layout,
            rest.strip_suffix(')').filter(|rest| !rest.is_empty())?,
        ),
        None => (name, ""),
    };
    let is_word = |word: &str| {
        let mut characters = word.chars();
        word.len() <= 64 && characters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
    };
    (!layout.is_empty() && is_word(layout) && is_word(variant)).then_some((layout, variant))
}

#[cfg(test)]
mod tests;
