//! Keys and buttons that are held while a guest is to get the device: which of them it waits for, and
//! a log message where that takes long.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use evdev::KeyCode;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::super::source::Description;
use super::super::state::State;
use super::super::wire::code::EV_REP;

/// A wait longer than this is logged.
const LONG: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
const NEVER: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// Where Linux numbers the buttons of mice, named or not. Those of joysticks follow.
const MOUSE_BUTTONS: std::ops::Range<u16> = KeyCode::BTN_LEFT.0..KeyCode::BTN_TRIGGER.0;
/// Where Linux numbers buttons (`BTN_*`), among keys (`KEY_*`).
const BUTTONS: [std::ops::Range<u16>; 3] = [
    KeyCode::BTN_0.0..KeyCode::KEY_OK.0,
    KeyCode::BTN_DPAD_UP.0..KeyCode::BTN_DPAD_RIGHT.0 + 1,
    KeyCode::BTN_TRIGGER_HAPPY1.0..KEY_CNT,
];
const KEY_CNT: u16 = 0x300;

/// The key in `state` that the host would go on with for ever if it never saw its release: it repeats
/// the keys of a device that repeats, and drags with a mouse button. All else that can be held may stay
/// so, such as a switch of a joystick or a pen on its tablet, and a wait for it would not end.
pub fn held(state: &State, device: &Description) -> Option<KeyCode> {
    let repeats = device.codes(EV_REP).is_some();
    let is_key = |code: u16| !BUTTONS.iter().any(|buttons| buttons.contains(&code));
    let goes_on = |code: &u16| MOUSE_BUTTONS.contains(code) || (repeats && is_key(*code));
    state.keys.iter().find(goes_on).map(KeyCode)
}

/// A timer for the log message.
#[derive(Debug)]
pub struct LongWait(OwnedFd);

impl LongWait {
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        Ok(Self(timerfd_create(TimerfdClockId::Monotonic, flags)?))
    }

    /// A wait begins now.
    pub fn begin(&self) -> io::Result<()> {
        self.set(LONG)
    }

    /// The wait is over.
    pub fn end(&self) -> io::Result<()> {
        self.set(NEVER)
    }

    /// Whether it has been long since this was asked last.
    pub fn is_long(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }

    fn set(&self, value: Timespec) -> io::Result<()> {
        let once = Itimerspec {
            it_interval: NEVER,
            it_value: value,
        };
        timerfd_settime(&self.0, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

impl AsFd for LongWait {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::code::EV_KEY;
    use super::*;

    fn waits(code: u16, repeats: bool) -> bool {
        let mut device = Description::default();
        device.codes.insert(EV_KEY, (0..KEY_CNT).collect());
        if repeats {
            device.codes.insert(EV_REP, [0, 1].into_iter().collect());
        }
        let mut state = State::new(0);
        state.keys.set(code, true);
        held(&state, &device) == Some(KeyCode(code))
    }

    #[test]
    fn keys_are_waited_for_where_they_repeat() {
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
    fn what_may_stay_held_is_not_waited_for() {
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
