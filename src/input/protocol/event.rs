//! `struct virtio_input_event` (virtio 1.2, 5.8.6).

use crate::input::protocol::event_codes::{EV_SYN, SYN_REPORT};

/// An event, of evdev and of virtio-input alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

    /// Whether this is a `SYN_REPORT`.
    pub fn ends_report(&self) -> bool {
        (self.kind, self.code) == (EV_SYN, SYN_REPORT)
    }

    /// Encodes the event for a driver's buffer, little-endian.
    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }

    /// Decodes an event that a driver wrote, little-endian.
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
    use crate::input::protocol::event_codes::EV_ABS;

    use super::*;

    #[test]
    fn event_is_eight_little_endian_bytes() {
        let event = Event::new(EV_ABS, 0x0135, -2);
        let bytes = [3, 0, 0x35, 1, 0xfe, 0xff, 0xff, 0xff];
        assert_eq!(event.to_bytes(), bytes);
        assert_eq!(Event::from_bytes(bytes), event);
    }
}
