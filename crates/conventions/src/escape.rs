// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Text of others on a terminal. A device can call itself anything, and so can a file.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Escapes every unprintable character ([`is_unprintable`]): a text stays on its line, and is
/// shown in the order in which it is written.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, is_unprintable)
}

/// The same for a text of several lines: line ends stay.
#[must_use]
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_unprintable(c))
}

/// Whether a character can control a terminal or the layout of a line: C0, DEL and C1, Unicode's line and
/// paragraph separators, and its marks and controls of the direction of writing.
#[must_use]
pub fn is_unprintable(c: char) -> bool {
    let format = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    format || c.is_control()
}

fn escape(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        let code = u32::from(c);
        // Writing to a string does not fail.
        let _ = match (wanted(c), code) {
            (false, _) => safe.write_char(c),
            (true, ..=0xff) => write!(safe, "\\x{code:02x}"),
            (true, _) => write!(safe, "\\u{{{code:x}}}"),
        };
    }
    Cow::Owned(safe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        assert_eq!(
            printable("a\x1b]0;x\x07\r\n\t\x7f\u{9b}2Jb"),
            r"a\x1b]0;x\x07\x0d\x0a\x09\x7f\x9b2Jb"
        );
        assert_eq!(
            printable("a\u{202e}b\u{2066}\u{2028}"),
            r"a\u{202e}b\u{2066}\u{2028}"
        );
        assert_eq!(printable_lines("a\nb\x1b"), "a\nb\\x1b");
        for plain in ["Tästatur", r"usb-A\x20B", "日本語", "👩‍💻", ""] {
            assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
        }
    }
}
