// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The kinds of input devices.

use std::fmt;

use serde::Serialize;

/// What an input device is, by udev's classification (`ID_INPUT_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum InputKind {
    Keyboard,
    /// A few keys, such as a power button.
    Button,
    Mouse,
    PointingStick,
    Trackball,
    Touchpad,
    Touchscreen,
    Tablet,
    /// The buttons on a tablet.
    TabletPad,
    Joystick,
    /// A lid, a dock, a plug.
    Switch,
    Accelerometer,
    /// An input device without a kind in udev, such as a beeper.
    Other,
}

impl InputKind {
    /// Whether a guest can use it: it has keys, buttons or axes to move.
    pub(crate) fn is_for_guests(self) -> bool {
        !matches!(self, Self::Switch | Self::Accelerometer | Self::Other)
    }

    /// Whether it moves a pointer.
    pub(crate) fn points(self) -> bool {
        match self {
            Self::Mouse
            | Self::PointingStick
            | Self::Trackball
            | Self::Touchpad
            | Self::Touchscreen
            | Self::Tablet => true,
            Self::Keyboard
            | Self::Button
            | Self::TabletPad
            | Self::Joystick
            | Self::Switch
            | Self::Accelerometer
            | Self::Other => false,
        }
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Self::Keyboard => "keyboard",
            Self::Button => "button",
            Self::Mouse => "mouse",
            Self::PointingStick => "pointing-stick",
            Self::Trackball => "trackball",
            Self::Touchpad => "touchpad",
            Self::Touchscreen => "touchscreen",
            Self::Tablet => "tablet",
            Self::TabletPad => "tablet-pad",
            Self::Joystick => "joystick",
            Self::Switch => "switch",
            Self::Accelerometer => "accelerometer",
            Self::Other => "other",
        })
    }
}

/// Reads udev's classification. A more specific kind replaces a general one.
pub(super) fn kinds(is: impl Fn(&str) -> bool) -> Vec<InputKind> {
    let keyboard = is("ID_INPUT_KEYBOARD");
    let stick = is("ID_INPUT_POINTINGSTICK");
    let trackball = is("ID_INPUT_TRACKBALL");
    let pad = is("ID_INPUT_TABLET_PAD");
    let mouse = is("ID_INPUT_MOUSE") && !stick && !trackball;
    let tablet = is("ID_INPUT_TABLET") && !pad;
    let mut kinds: Vec<_> = [
        (keyboard, InputKind::Keyboard),
        (mouse, InputKind::Mouse),
        (stick, InputKind::PointingStick),
        (trackball, InputKind::Trackball),
        (is("ID_INPUT_TOUCHPAD"), InputKind::Touchpad),
        (is("ID_INPUT_TOUCHSCREEN"), InputKind::Touchscreen),
        (tablet, InputKind::Tablet),
        (pad, InputKind::TabletPad),
        (is("ID_INPUT_JOYSTICK"), InputKind::Joystick),
        (is("ID_INPUT_SWITCH"), InputKind::Switch),
        (is("ID_INPUT_ACCELEROMETER"), InputKind::Accelerometer),
    ]
    .into_iter()
    .filter_map(|(is, kind)| is.then_some(kind))
    .collect();
    if kinds.is_empty() {
        // Many a mouse or switch has a key or two as well; here there is nothing else.
        kinds.push(if is("ID_INPUT_KEY") {
            InputKind::Button
        } else {
            InputKind::Other
        });
    }
    kinds
}
