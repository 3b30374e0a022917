// SPDX-License-Identifier: Apache-2.0 OR MIT

use xkeysym::key;

use super::*;

const A: ViewerId = ViewerId(1);
const B: ViewerId = ViewerId(2);
const LEFT_SHIFT: u16 = KeyCode::KEY_LEFTSHIFT.0;
const RIGHT_SHIFT: u16 = KeyCode::KEY_RIGHTSHIFT.0;
const KEY_A: u16 = KeyCode::KEY_A.0;

struct Typist {
    keyboard: Keyboard,
    now: Instant,
}

impl Typist {
    fn new() -> Self {
        Self::with(KeyboardLayout::us())
    }

    fn with(layout: KeyboardLayout) -> Self {
        Self {
            keyboard: Keyboard::new(layout),
            now: Instant::now(),
        }
    }

    /// The events of viewer A's key, without the ends of the reports; `true` for a press.
    fn keysym(&mut self, keysym: u32, down: bool) -> Vec<(u16, bool)> {
        keys(self.keyboard.keysym(A, keysym, down, self.now))
    }

    fn key(&mut self, viewer: ViewerId, key: u16, down: bool) -> Vec<(u16, bool)> {
        keys(self.keyboard.key(viewer, key, down, self.now))
    }
}

/// The keys of reports that consist of one key each.
fn keys(reports: Vec<Vec<Event>>) -> Vec<(u16, bool)> {
    let key = |report: Vec<Event>| {
        assert_eq!(
            (report.len(), report.last()),
            (2, Some(&Event::REPORT)),
            "{report:?}"
        );
        (report[0].code, report[0].value != 0)
    };
    reports.into_iter().map(key).collect()
}

#[test]
fn key_that_repeats_is_sent_once() {
    let mut typist = Typist::new();
    assert_eq!(typist.key(A, KEY_A, true), [(KEY_A, true)]);
    assert_eq!(typist.key(A, KEY_A, true), []);
    assert_eq!(typist.key(A, KEY_A, false), [(KEY_A, false)]);
    assert_eq!(typist.key(A, KEY_A, false), []);
    assert_eq!(typist.keysym(key::a, true), [(KEY_A, true)]);
    assert_eq!(typist.keysym(key::a, true), []);
    assert_eq!(typist.keysym(key::a, false), [(KEY_A, false)]);
    assert_eq!(typist.keysym(key::a, false), []);
}

#[test]
fn key_is_pressed_while_any_viewer_presses_it() {
    let mut typist = Typist::new();
    typist.key(A, KEY_A, true);
    assert_eq!(typist.key(B, KEY_A, true), []);
    assert_eq!(typist.key(A, KEY_A, false), []);
    typist.key(B, RIGHT_SHIFT, true);
    let released = typist.keyboard.release(B);
    let expected = [
        Event::key(KEY_A, false),
        Event::key(RIGHT_SHIFT, false),
        Event::REPORT,
    ];
    assert_eq!(released, [expected]);
    assert_eq!(typist.keyboard.held(), Held::default());
}

#[test]
fn viewer_without_shift_gets_it_for_the_key() {
    let mut typist = Typist::new();
    let expected = [(LEFT_SHIFT, true), (KEY_A, true), (LEFT_SHIFT, false)];
    assert_eq!(typist.keysym(key::A, true), expected);
    assert_eq!(typist.keysym(key::A, false), [(KEY_A, false)]);
}

#[test]
fn viewer_with_shift_gets_it_away_for_the_key() {
    let mut typist = Typist::new();
    typist.key(A, LEFT_SHIFT, true);
    typist.key(B, RIGHT_SHIFT, true);
    let expected = [
        (LEFT_SHIFT, false),
        (RIGHT_SHIFT, false),
        (KEY_A, true),
        (RIGHT_SHIFT, true),
        (LEFT_SHIFT, true),
    ];
    assert_eq!(typist.keysym(key::a, true), expected);
    // The viewers still hold them.
    let held = typist.keyboard.held().keys;
    assert!(held.contains(LEFT_SHIFT) && held.contains(RIGHT_SHIFT));
}

#[test]
fn usual_viewer_needs_no_more_than_it_sends() {
    let mut typist = Typist::new();
    assert_eq!(typist.keysym(key::Shift_R, true), [(RIGHT_SHIFT, true)]);
    assert_eq!(typist.keysym(key::A, true), [(KEY_A, true)]);
    // The release of the letter comes after that of Shift, with another keysym.
    assert_eq!(typist.keysym(key::Shift_R, false), [(RIGHT_SHIFT, false)]);
    assert_eq!(typist.keysym(key::a, false), [(KEY_A, false)]);
}

#[test]
fn caps_lock_counts_at_once_and_the_guest_corrects_it() {
    let mut typist = Typist::new();
    typist.keysym(key::Caps_Lock, true);
    typist.keysym(key::Caps_Lock, false);
    // The guest has not answered yet.
    assert_eq!(typist.keysym(key::A, true), [(KEY_A, true)]);
    typist.keysym(key::A, false);
    let caps = LedState {
        caps_lock: true,
        ..LedState::default()
    };
    typist.keyboard.set_leds(caps);
    assert_eq!(typist.keysym(key::A, true), [(KEY_A, true)]);
    typist.keysym(key::A, false);
    let shifted = [(LEFT_SHIFT, true), (KEY_A, true), (LEFT_SHIFT, false)];
    assert_eq!(typist.keysym(key::a, true), shifted);
    typist.keysym(key::a, false);
    // A guest in which the key does something else never answers.
    typist.keysym(key::Caps_Lock, true);
    typist.now += LED_DELAY;
    assert_eq!(typist.keysym(key::A, true), [(KEY_A, true)]);
}

#[test]
fn unknown_keys_do_nothing() {
    let mut typist = Typist::new();
    for keysym in [0, key::eacute, u32::MAX, key::F25] {
        assert_eq!(typist.keysym(keysym, true), []);
        assert_eq!(typist.keysym(keysym, false), []);
    }
    for key in [0, 249, 0x110, 767, u16::MAX] {
        assert_eq!(typist.key(A, key, true), []);
    }
    assert_eq!(typist.keyboard.held(), Held::default());
}

/// The layout comes from the system's libxkbcommon and xkb-data.
mod of_the_system {
    use super::*;

    #[test]
    fn alt_gr_is_pressed_where_the_layout_needs_it() {
        let mut typist = Typist::with(KeyboardLayout::load("de").unwrap());
        let q = KeyCode::KEY_Q.0;
        let expected = [(ALT_GR, true), (q, true), (ALT_GR, false)];
        assert_eq!(typist.keysym(key::at, true), expected);
        assert_eq!(typist.keysym(key::at, false), [(q, false)]);
        assert_eq!(typist.keysym(key::ISO_Level3_Shift, true), [(ALT_GR, true)]);
        assert_eq!(typist.keysym(key::at, true), [(q, true)]);
        assert_eq!(typist.keysym(key::at, false), [(q, false)]);
        let expected = [(ALT_GR, false), (q, true), (ALT_GR, true)];
        assert_eq!(typist.keysym(key::q, true), expected);
    }
}
