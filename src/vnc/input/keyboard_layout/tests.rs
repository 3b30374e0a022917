// SPDX-License-Identifier: Apache-2.0 OR MIT

use evdev::KeyCode;
use xkeysym::key;

use super::*;

const PLAIN: Modifiers = Modifiers {
    shift: false,
    alt_gr: false,
    caps_lock: false,
    num_lock: false,
};
const SHIFT: Modifiers = Modifiers {
    shift: true,
    ..PLAIN
};
const CAPS: Modifiers = Modifiers {
    caps_lock: true,
    ..PLAIN
};
const NUM: Modifiers = Modifiers {
    num_lock: true,
    ..PLAIN
};

fn stroke(key: KeyCode, shift: bool, alt_gr: bool) -> Option<Stroke> {
    Some(Stroke {
        key: key.0,
        modifiers: Some((shift, alt_gr)),
    })
}

fn any(key: KeyCode) -> Option<Stroke> {
    Some(Stroke {
        key: key.0,
        modifiers: None,
    })
}

#[test]
fn character_has_its_key_and_modifiers() {
    let us = KeyboardLayout::us();
    for now in [PLAIN, SHIFT] {
        assert_eq!(us.stroke(key::a, now), stroke(KeyCode::KEY_A, false, false));
        assert_eq!(us.stroke(key::A, now), stroke(KeyCode::KEY_A, true, false));
        assert_eq!(us.stroke(key::at, now), stroke(KeyCode::KEY_2, true, false));
    }
    assert_eq!(
        us.stroke(key::A, CAPS),
        stroke(KeyCode::KEY_A, false, false)
    );
    assert_eq!(us.stroke(key::a, CAPS), stroke(KeyCode::KEY_A, true, false));
    assert_eq!(
        us.stroke(key::at, CAPS),
        stroke(KeyCode::KEY_2, true, false)
    );
    assert_eq!(
        us.stroke(UNICODE | u32::from('A'), PLAIN),
        stroke(KeyCode::KEY_A, true, false)
    );
    assert_eq!(us.stroke(key::eacute, PLAIN), None);
    assert!(!us.has_alt_gr());
}

#[test]
fn other_keys_leave_modifiers_alone() {
    let us = KeyboardLayout::us();
    for now in [PLAIN, SHIFT, CAPS, NUM] {
        assert_eq!(us.stroke(key::Tab, now), any(KeyCode::KEY_TAB));
        assert_eq!(us.stroke(key::ISO_Left_Tab, now), any(KeyCode::KEY_TAB));
        assert_eq!(us.stroke(key::F12, now), any(KeyCode::KEY_F12));
        assert_eq!(us.stroke(key::Shift_L, now), any(KeyCode::KEY_LEFTSHIFT));
        assert_eq!(us.stroke(key::KP_Enter, now), any(KeyCode::KEY_KPENTER));
    }
}

#[test]
fn keypad_types_what_was_meant_whatever_num_lock_is() {
    let us = KeyboardLayout::us();
    assert_eq!(us.stroke(key::KP_7, NUM), any(KeyCode::KEY_KP7));
    assert_eq!(
        us.stroke(key::KP_7, PLAIN),
        stroke(KeyCode::KEY_7, false, false)
    );
    assert_eq!(us.stroke(key::KP_Home, PLAIN), any(KeyCode::KEY_KP7));
    assert_eq!(us.stroke(key::KP_Home, NUM), any(KeyCode::KEY_HOME));
    assert_eq!(us.stroke(key::KP_Begin, NUM), None);
    assert_eq!(
        us.stroke(key::KP_Decimal, PLAIN),
        stroke(KeyCode::KEY_DOT, false, false)
    );
}

#[test]
fn names_are_checked() {
    assert_eq!(parse_name("de"), Some(("de", "")));
    assert_eq!(parse_name("de(nodeadkeys)"), Some(("de", "nodeadkeys")));
    for name in [
        "",
        "(x)",
        "de(",
        "de()",
        "de(x",
        "de(x)y",
        "us,de",
        "../../etc",
        "de\0",
        "ä",
    ] {
        let error = KeyboardLayout::load(name).expect_err(name);
        assert!(matches!(error, LayoutError::Syntax(_)), "{name}: {error}");
    }
    let long = "a".repeat(65);
    assert!(KeyboardLayout::load(&long).is_err());
}

/// The other layouts come from the system's libxkbcommon and xkb-data.
mod of_the_system {
    use super::*;

    #[test]
    fn german_needs_alt_gr_for_at() {
        let de = KeyboardLayout::load("de").unwrap();
        assert!(de.has_alt_gr());
        assert_eq!(
            de.stroke(key::at, PLAIN),
            stroke(KeyCode::KEY_Q, false, true)
        );
        assert_eq!(
            de.stroke(key::z, PLAIN),
            stroke(KeyCode::KEY_Y, false, false)
        );
        assert_eq!(
            de.stroke(key::Adiaeresis, PLAIN),
            stroke(KeyCode::KEY_APOSTROPHE, true, false)
        );
        assert_eq!(
            de.stroke(key::Adiaeresis, CAPS),
            stroke(KeyCode::KEY_APOSTROPHE, false, false)
        );
        assert_eq!(
            de.stroke(UNICODE | u32::from('ä'), PLAIN),
            de.stroke(key::adiaeresis, PLAIN)
        );
        assert_eq!(
            de.stroke(UNICODE | u32::from('€'), PLAIN),
            de.stroke(key::EuroSign, PLAIN)
        );
        assert_eq!(
            de.stroke(key::EuroSign, PLAIN),
            stroke(KeyCode::KEY_E, false, true)
        );
        assert_eq!(
            de.stroke(key::dead_acute, PLAIN),
            stroke(KeyCode::KEY_EQUAL, false, false)
        );
        assert_eq!(de.stroke(key::KP_Decimal, NUM), any(KeyCode::KEY_KPDOT));
        assert_eq!(
            de.stroke(key::less, PLAIN),
            stroke(KeyCode::KEY_102ND, false, false)
        );
        assert_eq!(
            de.stroke(key::parenleft, PLAIN),
            stroke(KeyCode::KEY_8, true, false)
        );
        let plain = KeyboardLayout::load("de(nodeadkeys)").unwrap();
        assert_eq!(
            plain.stroke(key::acute, PLAIN),
            stroke(KeyCode::KEY_EQUAL, false, false)
        );
    }

    /// Digits are shifted there, and the keypad's have to become them.
    #[test]
    fn french_digits_are_shifted() {
        let fr = KeyboardLayout::load("fr").unwrap();
        assert_eq!(
            fr.stroke(key::_7, PLAIN),
            stroke(KeyCode::KEY_7, true, false)
        );
        assert_eq!(
            fr.stroke(key::KP_7, PLAIN),
            stroke(KeyCode::KEY_7, true, false)
        );
        assert_eq!(
            fr.stroke(key::a, PLAIN),
            stroke(KeyCode::KEY_Q, false, false)
        );
    }

    #[test]
    fn russian_is_found_by_keysym_and_by_character() {
        let ru = KeyboardLayout::load("ru").unwrap();
        let expected = stroke(KeyCode::KEY_F, false, false);
        assert_eq!(ru.stroke(key::Cyrillic_a, PLAIN), expected);
        assert_eq!(ru.stroke(UNICODE | u32::from('а'), PLAIN), expected);
    }

    #[test]
    fn built_in_layout_is_that_of_the_system() {
        let system = XkbKeymap::load("us", "us", "").unwrap();
        assert!(!system.has_alt_gr());
        let mut characters = 0;
        for key in KEYS.into_iter().flatten() {
            for modifiers in Modifiers::all(false) {
                let Some(keysym) = us_layout::keysym(key, modifiers) else {
                    continue;
                };
                assert_eq!(
                    system.keysym(key, modifiers),
                    Some(keysym),
                    "{key} {modifiers:?}"
                );
                characters += 1;
            }
        }
        assert_eq!(characters, 47 * 8);
        // Nothing is missing but what is the same on every layout, and what no US keyboard has.
        let us = KeyboardLayout::us();
        for keysym in 0x20..0x7f {
            assert!(us.stroke(keysym, PLAIN).is_some(), "{keysym:#x}");
        }
    }

    /// Every key that X knows and that types no character is found by its keysym.
    #[test]
    fn function_keys_are_those_of_the_system() {
        let system = XkbKeymap::load("us", "us", "").unwrap();
        let mut found = 0;
        // X's keys for modifiers that no key has (84, 195 to 199) are no keys of Linux.
        for key in (1..=247).filter(|key| *key != 84 && !(195..=199).contains(key)) {
            let Some(keysym) = system.keysym(key, Modifiers::default()) else {
                continue;
            };
            let keypad = keypad_key(keysym);
            let ours = key_of_function_keysym(keysym).or(keypad.map(|keypad| keypad.key.0));
            let Some(ours) = ours else { continue };
            found += 1;
            let modifiers = Modifiers {
                num_lock: keypad.is_some_and(|keypad| keypad.with_num_lock),
                ..PLAIN
            };
            // Several keys may have the same keysym: then any of them will do.
            let theirs = system.keysym(ours, modifiers);
            assert_eq!(theirs, Some(keysym), "{key} is {keysym:#x}, ours is {ours}");
        }
        assert!(found > 100, "{found}");
    }

    #[test]
    fn unknown_layout_is_an_error() {
        for name in ["nosuchlayout", "de(nosuchvariant)"] {
            let error = KeyboardLayout::load(name).expect_err(name);
            assert!(matches!(error, LayoutError::Unknown(_)), "{name}: {error}");
        }
    }
}
