// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The syntax of systemd's unit files (systemd.syntax(7)): reading assignments, writing words.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The characters that end a line for systemd.
const LINE_ENDS: [char; 3] = ['\n', '\r', '\0'];

/// An assignment in a unit file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// The section, without brackets.
    pub section: String,
    /// The name before the "=".
    pub key: String,
    /// What comes after it, with continuation lines joined.
    pub value: String,
}

/// An assignment to write, whose section is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// The name before the "=".
    pub key: Cow<'static, str>,
    /// What comes after it, quoted where it has to be.
    pub value: String,
}

impl Directive {
    pub(crate) fn new(key: &'static str, value: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            value: value.into(),
        }
    }
}

/// All assignments of a file. Other lines are ignored, as systemd does.
pub(crate) fn parse(text: &str) -> Vec<Assignment> {
    let mut assignments = Vec::new();
    let mut section = String::new();
    let mut logical = String::new();
    for line in text.split(LINE_ENDS) {
        let line = line.trim();
        // A comment does not end a continuation.
        if line.starts_with(['#', ';']) {
            continue;
        }
        let backslashes = line.len() - line.trim_end_matches('\\').len();
        if let Some(part) = line.strip_suffix('\\').filter(|_| backslashes % 2 == 1) {
            logical.push_str(part);
            logical.push(' ');
            continue;
        }
        logical.push_str(line);
        let whole = std::mem::take(&mut logical);
        let whole = whole.trim();
        if let Some(name) = whole
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = name.to_owned();
        } else if let Some((key, value)) = whole.split_once('=') {
            assignments.push(Assignment {
                section: section.clone(),
                key: key.trim_end().to_owned(),
                value: value.trim_start().to_owned(),
            });
        }
    }
    assignments
}

/// Splits a value into words, and removes quotes and C escapes.
pub(crate) fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut rest = value;
    while let Some(c) = rest.chars().next() {
        let (_, after) = rest.split_at(c.len_utf8());
        rest = after;
        match (c, quote) {
            ('\\', _) => {
                let (byte, length) = escape(rest).unwrap_or((b'\\', 0));
                word.get_or_insert_default().push(byte);
                rest = rest.get(length..).unwrap_or_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c @ ('"' | '\''), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => {
                let mut buffer = [0; 4];
                let bytes = c.encode_utf8(&mut buffer).as_bytes();
                word.get_or_insert_default().extend_from_slice(bytes);
            }
        }
    }
    words.extend(word);
    words
        .into_iter()
        .map(|word| String::from_utf8_lossy(&word).into_owned())
        .collect()
}

/// The byte that the text after a backslash stands for, and the length of that text.
pub(crate) fn escape(text: &str) -> Option<(u8, usize)> {
    let number = |digits: &str, radix| u8::from_str_radix(digits, radix).ok();
    Some(match text.as_bytes().first()? {
        b's' => (b' ', 1),
        b'a' => (7, 1),
        b'b' => (8, 1),
        b't' => (b'\t', 1),
        b'n' => (b'\n', 1),
        b'v' => (11, 1),
        b'f' => (12, 1),
        b'r' => (b'\r', 1),
        b'x' => (number(text.get(1..3)?, 16)?, 3),
        b'0'..=b'3' => (number(text.get(..3)?, 8)?, 3),
        byte if byte.is_ascii_punctuation() => (*byte, 1),
        _ => return None,
    })
}

/// Expands specifiers: "%%" and the one of the instance. Others stay.
pub(crate) fn expand(value: &str, instance: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((plain, after)) = rest.split_once('%') {
        text.push_str(plain);
        rest = match after.chars().next() {
            Some('%') => {
                text.push('%');
                after.get(1..).unwrap_or_default()
            }
            Some('i') => {
                text.push_str(instance);
                after.get(1..).unwrap_or_default()
            }
            _ => {
                text.push('%');
                after
            }
        };
    }
    text.push_str(rest);
    text
}

/// Quotes a word, if necessary, so that systemd reads exactly this word.
pub(crate) fn quoted(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 2);
    for c in word.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '%' => text.push_str("%%"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            // Writing to a string does not fail.
            c if c.is_ascii_control() => drop(write!(text, "\\x{:02x}", u32::from(c))),
            c => text.push(c),
        }
    }
    let bare =
        |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || "_.-/:=,+@%\\$~^*?!".contains(c);
    if !text.is_empty() && word.chars().all(bare) {
        text
    } else {
        format!("\"{text}\"")
    }
}

/// Splits the value of a variable that is a word of a command line (`$OPTIONS`): quotes count, and a backslash
/// escapes any character.
pub(crate) fn variable_words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut rest = value.chars();
    while let Some(c) = rest.next() {
        match (c, quote) {
            ('\\', _) => word.get_or_insert_default().extend(rest.next()),
            (c, Some(open)) if c == open => quote = None,
            (c @ ('"' | '\''), None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, None) if c.is_ascii_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Quotes a word of such a variable's value.
pub(crate) fn variable_word(word: &str) -> String {
    let bare = |c: char| !c.is_ascii_whitespace() && !matches!(c, '\\' | '"' | '\'');
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_owned();
    }
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// Escapes a value in which systemd would expand specifiers.
pub(crate) fn without_specifiers(value: &str) -> String {
    value.replace('%', "%%")
}

/// Quotes a word of a command line, where a "$" would begin a variable.
pub(crate) fn command_word(word: &str) -> String {
    quoted(word).replace('$', "$$")
}

/// Undoes the escaping of "$" in a word of a command line.
pub(crate) fn from_command_word(word: &str) -> String {
    word.replace("$$", "$")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(String, String)> {
        parse(text)
            .into_iter()
            .map(|a| (format!("{}.{}", a.section, a.key), a.value))
            .collect()
    }

    #[test]
    fn assignments_are_read_as_systemd_does() {
        let text = "# comment\n[Service]\nA = 1\n B=2 \\\n# in between\n   3\n; other\nnonsense\n[X-more]\r\nC=\r\nD=a=b";
        assert_eq!(
            values(text),
            [
                ("Service.A", "1"),
                ("Service.B", "2  3"),
                ("X-more.C", ""),
                ("X-more.D", "a=b"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn words_are_unquoted() {
        assert_eq!(
            words(r#"a  "b c" 'd"e'f "" g\x20h \\x20 \"#),
            ["a", "b c", "d\"ef", "", "g h", "\\x20", "\\"]
        );
        assert_eq!(words("  "), [""; 0]);
        assert_eq!(words(r"T\303\244st \sx"), ["Täst", " x"]);
        assert_eq!(words(r"\x4 \39 \q"), [r"\x4", r"\39", r"\q"]);
    }

    #[test]
    fn written_text_is_read_back() {
        for word in [
            "plain",
            "",
            "a b",
            "%n 100%",
            r"a\x20b",
            "it's",
            "\"",
            "tab\tnew\nline",
            "Tästatur",
            "\u{1}",
            ";",
            "\r[Service]\rUser=root",
            "ends\\",
            "ends twice\\\\",
            "$HOME",
            "a#b",
            "--x=/dev/input/by-id/usb-0:1-event-kbd",
        ] {
            let written = quoted(word);
            assert!(!written.contains(char::is_control));
            assert_eq!(words(&expand(&written, "vm1")), [word], "{written}");
            let [assignment] = &parse(&format!("A={written}\nnone\n"))[..] else {
                panic!("{written}");
            };
            assert_eq!(assignment.value, written);
            assert_eq!(variable_words(&variable_word(word)), [word]);
            let written = command_word(word);
            let read: Vec<_> = words(&expand(&written, "vm1"))
                .iter()
                .map(|w| from_command_word(w))
                .collect();
            assert_eq!(read, [word], "{written}");
        }
    }

    #[test]
    fn specifiers_are_expanded() {
        assert_eq!(expand("a%%i%i%n%", "vm1"), "a%ivm1%n%");
    }
}
