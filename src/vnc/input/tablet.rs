// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The pointer, as an absolute one: a tablet with buttons and wheels.

use std::collections::BTreeMap;

use evdev::{KeyCode, RelativeAxisCode};

use super::held::Held;
use super::key_set::KeySet;
use super::viewer_id::ViewerId;
use crate::evdev_event::{EV_REL, Event};

/// The greatest value of the device's `ABS_X` and `ABS_Y`; the least is 0.
const MAX_POSITION: u64 = 32767;
/// `REL_*_HI_RES` of a click of a wheel.
const HI_RES_CLICK: i32 = 120;

/// The buttons by their bits in RFB's button mask (PointerEvent; the last two: ExtendedMouseButtons).
const BUTTONS: [(u16, KeyCode); 5] = [
    (1 << 0, KeyCode::BTN_LEFT),
    (1 << 1, KeyCode::BTN_MIDDLE),
    (1 << 2, KeyCode::BTN_RIGHT),
    (1 << 7, KeyCode::BTN_SIDE),
    (1 << 8, KeyCode::BTN_EXTRA),
];

/// A direction in which a wheel turns: for RFB a button that is pressed and released.
struct WheelClick {
    bit: u16,
    axis: RelativeAxisCode,
    hi_res_axis: RelativeAxisCode,
    direction: i32,
}

impl WheelClick {
    const fn vertical(bit: u16, direction: i32) -> Self {
        Self {
            bit,
            axis: RelativeAxisCode::REL_WHEEL,
            hi_res_axis: RelativeAxisCode::REL_WHEEL_HI_RES,
            direction,
        }
    }

    const fn horizontal(bit: u16, direction: i32) -> Self {
        Self {
            bit,
            axis: RelativeAxisCode::REL_HWHEEL,
            hi_res_axis: RelativeAxisCode::REL_HWHEEL_HI_RES,
            direction,
        }
    }
}

/// Up, down, left, right.
const WHEEL_CLICKS: [WheelClick; 4] = [
    WheelClick::vertical(1 << 3, 1),
    WheelClick::vertical(1 << 4, -1),
    WheelClick::horizontal(1 << 5, -1),
    WheelClick::horizontal(1 << 6, 1),
];

/// A place in a picture, in pixels, and the picture's size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) at: (u16, u16),
    pub(super) size: (u16, u16),
}

impl Place {
    /// The device's position: the first pixel is 0, the last one the maximum. `None` if the picture is empty.
    fn position(&self) -> Option<(i32, i32)> {
        Some((
            scaled(self.at.0, self.size.0)?,
            scaled(self.at.1, self.size.1)?,
        ))
    }
}

/// Which buttons which viewer presses, and where the pointer is.
#[derive(Debug, Default)]
pub(super) struct Tablet {
    /// The button mask of each viewer.
    viewers: BTreeMap<ViewerId, u16>,
    position: Option<(i32, i32)>,
}

impl Tablet {
    /// What is pressed by any viewer, and where the pointer is.
    pub(super) fn held(&self) -> Held {
        let mask = self.viewers.values().fold(0, |all, mask| all | mask);
        let pressed = BUTTONS.iter().filter(|(bit, _)| mask & bit != 0);
        Held {
            keys: pressed.map(|(_, key)| key.0).collect::<KeySet>(),
            position: self.position,
        }
    }

    /// A viewer moved the pointer or presses other buttons. Returns the report for the device; `None` if nothing changed.
    pub(super) fn point(
        &mut self,
        viewer: ViewerId,
        buttons: u16,
        place: Place,
    ) -> Option<Vec<Event>> {
        let before = self.held();
        self.position = place.position().or(self.position);
        let old = self.viewers.insert(viewer, buttons).unwrap_or(0);
        let now = self.held();
        let mut report = before.moves_to(&now);
        let released = before.keys.without(&now.keys);
        let pressed = now.keys.without(&before.keys);
        report.extend(released.iter().map(|key| Event::key(key, false)));
        report.extend(pressed.iter().map(|key| Event::key(key, true)));
        for wheel in WHEEL_CLICKS
            .iter()
            .filter(|wheel| buttons & !old & wheel.bit != 0)
        {
            let hi_res = wheel.direction * HI_RES_CLICK;
            report.push(Event::new(EV_REL, wheel.axis.0, wheel.direction));
            report.push(Event::new(EV_REL, wheel.hi_res_axis.0, hi_res));
        }
        finished(report)
    }

    /// A viewer left. Returns the report that releases what only this one pressed; `None` if that is nothing.
    pub(super) fn release(&mut self, viewer: ViewerId) -> Option<Vec<Event>> {
        let before = self.held();
        self.viewers.remove(&viewer);
        let released = before.keys.without(&self.held().keys);
        finished(released.iter().map(|key| Event::key(key, false)).collect())
    }
}

fn finished(mut report: Vec<Event>) -> Option<Vec<Event>> {
    if report.is_empty() {
        return None;
    }
    report.push(Event::REPORT);
    Some(report)
}

/// Pixel `at` of `size` on the device's axis, rounded. Pixels beyond the last one count as the last.
fn scaled(at: u16, size: u16) -> Option<i32> {
    let last = u64::from(size.checked_sub(1)?);
    if last == 0 {
        return Some(0);
    }
    let at = u64::from(at).min(last);
    i32::try_from((at * MAX_POSITION + last / 2) / last).ok()
}

#[cfg(test)]
mod tests;
