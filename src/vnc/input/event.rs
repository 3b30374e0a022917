//! Events on the events socket of vhost-user-input: `struct virtio_input_event` (virtio 1.2, 5.8.6), little-endian, in
//! both directions.

use evdev::{EventType, SynchronizationCode};

/// Event type: separators of events.
pub(crate) const EV_SYN: u16 = EventType::SYNCHRONIZATION.0;
/// Event type: keys and buttons.
pub(crate) const EV_KEY: u16 = EventType::KEY.0;
/// Event type: relative axes, such as wheels.
pub(crate) const EV_REL: u16 = EventType::RELATIVE.0;
/// Event type: absolute axes.
pub(crate) const EV_ABS: u16 = EventType::ABSOLUTE.0;
/// Event type: LEDs.
pub(crate) const EV_LED: u16 = EventType::LED.0;

/// An event of evdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: u16,
    pub(crate) code: u16,
    pub(crate) value: i32,
}

impl Event {
    /// Size in bytes.
    pub(crate) const SIZE: usize = 8;

    /// `SYN_REPORT`, which ends a report.
    pub(crate) const REPORT: Self = Self::new(EV_SYN, SynchronizationCode::SYN_REPORT.0, 0);

    pub(crate) const fn new(kind: u16, code: u16, value: i32) -> Self {
        Self { kind, code, value }
    }

    /// A key or button that is pressed or released.
    pub(crate) const fn key(code: u16, down: bool) -> Self {
        Self::new(EV_KEY, code, down as i32)
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::SIZE] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }

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
