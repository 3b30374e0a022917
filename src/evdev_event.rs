// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Events of evdev as virtio-input and the events socket of vhost-user-input carry them: `struct virtio_input_event`
//! (virtio 1.2, 5.8.6), little-endian.

use evdev::{EventType, SynchronizationCode};

/// Event type: separators of events.
pub const EV_SYN: u16 = EventType::SYNCHRONIZATION.0;
/// Event type: keys and buttons.
pub const EV_KEY: u16 = EventType::KEY.0;
/// Event type: relative axes, such as wheels.
pub const EV_REL: u16 = EventType::RELATIVE.0;
/// Event type: absolute axes.
pub const EV_ABS: u16 = EventType::ABSOLUTE.0;
/// Event type: LEDs.
pub const EV_LED: u16 = EventType::LED.0;

/// `EV_SYN`: ends a report.
pub const SYN_REPORT: u16 = SynchronizationCode::SYN_REPORT.0;

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// As in its encoding, which is a copy then.
#[repr(C)]
pub struct Event {
    /// The event type, one of `EV_*`.
    pub kind: u16,
    /// The key, axis or LED, numbered within its type.
    pub code: u16,
    /// The new value; of a relative axis, the movement.
    pub value: i32,
}

impl Event {
    /// Size of an event in bytes.
    pub(crate) const SIZE: usize = 8;

    /// `SYN_REPORT`, which ends a report.
    pub const REPORT: Self = Self::new(EV_SYN, SYN_REPORT, 0);

    /// An event of type `kind`.
    pub const fn new(kind: u16, code: u16, value: i32) -> Self {
        Self { kind, code, value }
    }

    /// A key or button that is pressed or released.
    pub(crate) const fn key(code: u16, down: bool) -> Self {
        Self::new(EV_KEY, code, down as i32)
    }

    /// Whether this is a `SYN_REPORT`.
    pub fn ends_report(&self) -> bool {
        (self.kind, self.code) == (EV_SYN, SYN_REPORT)
    }

    /// Encodes the event.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }

    /// Decodes an event, whatever its bytes are.
    pub(crate) fn from_bytes([k0, k1, c0, c1, v0, v1, v2, v3]: [u8; Self::SIZE]) -> Self {
        Self {
            kind: u16::from_le_bytes([k0, k1]),
            code: u16::from_le_bytes([c0, c1]),
            value: i32::from_le_bytes([v0, v1, v2, v3]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_eight_little_endian_bytes() {
        let event = Event::new(EV_ABS, 0x0135, -2);
        let bytes = [3, 0, 0x35, 1, 0xfe, 0xff, 0xff, 0xff];
        assert_eq!(event.to_bytes(), bytes);
        assert_eq!(Event::from_bytes(bytes), event);
    }
}
