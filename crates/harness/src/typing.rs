// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a person does to a guest, and how it looks in there: text on a keyboard with US layout, clicks of a
//! pointer that says where it is.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::console::Running;

/// More events than a test sends: the guest listens until nobody is interested.
pub const MANY: usize = 1_000_000;

const LEFT_SHIFT: u16 = 42;
const RIGHT_SHIFT: u16 = 54;
const CAPS_LOCK: u16 = 58;
pub(crate) const LEFT_BUTTON: u16 = 272;
/// The last value of an absolute axis.
const AXIS_END: u32 = 0x7fff;

/// The keys of a keyboard with US layout that write something: code, alone, with Shift.
const KEYS: [(u16, char, char); 49] = [
    (2, '1', '!'),
    (3, '2', '@'),
    (4, '3', '#'),
    (5, '4', '$'),
    (6, '5', '%'),
    (7, '6', '^'),
    (8, '7', '&'),
    (9, '8', '*'),
    (10, '9', '('),
    (11, '0', ')'),
    (12, '-', '_'),
    (13, '=', '+'),
    (16, 'q', 'Q'),
    (17, 'w', 'W'),
    (18, 'e', 'E'),
    (19, 'r', 'R'),
    (20, 't', 'T'),
    (21, 'y', 'Y'),
    (22, 'u', 'U'),
    (23, 'i', 'I'),
    (24, 'o', 'O'),
    (25, 'p', 'P'),
    (26, '[', '{'),
    (27, ']', '}'),
    (28, '\n', '\n'),
    (30, 'a', 'A'),
    (31, 's', 'S'),
    (32, 'd', 'D'),
    (33, 'f', 'F'),
    (34, 'g', 'G'),
    (35, 'h', 'H'),
    (36, 'j', 'J'),
    (37, 'k', 'K'),
    (38, 'l', 'L'),
    (39, ';', ':'),
    (40, '\'', '"'),
    (41, '`', '~'),
    (43, '\\', '|'),
    (44, 'z', 'Z'),
    (45, 'x', 'X'),
    (46, 'c', 'C'),
    (47, 'v', 'V'),
    (48, 'b', 'B'),
    (49, 'n', 'N'),
    (50, 'm', 'M'),
    (51, ',', '<'),
    (52, '.', '>'),
    (53, '/', '?'),
    (57, ' ', ' '),
];

/// Their names in browsers, in the same order.
const BROWSER_NAMES: [&str; KEYS.len()] = [
    "Digit1",
    "Digit2",
    "Digit3",
    "Digit4",
    "Digit5",
    "Digit6",
    "Digit7",
    "Digit8",
    "Digit9",
    "Digit0",
    "Minus",
    "Equal",
    "KeyQ",
    "KeyW",
    "KeyE",
    "KeyR",
    "KeyT",
    "KeyY",
    "KeyU",
    "KeyI",
    "KeyO",
    "KeyP",
    "BracketLeft",
    "BracketRight",
    "Enter",
    "KeyA",
    "KeyS",
    "KeyD",
    "KeyF",
    "KeyG",
    "KeyH",
    "KeyJ",
    "KeyK",
    "KeyL",
    "Semicolon",
    "Quote",
    "Backquote",
    "Backslash",
    "KeyZ",
    "KeyX",
    "KeyC",
    "KeyV",
    "KeyB",
    "KeyN",
    "KeyM",
    "Comma",
    "Period",
    "Slash",
    "Space",
];

/// How a person types a character on a US keyboard: the key's code, its name in browsers
/// (`KeyboardEvent.code`), and whether Shift is held.
pub(crate) fn strokes(character: char) -> Option<(u16, &'static str, bool)> {
    let key = KEYS
        .iter()
        .zip(BROWSER_NAMES)
        .find(|((_, plain, shifted), _)| [*plain, *shifted].contains(&character));
    key.map(|((code, plain, _), name)| (*code, name, *plain != character))
}

/// Turns a guest's key events into text.
#[derive(Debug, Default)]
struct Typist {
    down: BTreeSet<u16>,
    has_caps: bool,
    text: String,
}

impl Typist {
    /// Takes a line of the agent's `keys`.
    fn event(&mut self, line: &str) -> anyhow::Result<()> {
        // SYN_DROPPED.
        ensure!(line != "syn 3 0", "the guest's kernel dropped events");
        let Some((code, value)) = parse("key", line) else {
            return Ok(());
        };
        let code = u16::try_from(code)?;
        match value {
            0 => ensure!(self.down.remove(&code), "key {code} was not down: {line}"),
            // The guest's kernel repeats a key that is held for long.
            2 => {}
            _ => {
                ensure!(self.down.insert(code), "key {code} was down: {line}");
                match code {
                    LEFT_SHIFT | RIGHT_SHIFT => {}
                    CAPS_LOCK => self.has_caps = !self.has_caps,
                    _ => self.write(code)?,
                }
            }
        }
        Ok(())
    }

    /// Adds what a key writes now.
    fn write(&mut self, code: u16) -> anyhow::Result<()> {
        let key = KEYS.iter().find(|(key, ..)| *key == code);
        let (_, plain, shifted) = key.with_context(|| format!("key {code} writes nothing"))?;
        let has_shift = self.down.contains(&LEFT_SHIFT) || self.down.contains(&RIGHT_SHIFT);
        let has_caps = self.has_caps && plain.is_ascii_lowercase();
        let written = if has_shift == has_caps {
            plain
        } else {
            shifted
        };
        self.text.push(*written);
        Ok(())
    }
}

/// Reads what a guest that listens to its keyboard sees, until `text` was typed and all keys are up.
///
/// # Errors
///
/// If anything else is typed, or less within `timeout`.
pub fn expect_text(listening: &Running, text: &str, timeout: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut typist = Typist::default();
    while typist.text != text || !typist.down.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = listening.line(left).with_context(|| {
            let Typist {
                text: got, down, ..
            } = &typist;
            format!("typed {text:?}, the guest got {got:?}, and the keys {down:?} are down")
        })?;
        typist.event(&line.context("the guest listens no more")?)?;
        let got = &typist.text;
        ensure!(
            text.starts_with(got.as_str()),
            "typed {text:?}, but the guest got {got:?}"
        );
    }
    Ok(())
}

/// Reads what a guest that listens to its tablet sees, until the left button was clicked at `position` of a
/// screen of `size`.
///
/// # Errors
///
/// If the click is elsewhere, or does not come within `timeout`.
pub fn expect_click(
    listening: &Running,
    position: (u32, u32),
    size: (u32, u32),
    timeout: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut at = (None, None);
    let mut is_pressed = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = listening
            .line(left)
            .with_context(|| format!("no click at {position:?}, the pointer is at {at:?}"))?;
        let line = line.context("the guest listens no more")?;
        match parse("abs", &line) {
            Some((0, x)) => at.0 = Some(x),
            Some((1, y)) => at.1 = Some(y),
            _ => {}
        }
        match parse("key", &line) {
            Some((code, 1)) if code == u32::from(LEFT_BUTTON) => is_pressed = true,
            Some((code, 0)) if code == u32::from(LEFT_BUTTON) => break,
            Some(_) => bail!("another button: {line}"),
            None => {}
        }
    }
    ensure!(is_pressed, "the button was released, but not pressed");
    // A report may have the button before the position.
    let (x, y) = at;
    let near = |value: Option<u32>, pixel: u32, pixels: u32| {
        let value = value.context("the pointer has not moved")?;
        let found = (value * pixels + AXIS_END / 2) / AXIS_END;
        // Servers differ in whether they mean a pixel's corner or its middle.
        anyhow::Ok(found.abs_diff(pixel) <= 1)
    };
    let is_there = near(x, position.0, size.0)? && near(y, position.1, size.1)?;
    ensure!(
        is_there,
        "clicked at {position:?} of {size:?}, the guest got {x:?}, {y:?}"
    );
    Ok(())
}

/// Code and value of a line `KIND CODE VALUE`.
fn parse(kind: &str, line: &str) -> Option<(u32, u32)> {
    let (code, value) = line.strip_prefix(kind)?.trim_start().split_once(' ')?;
    Some((code.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(lines: &[&str]) -> anyhow::Result<Typist> {
        let mut typist = Typist::default();
        for line in lines {
            typist.event(line)?;
        }
        Ok(typist)
    }

    #[test]
    fn keys_become_text() {
        let lines = [
            "key 42 1", "syn 0 0", "key 35 1", "key 35 2", "key 42 0", "key 35 0", "key 23 1",
            "key 23 0",
        ];
        let typist = typed(&lines).expect("text");
        assert_eq!(typist.text, "Hi");
        assert!(typist.down.is_empty());
    }

    #[test]
    fn caps_lock_is_for_letters() {
        let taps = [58, 35, 2, 58, 35];
        let lines = taps.map(|code| [format!("key {code} 1"), format!("key {code} 0")]);
        let lines: Vec<&str> = lines.iter().flatten().map(String::as_str).collect();
        assert_eq!(typed(&lines).expect("text").text, "H1h");
    }

    #[test]
    fn keys_pressed_or_released_twice_are_errors() {
        assert!(typed(&["key 35 1", "key 35 1"]).is_err());
        assert!(typed(&["key 35 0"]).is_err());
        assert!(typed(&["key 59 1"]).is_err());
    }
}
