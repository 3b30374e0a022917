// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a VM's VNC server says of itself in words that vhostctl reads: to viewers by the name of the desktop, to the
//! service manager by `STATUS=` of sd_notify(3).

use std::fmt;

/// Whether a viewer sees the guest's screen, or why it sees a text instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScreenState {
    /// The guest's pixels are shown.
    On,
    /// There is no connection to the GPU.
    Unreachable,
    /// The GPU has nothing to show: no guest uses it yet.
    Waiting,
    /// The guest has switched this screen off.
    Off,
    /// The guest's screen is too large to be shown.
    TooLarge,
}

impl ScreenState {
    /// All states but [`ScreenState::On`], with what the desktop's name says of them.
    const NOTES: [(Self, &'static str); 4] = [
        (Self::Unreachable, " (no connection to the GPU)"),
        (Self::Waiting, " (waiting for the guest)"),
        (Self::Off, " (off)"),
        (Self::TooLarge, " (too large)"),
    ];

    fn note(self) -> &'static str {
        let noted = Self::NOTES.iter().find(|(state, _)| *state == self);
        noted.map_or("", |(_, note)| note)
    }

    /// Reads it from the name of a desktop, which is [`DesktopName`]'s text.
    #[must_use]
    pub fn of_desktop(name: &str) -> Self {
        let noted = Self::NOTES.iter().find(|(_, note)| name.ends_with(note));
        noted.map_or(Self::On, |(state, _)| *state)
    }
}

/// The name of the desktop that a viewer gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DesktopName<'a> {
    /// What the screen is called: the name of the VM, perhaps with the number of its head.
    pub screen: &'a str,
    /// What is shown.
    pub state: ScreenState,
}

impl fmt::Display for DesktopName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.screen)?;
        f.write_str(self.state.note())
    }
}

/// What a VNC server says of its viewers in `STATUS=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ViewersStatus<'a> {
    /// How many are connected.
    pub count: usize,
    /// Who they are; may be empty.
    pub who: &'a str,
}

const NOBODY: &str = "nobody looks";
const ONE: &str = "1 viewer";
const SEVERAL: &str = " viewers";
const WHO: &str = ": ";

impl fmt::Display for ViewersStatus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            0 => return f.write_str(NOBODY),
            1 => f.write_str(ONE)?,
            count => write!(f, "{count}{SEVERAL}")?,
        }
        if !self.who.is_empty() {
            write!(f, "{WHO}{}", self.who)?;
        }
        Ok(())
    }
}

impl<'a> ViewersStatus<'a> {
    /// Reads a server's text. None if it says nothing of viewers.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text == NOBODY {
            return Some(Self { count: 0, who: "" });
        }
        let (count, who) = match text.split_once(WHO) {
            Some((count, who)) => (count, who),
            None => (text, ""),
        };
        let count = match count {
            ONE => 1,
            several => several.strip_suffix(SEVERAL)?.parse().ok()?,
        };
        Some(Self { count, who })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_screen_is_read_from_its_name() {
        for state in [
            ScreenState::On,
            ScreenState::Unreachable,
            ScreenState::Waiting,
            ScreenState::Off,
            ScreenState::TooLarge,
        ] {
            for screen in ["vm1", "vm1, screen 2", ""] {
                let name = DesktopName { screen, state }.to_string();
                assert!(name.starts_with(screen));
                assert_eq!(ScreenState::of_desktop(&name), state, "{name}");
            }
        }
        assert_eq!(ScreenState::of_desktop("QEMU (vm1)"), ScreenState::On);
    }

    #[test]
    fn every_status_is_read_as_it_was_written() {
        for (count, who) in [
            (0, ""),
            (1, ""),
            (1, "alice (pid 4711)"),
            (2, "root (pid 1), uid 1000 (pid 2)"),
            (20, "a: b"),
        ] {
            let status = ViewersStatus { count, who };
            assert_eq!(ViewersStatus::parse(&status.to_string()), Some(status));
        }
        for text in ["", "viewers", "2", "x viewers", "a front-end is connected"] {
            assert_eq!(ViewersStatus::parse(text), None, "{text:?}");
        }
    }
}
