// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Event types and codes of evdev (`linux/input-event-codes.h`), which virtio-input shares (virtio
//! 1.2, 5.8.6).

use evdev::{AbsoluteAxisCode, EventType, RepeatCode, SynchronizationCode};

pub use crate::evdev_event::{EV_ABS, EV_KEY, EV_LED, EV_REL, EV_SYN, SYN_REPORT};

/// Event type: anything without a type of its own, such as scancodes.
pub const EV_MSC: u16 = EventType::MISC.0;
/// Event type: switches.
pub const EV_SW: u16 = EventType::SWITCH.0;
/// Event type: sounds.
pub const EV_SND: u16 = EventType::SOUND.0;
/// Event type: autorepeat of keys.
pub const EV_REP: u16 = EventType::REPEAT.0;

/// `EV_SYN`: ends a contact of a multitouch device without slots (type A).
pub const SYN_MT_REPORT: u16 = SynchronizationCode::SYN_MT_REPORT.0;
/// `EV_SYN`: the kernel's buffer overflowed and events were lost.
pub const SYN_DROPPED: u16 = SynchronizationCode::SYN_DROPPED.0;

/// `EV_ABS`: the slot that the `ABS_MT_*` events after it belong to.
pub const ABS_MT_SLOT: u16 = AbsoluteAxisCode::ABS_MT_SLOT.0;
/// `EV_ABS`: the tracking id of the contact in a slot; -1 for no contact.
pub const ABS_MT_TRACKING_ID: u16 = AbsoluteAxisCode::ABS_MT_TRACKING_ID.0;
/// `EV_ABS`: first of the axes that each contact has its own value of.
pub const ABS_MT_FIRST: u16 = AbsoluteAxisCode::ABS_MT_TOUCH_MAJOR.0;
/// `EV_ABS`: last of the axes that each contact has its own value of.
pub const ABS_MT_LAST: u16 = AbsoluteAxisCode::ABS_MT_TOOL_Y.0;

/// `EV_REP`: delay before a key repeats.
pub const REP_DELAY: u16 = RepeatCode::REP_DELAY.0;
/// `EV_REP`: period in which a key repeats.
pub const REP_PERIOD: u16 = RepeatCode::REP_PERIOD.0;

/// Whether each contact of a multitouch device has its own value of the absolute axis `axis`.
pub fn is_contact_axis(axis: u16) -> bool {
    (ABS_MT_FIRST..=ABS_MT_LAST).contains(&axis)
}
