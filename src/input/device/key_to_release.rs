// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The key that delays the hand-over to a guest: the host has to see its release first.

use std::ops::Range;

use evdev::KeyCode;

use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::event_codes::EV_REP;

/// The codes of mouse buttons, named or not. Those of joysticks follow.
const MOUSE_BUTTONS: Range<u16> = KeyCode::BTN_LEFT.0..KeyCode::BTN_TRIGGER.0;
/// The codes of buttons (`BTN_*`), among those of keys (`KEY_*`).
const BUTTONS: [Range<u16>; 3] = [
    KeyCode::BTN_0.0..KeyCode::KEY_OK.0,
    KeyCode::BTN_DPAD_UP.0..KeyCode::BTN_DPAD_RIGHT.0 + 1,
    KeyCode::BTN_TRIGGER_HAPPY1.0..KEY_CNT,
];
const KEY_CNT: u16 = 0x300;

/// The pressed key in `state` that would take effect on the host for ever if the host never saw its
/// release: a key of a device with autorepeat, which the host repeats, or a mouse button, with which it
/// drags. A wait for other keys might not end: a switch of a joystick or a pen on a tablet may stay
/// pressed.
pub(super) fn key_the_host_waits_for(state: &DeviceState, info: &DeviceInfo) -> Option<KeyCode> {
    let repeats = info.codes(EV_REP).is_some();
    let is_key = |code: u16| !BUTTONS.iter().any(|buttons| buttons.contains(&code));
    let lasts = |code: &u16| MOUSE_BUTTONS.contains(code) || (repeats && is_key(*code));
    state.keys.iter().find(lasts).map(KeyCode)
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::EV_KEY;

    use super::*;

    fn waits(code: u16, repeats: bool) -> bool {
        let mut device = DeviceInfo::default();
        device.codes.insert(EV_KEY, (0..KEY_CNT).collect());
        if repeats {
            device.codes.insert(EV_REP, [0, 1].into_iter().collect());
        }
        let mut state = DeviceState::new(0);
        state.keys.set(code, true);
        key_the_host_waits_for(&state, &device) == Some(KeyCode(code))
    }

    #[test]
    fn keys_with_autorepeat_are_waited_for() {
        for key in [
            KeyCode::KEY_ESC,
            KeyCode::KEY_MICMUTE,
            KeyCode::KEY_OK,
            KeyCode::KEY_NUMERIC_0,
            KeyCode::KEY_ALS_TOGGLE,
            // KEY_MACRO1, on a keyboard.
            KeyCode(0x290),
        ] {
            assert!(waits(key.0, true), "{key:?}");
            assert!(!waits(key.0, false), "{key:?}");
        }
    }

    #[test]
    fn mouse_buttons_are_waited_for() {
        for code in 0x110..=0x11f {
            assert!(waits(code, false) && waits(code, true), "{code:#x}");
        }
    }

    #[test]
    fn other_buttons_are_not_waited_for() {
        let stay = [
            // BTN_0 to BTN_9; joysticks and gamepads; pens, pucks and touches; wheels and gears.
            0x100..0x10a,
            0x120..0x160,
            // BTN_DPAD_*, and the buttons 17 to 80 of a joystick.
            0x220..0x224,
            0x2c0..0x300,
        ];
        for code in stay.into_iter().flatten() {
            assert!(!waits(code, false) && !waits(code, true), "{code:#x}");
        }
        // KEY_MACRO1 to 30: on a joystick, its buttons from 81 on.
        for code in 0x290..0x2ae {
            assert!(!waits(code, false), "{code:#x}");
        }
    }
}
