// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The devices that there are without hardware, as their drivers see them.

use evdev::{AbsoluteAxisCode, BusType, KeyCode, LedCode, RelativeAxisCode};

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{
    EV_ABS, EV_KEY, EV_LED, EV_REL, EV_REP, REP_DELAY, REP_PERIOD,
};
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

/// The greatest value of the tablet's axes; the least is 0.
const MAX_POSITION: i32 = 32767;

/// A device without hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VirtualDevice {
    /// A PC's keyboard with multimedia keys and three LEDs.
    Keyboard,
    /// An absolute pointer with five buttons and two wheels.
    Tablet,
}

impl VirtualDevice {
    /// The device as its driver sees it.
    pub(super) fn info(self) -> DeviceInfo {
        match self {
            Self::Keyboard => keyboard(),
            Self::Tablet => tablet(),
        }
    }

    /// What messages call it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Keyboard => "the virtual keyboard",
            Self::Tablet => "the virtual tablet",
        }
    }
}

fn ids(product: u16) -> DevIds {
    DevIds {
        bus: BusType::BUS_VIRTUAL.0,
        vendor: 0,
        product,
        version: 1,
    }
}

fn keyboard() -> DeviceInfo {
    // Every code up to the last one of a media keyboard, but for those without a name (linux/input-event-codes.h).
    let is_key = |code: &u16| *code != 84 && !(195..=199).contains(code);
    let keys = KeyCode::KEY_ESC.0..=KeyCode::KEY_MICMUTE.0;
    let leds = [LedCode::LED_NUML, LedCode::LED_CAPSL, LedCode::LED_SCROLLL];
    let mut info = DeviceInfo {
        name: "vhost-user keyboard".to_owned(),
        ids: ids(1),
        ..DeviceInfo::default()
    };
    info.codes.insert(EV_KEY, keys.filter(is_key).collect());
    info.codes
        .insert(EV_LED, leds.map(|led| led.0).into_iter().collect());
    // The guest repeats keys itself.
    info.codes
        .insert(EV_REP, [REP_DELAY, REP_PERIOD].into_iter().collect());
    info
}

fn tablet() -> DeviceInfo {
    let buttons = [
        KeyCode::BTN_LEFT,
        KeyCode::BTN_RIGHT,
        KeyCode::BTN_MIDDLE,
        KeyCode::BTN_SIDE,
        KeyCode::BTN_EXTRA,
    ];
    let wheels = [
        RelativeAxisCode::REL_WHEEL,
        RelativeAxisCode::REL_HWHEEL,
        RelativeAxisCode::REL_WHEEL_HI_RES,
        RelativeAxisCode::REL_HWHEEL_HI_RES,
    ];
    let axes = [AbsoluteAxisCode::ABS_X, AbsoluteAxisCode::ABS_Y];
    let range = AbsInfo {
        max: MAX_POSITION,
        ..AbsInfo::default()
    };
    let codes: [(u16, Bitmap); 3] = [
        (EV_KEY, buttons.map(|button| button.0).into_iter().collect()),
        (EV_REL, wheels.map(|wheel| wheel.0).into_iter().collect()),
        (EV_ABS, axes.map(|axis| axis.0).into_iter().collect()),
    ];
    DeviceInfo {
        name: "vhost-user tablet".to_owned(),
        ids: ids(2),
        axes: axes.map(|axis| (axis.0, range)).into_iter().collect(),
        codes: codes.into_iter().collect(),
        ..DeviceInfo::default()
    }
}
