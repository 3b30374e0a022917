// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The keyboard: which keys which viewers press, and the reports that tell the device.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use evdev::KeyCode;

use super::held::Held;
use super::key_set::KeySet;
use super::keyboard_layout::{KeyboardLayout, Modifiers, Stroke};
use super::led_state::LedState;
use super::viewer_id::ViewerId;
use crate::evdev_event::Event;

const SHIFTS: [u16; 2] = [KeyCode::KEY_LEFTSHIFT.0, KeyCode::KEY_RIGHTSHIFT.0];
const ALT_GR: u16 = KeyCode::KEY_RIGHTALT.0;
/// How long a guest may take to answer a lock key with its LED. Until then the key is taken to have done its work.
const LED_DELAY: Duration = Duration::from_secs(1);

/// What a viewer presses.
#[derive(Debug, Default)]
struct Pressed {
    keys: KeySet,
    /// For keys that were pressed by keysym, that keysym: at most one a key. Its release may come when the layout would
    /// find another key, because modifiers changed.
    keysyms: BTreeMap<u16, u32>,
}

impl Pressed {
    fn key_of(&self, keysym: u32) -> Option<u16> {
        let mut pressed = self.keysyms.iter();
        pressed.find_map(|(key, by)| (*by == keysym).then_some(*key))
    }
}

/// A lock key that was pressed just now.
#[derive(Clone, Copy, Debug)]
struct ExpectedLeds {
    leds: LedState,
    until: Instant,
}

/// The keyboard that all viewers type on.
#[derive(Debug)]
pub(super) struct Keyboard {
    layout: KeyboardLayout,
    viewers: BTreeMap<ViewerId, Pressed>,
    leds: LedState,
    expected: Option<ExpectedLeds>,
}

impl Keyboard {
    pub(super) fn new(layout: KeyboardLayout) -> Self {
        Self {
            layout,
            viewers: BTreeMap::new(),
            leds: LedState::default(),
            expected: None,
        }
    }

    /// What is pressed by any viewer.
    pub(super) fn held(&self) -> Held {
        let mut held = Held::default();
        for viewer in self.viewers.values() {
            held.keys.insert_all(&viewer.keys);
        }
        held
    }

    /// The guest's LEDs are these now.
    pub(super) fn set_leds(&mut self, leds: LedState) {
        self.leds = leds;
        self.expected = None;
    }

    /// A viewer pressed or released the key `key`. Returns the reports for the device.
    pub(super) fn key(
        &mut self,
        viewer: ViewerId,
        key: u16,
        down: bool,
        now: Instant,
    ) -> Vec<Vec<Event>> {
        if !is_on_keyboard(key) {
            return Vec::new();
        }
        if down {
            let stroke = Stroke {
                key,
                modifiers: None,
            };
            self.press(viewer, stroke, None, now)
        } else {
            self.release_key(viewer, key)
        }
    }

    /// A viewer pressed or released a key that types `keysym` for it. Returns the reports for the device, with those for
    /// modifiers that the guest needs to type the same; none if the layout has no key for it.
    pub(super) fn keysym(
        &mut self,
        viewer: ViewerId,
        keysym: u32,
        down: bool,
        now: Instant,
    ) -> Vec<Vec<Event>> {
        let pressed = self
            .viewers
            .get(&viewer)
            .and_then(|pressed| pressed.key_of(keysym));
        let stroke = || self.layout.stroke(keysym, self.modifiers(now));
        match (down, pressed) {
            // Repeated: the guest does that itself.
            (true, Some(_)) => Vec::new(),
            (true, None) => match stroke().filter(|stroke| is_on_keyboard(stroke.key)) {
                Some(stroke) => self.press(viewer, stroke, Some(keysym), now),
                None => Vec::new(),
            },
            (false, Some(key)) => self.release_key(viewer, key),
            (false, None) => match stroke() {
                Some(stroke) => self.release_key(viewer, stroke.key),
                None => Vec::new(),
            },
        }
    }

    /// A viewer left. Returns the reports that release what only this one pressed.
    pub(super) fn release(&mut self, viewer: ViewerId) -> Vec<Vec<Event>> {
        let before = self.held();
        self.viewers.remove(&viewer);
        before.changes_to(&self.held())
    }

    fn press(
        &mut self,
        viewer: ViewerId,
        stroke: Stroke,
        keysym: Option<u32>,
        now: Instant,
    ) -> Vec<Vec<Event>> {
        let before = self.held();
        let pressed = self.viewers.entry(viewer).or_default();
        pressed.keys.insert(stroke.key);
        if let Some(keysym) = keysym {
            pressed.keysyms.insert(stroke.key, keysym);
        }
        if before.keys.contains(stroke.key) {
            return Vec::new();
        }
        self.expect_lock(stroke.key, now);
        let changed = self.modifiers_to_change(&before.keys, stroke);
        let mut reports: Vec<_> = changed
            .iter()
            .map(|(key, down)| report(*key, *down))
            .collect();
        reports.push(report(stroke.key, true));
        // The viewers' keys count again at once: another one may type with them.
        reports.extend(changed.iter().rev().map(|(key, down)| report(*key, !down)));
        reports
    }

    fn release_key(&mut self, viewer: ViewerId, key: u16) -> Vec<Vec<Event>> {
        let before = self.held();
        if let Some(pressed) = self.viewers.get_mut(&viewer) {
            pressed.keys.remove(key);
            pressed.keysyms.remove(&key);
        }
        before.changes_to(&self.held())
    }

    /// The modifiers to press (`true`) or release around `stroke`.
    fn modifiers_to_change(&self, pressed: &KeySet, stroke: Stroke) -> Vec<(u16, bool)> {
        let Some((shift, alt_gr)) = stroke.modifiers else {
            return Vec::new();
        };
        let mut changed = Vec::new();
        let mut shifts = SHIFTS
            .into_iter()
            .filter(|key| pressed.contains(*key))
            .peekable();
        if shift && shifts.peek().is_none() {
            changed.push((KeyCode::KEY_LEFTSHIFT.0, true));
        }
        if !shift {
            changed.extend(shifts.map(|key| (key, false)));
        }
        if self.layout.has_alt_gr() && alt_gr != pressed.contains(ALT_GR) {
            changed.push((ALT_GR, alt_gr));
        }
        changed
    }

    /// What chooses the characters in the guest now.
    fn modifiers(&self, now: Instant) -> Modifiers {
        let keys = self.held().keys;
        let leds = self.leds_at(now);
        Modifiers {
            shift: SHIFTS.into_iter().any(|key| keys.contains(key)),
            alt_gr: self.layout.has_alt_gr() && keys.contains(ALT_GR),
            caps_lock: leds.caps_lock,
            num_lock: leds.num_lock,
        }
    }

    fn leds_at(&self, now: Instant) -> LedState {
        let expected = self.expected.filter(|expected| now < expected.until);
        expected.map_or(self.leds, |expected| expected.leds)
    }

    /// A lock key was pressed: what is typed before the guest answers counts with it.
    fn expect_lock(&mut self, key: u16, now: Instant) {
        let mut leds = self.leds_at(now);
        match KeyCode(key) {
            KeyCode::KEY_CAPSLOCK => leds.caps_lock = !leds.caps_lock,
            KeyCode::KEY_NUMLOCK => leds.num_lock = !leds.num_lock,
            _ => return,
        }
        self.expected = now
            .checked_add(LED_DELAY)
            .map(|until| ExpectedLeds { leds, until });
    }
}

fn report(key: u16, down: bool) -> Vec<Event> {
    vec![Event::key(key, down), Event::REPORT]
}

/// Whether `vhost-user-input --virtual=keyboard` has the key. It closes connections that send others.
fn is_on_keyboard(key: u16) -> bool {
    (KeyCode::KEY_ESC.0..=KeyCode::KEY_MICMUTE.0).contains(&key)
}

#[cfg(test)]
mod tests;
