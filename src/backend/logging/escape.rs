//! Text of others on a terminal. A device can call itself anything, and so can a file.
//!
//! vhostctl has this file too (`cli/src/output.rs`).

use std::borrow::Cow;
use std::fmt::Write as _;

/// Replaces every character that steers a terminal by an escape: a text stays on its line, and is shown
/// in the order in which it is written.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, steers)
}

/// The same for several lines: line ends stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && steers(c))
}

/// C0, DEL and C1, the two line ends of Unicode, and what turns the direction of writing around.
pub fn steers(c: char) -> bool {
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
    fn what_steers_a_terminal_is_an_escape() {
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
