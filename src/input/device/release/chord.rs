// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The chord: the keys by which the user of a keyboard takes it from the guest, and gives it again.

use evdev::KeyCode;

use crate::backend::continuity::{Ledger, RecordKey};
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::{EV_KEY, EV_SYN, SYN_DROPPED};
use crate::input::protocol::{Bitmap, Event};
use crate::input::records::{self, RecordError, tables};

const CHORD: RecordKey = RecordKey::new(tables::OWNERSHIP, 2);

/// The keys that toggle who has a keyboard, with the names and the meaning of `grab-toggle=` of QEMU's input-linux and
/// `grabToggle` of libvirt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum GrabToggle {
    /// Both Ctrl keys at once
    CtrlCtrl,
    /// Both Alt keys at once
    AltAlt,
    /// Both Shift keys at once
    ShiftShift,
    /// Both Meta keys (Windows, Command) at once
    MetaMeta,
    /// Scroll Lock, which the guest then never sees
    Scrolllock,
    /// Scroll Lock together with a Ctrl key; the guest never sees Scroll Lock
    CtrlScrolllock,
}

const SCROLL_LOCK: u16 = KeyCode::KEY_SCROLLLOCK.0;
const CTRLS: [u16; 2] = [KeyCode::KEY_LEFTCTRL.0, KeyCode::KEY_RIGHTCTRL.0];
const ALTS: [u16; 2] = [KeyCode::KEY_LEFTALT.0, KeyCode::KEY_RIGHTALT.0];
const SHIFTS: [u16; 2] = [KeyCode::KEY_LEFTSHIFT.0, KeyCode::KEY_RIGHTSHIFT.0];
const METAS: [u16; 2] = [KeyCode::KEY_LEFTMETA.0, KeyCode::KEY_RIGHTMETA.0];

impl GrabToggle {
    fn is_pressed(self, keys: &Bitmap) -> bool {
        let all = |codes: [u16; 2]| codes.iter().all(|code| keys.contains(*code));
        let any = |codes: [u16; 2]| codes.iter().any(|code| keys.contains(*code));
        match self {
            Self::CtrlCtrl => all(CTRLS),
            Self::AltAlt => all(ALTS),
            Self::ShiftShift => all(SHIFTS),
            Self::MetaMeta => all(METAS),
            Self::Scrolllock => keys.contains(SCROLL_LOCK),
            Self::CtrlScrolllock => any(CTRLS) && keys.contains(SCROLL_LOCK),
        }
    }

    /// The keys of the chord.
    fn codes(self) -> &'static [u16] {
        match self {
            Self::CtrlCtrl => &CTRLS,
            Self::AltAlt => &ALTS,
            Self::ShiftShift => &SHIFTS,
            Self::MetaMeta => &METAS,
            Self::Scrolllock => &[SCROLL_LOCK],
            Self::CtrlScrolllock => &[CTRLS[0], CTRLS[1], SCROLL_LOCK],
        }
    }

    /// The key that a guest is never to see: its own Scroll Lock would change with each toggle.
    fn hidden(self) -> Option<u16> {
        let hides = matches!(self, Self::Scrolllock | Self::CtrlScrolllock);
        hides.then_some(SCROLL_LOCK)
    }

    fn hides(self, event: &Event) -> bool {
        event.kind == EV_KEY && Some(event.code) == self.hidden()
    }
}

/// Watches the events of a source for the chord.
#[derive(Debug, Default)]
pub(in crate::input::device) struct ChordWatch {
    /// `None`: there is no chord.
    toggle: Option<GrabToggle>,
    /// The keys that are pressed, as far as events said so.
    keys: Bitmap,
    is_pressed: bool,
    was_struck: bool,
    lost_events: bool,
}

impl ChordWatch {
    #[cfg(test)]
    fn new(toggle: Option<GrabToggle>) -> Self {
        Self {
            toggle,
            ..Self::default()
        }
    }

    /// Goes on where a predecessor watched, if there was one.
    ///
    /// # Errors
    /// If its record is invalid.
    pub(in crate::input::device) fn load(
        toggle: Option<GrabToggle>,
        ledger: &Ledger,
    ) -> Result<Self, RecordError> {
        let mut watch = Self {
            toggle,
            ..Self::default()
        };
        let Some(toggle) = toggle else {
            return Ok(watch);
        };
        let left = ledger.read(CHORD, |value| {
            let (was_struck, lost_events) = (value.bool()?, value.bool()?);
            Ok((was_struck, lost_events, records::read_codes(value)?))
        })?;
        let Some(left) = left else {
            return Ok(watch);
        };
        (watch.was_struck, watch.lost_events, watch.keys) = left;
        watch.is_pressed = toggle.is_pressed(&watch.keys);
        Ok(watch)
    }

    /// Records what was seen of the chord.
    pub(in crate::input::device) fn put(&self, ledger: &Ledger) {
        let Some(toggle) = self.toggle else {
            return;
        };
        // Not the other keys: they would be written at each press.
        let of_chord = self.keys.and(&toggle.codes().iter().copied().collect());
        ledger.write(CHORD, |value| {
            value.bool(self.was_struck).bool(self.lost_events);
            value.bytes(of_chord.trimmed());
        });
    }

    /// Takes note of `events`, and removes those that a guest is never to see.
    pub(in crate::input::device) fn observe(&mut self, events: &mut Vec<Event>) {
        let Some(toggle) = self.toggle else {
            return;
        };
        for event in events.iter() {
            match (event.kind, event.code) {
                (EV_SYN, SYN_DROPPED) => self.lost_events = true,
                (EV_KEY, code) => {
                    self.keys.set(code, event.value != 0);
                    self.follow(toggle);
                }
                _ => {}
            }
        }
        events.retain(|event| !toggle.hides(event));
    }

    fn follow(&mut self, toggle: GrabToggle) {
        let is_pressed = toggle.is_pressed(&self.keys);
        self.was_struck |= is_pressed && !self.is_pressed;
        self.is_pressed = is_pressed;
    }

    /// Whether events were lost, so that [`Self::resync`] is needed.
    pub(in crate::input::device) fn lost_events(&self) -> bool {
        self.lost_events
    }

    /// The source is in `state`. A chord that is found pressed was struck when its events were lost, if they were.
    pub(in crate::input::device) fn resync(&mut self, state: &DeviceState) {
        let Some(toggle) = self.toggle else {
            return;
        };
        self.keys = state.keys;
        let struck = self.was_struck;
        self.follow(toggle);
        if !std::mem::take(&mut self.lost_events) {
            self.was_struck = struck;
        }
    }

    /// Removes from `state` what a guest is never to see.
    pub(in crate::input::device) fn hide(&self, state: &mut DeviceState) {
        if let Some(hidden) = self.toggle.and_then(GrabToggle::hidden) {
            state.keys.set(hidden, false);
        }
    }

    /// A key of the chord that is pressed, as far as is known.
    pub(in crate::input::device) fn pressed_key(&self) -> Option<KeyCode> {
        let mut codes = self.toggle?.codes().iter();
        codes
            .find(|code| self.keys.contains(**code))
            .copied()
            .map(KeyCode)
    }

    /// Whether the chord was struck since the last call.
    pub(in crate::input::device) fn take_struck(&mut self) -> bool {
        std::mem::take(&mut self.was_struck)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, value: i32) -> Event {
        Event::new(EV_KEY, code.0, value)
    }

    /// Whether these keys, pressed one after the other, are the chord.
    fn strikes(toggle: GrabToggle, keys: &[KeyCode]) -> bool {
        let mut watch = ChordWatch::new(Some(toggle));
        let mut events = keys.iter().map(|code| key(*code, 1)).collect();
        watch.observe(&mut events);
        watch.take_struck()
    }

    #[test]
    fn chords_are_those_of_qemu() {
        use GrabToggle as Toggle;
        use KeyCode as K;
        for (toggle, left, right) in [
            (Toggle::CtrlCtrl, K::KEY_LEFTCTRL, K::KEY_RIGHTCTRL),
            (Toggle::AltAlt, K::KEY_LEFTALT, K::KEY_RIGHTALT),
            (Toggle::ShiftShift, K::KEY_LEFTSHIFT, K::KEY_RIGHTSHIFT),
            (Toggle::MetaMeta, K::KEY_LEFTMETA, K::KEY_RIGHTMETA),
        ] {
            assert!(strikes(toggle, &[left, right]), "{toggle:?}");
            assert!(strikes(toggle, &[right, K::KEY_A, left]), "{toggle:?}");
            assert!(!strikes(toggle, &[left, left]), "{toggle:?}");
            assert!(!strikes(toggle, &[right, K::KEY_SCROLLLOCK]), "{toggle:?}");
        }
        assert!(strikes(Toggle::Scrolllock, &[K::KEY_SCROLLLOCK]));
        for ctrl in [K::KEY_LEFTCTRL, K::KEY_RIGHTCTRL] {
            assert!(strikes(Toggle::CtrlScrolllock, &[ctrl, K::KEY_SCROLLLOCK]));
            assert!(!strikes(Toggle::CtrlScrolllock, &[ctrl]));
            assert!(!strikes(Toggle::Scrolllock, &[ctrl]));
        }
        assert!(!strikes(Toggle::CtrlScrolllock, &[K::KEY_SCROLLLOCK]));
    }

    #[test]
    fn chord_is_struck_once_until_it_is_pressed_again() {
        let mut watch = ChordWatch::new(Some(GrabToggle::CtrlCtrl));
        let mut says = |code, value| {
            watch.observe(&mut vec![key(code, value)]);
            watch.take_struck()
        };
        assert!(!says(KeyCode::KEY_LEFTCTRL, 1));
        assert!(says(KeyCode::KEY_RIGHTCTRL, 1));
        for repeated in [KeyCode::KEY_LEFTCTRL, KeyCode::KEY_RIGHTCTRL] {
            assert!(!says(repeated, 2));
        }
        assert!(!says(KeyCode::KEY_LEFTCTRL, 0));
        assert!(says(KeyCode::KEY_LEFTCTRL, 1));
    }

    #[test]
    fn guest_never_sees_the_scroll_lock_of_a_chord() {
        let typed = [key(KeyCode::KEY_A, 1), key(KeyCode::KEY_SCROLLLOCK, 1)];
        let seen = |toggle| {
            let mut events = typed.to_vec();
            ChordWatch::new(toggle).observe(&mut events);
            events.len()
        };
        assert_eq!(seen(Some(GrabToggle::Scrolllock)), 1);
        assert_eq!(seen(Some(GrabToggle::CtrlScrolllock)), 1);
        assert_eq!(seen(Some(GrabToggle::CtrlCtrl)), 2);
        assert_eq!(seen(None), 2);
    }

    #[test]
    fn chord_is_found_in_the_state_if_its_events_were_lost() {
        let mut pressed = DeviceState::new(0);
        pressed.keys = CTRLS.into_iter().collect();
        let mut watch = ChordWatch::new(Some(GrabToggle::CtrlCtrl));
        // Held from before: nobody struck it for this program.
        watch.resync(&pressed);
        assert!(!watch.take_struck());
        watch.resync(&DeviceState::new(0));
        watch.observe(&mut vec![Event::new(EV_SYN, SYN_DROPPED, 0)]);
        assert!(watch.lost_events());
        watch.resync(&pressed);
        assert!(watch.take_struck() && !watch.lost_events());
    }
}
