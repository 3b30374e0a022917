//! What goes over the wire: the configuration space and the events of virtio 1.2, 5.8.

/// Index of the queue that carries events to the driver (5.8.2).
pub const EVENT_QUEUE: usize = 0;
/// Index of the queue that carries status (LEDs, sounds) to the device (5.8.2).
pub const STATUS_QUEUE: usize = 1;
/// Queues of the device.
pub const QUEUES: usize = 2;

/// Bytes of the configuration space: select, subsel, size, five reserved and the union (5.8.4).
pub const CONFIG_SIZE: usize = 136;
/// Bytes of the configuration space's union, and so the most a `size` may say.
pub const PAYLOAD_SIZE: usize = 128;
/// Where `select` lies in the configuration space.
pub const SELECT: usize = 0;
/// Where `subsel` lies in the configuration space.
pub const SUBSEL: usize = 1;
/// Where `size` lies in the configuration space.
pub const SIZE: usize = 2;
/// Where the union lies in the configuration space.
pub const PAYLOAD: usize = 8;

/// `VIRTIO_INPUT_CFG_ID_NAME`: the device's name, a string without a NUL.
pub const CFG_ID_NAME: u8 = 0x01;
/// `VIRTIO_INPUT_CFG_ID_SERIAL`: the device's serial number, a string without a NUL.
pub const CFG_ID_SERIAL: u8 = 0x02;
/// `VIRTIO_INPUT_CFG_ID_DEVIDS`: bus type, vendor, product and version.
pub const CFG_ID_DEVIDS: u8 = 0x03;
/// `VIRTIO_INPUT_CFG_PROP_BITS`: the bitmap of `INPUT_PROP_*`.
pub const CFG_PROP_BITS: u8 = 0x10;
/// `VIRTIO_INPUT_CFG_EV_BITS`: the bitmap of the codes of the event type in `subsel`.
pub const CFG_EV_BITS: u8 = 0x11;
/// `VIRTIO_INPUT_CFG_ABS_INFO`: the range of the absolute axis in `subsel`.
pub const CFG_ABS_INFO: u8 = 0x12;

/// Event types and codes of evdev, which virtio shares (5.8.6).
pub mod code {
    use evdev::{AbsoluteAxisCode, EventType, RepeatCode, SynchronizationCode};

    /// Event type of the marks between reports.
    pub const EV_SYN: u16 = EventType::SYNCHRONIZATION.0;
    /// Event type of keys and buttons.
    pub const EV_KEY: u16 = EventType::KEY.0;
    /// Event type of relative axes.
    pub const EV_REL: u16 = EventType::RELATIVE.0;
    /// Event type of absolute axes.
    pub const EV_ABS: u16 = EventType::ABSOLUTE.0;
    /// Event type of what fits nowhere else, scancodes for one.
    pub const EV_MSC: u16 = EventType::MISC.0;
    /// Event type of switches.
    pub const EV_SW: u16 = EventType::SWITCH.0;
    /// Event type of LEDs.
    pub const EV_LED: u16 = EventType::LED.0;
    /// Event type of sounds.
    pub const EV_SND: u16 = EventType::SOUND.0;
    /// Event type of the automatic repetition of keys.
    pub const EV_REP: u16 = EventType::REPEAT.0;

    /// Ends a report.
    pub const SYN_REPORT: u16 = SynchronizationCode::SYN_REPORT.0;
    /// Ends a contact of a multitouch device without slots (type A).
    pub const SYN_MT_REPORT: u16 = SynchronizationCode::SYN_MT_REPORT.0;
    /// Says that the kernel's buffer overflowed and events were lost.
    pub const SYN_DROPPED: u16 = SynchronizationCode::SYN_DROPPED.0;

    /// The slot that the multitouch axes after it belong to.
    pub const ABS_MT_SLOT: u16 = AbsoluteAxisCode::ABS_MT_SLOT.0;
    /// The contact in a slot; -1 for none.
    pub const ABS_MT_TRACKING_ID: u16 = AbsoluteAxisCode::ABS_MT_TRACKING_ID.0;
    /// First of the axes that every contact has for itself.
    pub const ABS_MT_FIRST: u16 = AbsoluteAxisCode::ABS_MT_TOUCH_MAJOR.0;
    /// Last of the axes that every contact has for itself.
    pub const ABS_MT_LAST: u16 = AbsoluteAxisCode::ABS_MT_TOOL_Y.0;

    /// Whether every contact of a multitouch device has the absolute axis `axis` for itself.
    pub fn is_contact_axis(axis: u16) -> bool {
        (ABS_MT_FIRST..=ABS_MT_LAST).contains(&axis)
    }

    /// Delay before a key repeats.
    pub const REP_DELAY: u16 = RepeatCode::REP_DELAY.0;
    /// Period in which a key repeats.
    pub const REP_PERIOD: u16 = RepeatCode::REP_PERIOD.0;
}

/// One event (`struct virtio_input_event`, 5.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// One of `EV_*`.
    pub kind: u16,
    /// The key, axis or LED it is about.
    pub code: u16,
    /// What it became, or by how much it moved.
    pub value: i32,
}

impl Event {
    /// Bytes of an event.
    pub const SIZE: usize = 8;

    /// The end of a report.
    pub const REPORT: Self = Self::new(code::EV_SYN, code::SYN_REPORT, 0);

    /// An event of the type `kind`.
    pub const fn new(kind: u16, code: u16, value: i32) -> Self {
        Self { kind, code, value }
    }

    /// Whether this ends a report.
    pub fn ends_report(&self) -> bool {
        (self.kind, self.code) == (code::EV_SYN, code::SYN_REPORT)
    }

    /// The event as the driver reads it, little-endian.
    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }

    /// The event as the driver wrote it.
    pub fn from_bytes([k0, k1, c0, c1, v0, v1, v2, v3]: [u8; Self::SIZE]) -> Self {
        Self {
            kind: u16::from_le_bytes([k0, k1]),
            code: u16::from_le_bytes([c0, c1]),
            value: i32::from_le_bytes([v0, v1, v2, v3]),
        }
    }
}

/// A set of codes, laid out as the configuration space and evdev lay out bitmaps: code `n` is bit
/// `n % 8` of byte `n / 8`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Bits([u8; PAYLOAD_SIZE]);

impl Bits {
    /// Whether `code` is in the set.
    pub fn contains(&self, code: u16) -> bool {
        let byte = self.0.get(usize::from(code / 8)).copied().unwrap_or(0);
        byte >> (code % 8) & 1 == 1
    }

    /// Puts `code` into the set or takes it out. Codes from 1024 on, which evdev does not know, are
    /// never in a set.
    pub fn set(&mut self, code: u16, on: bool) {
        if let Some(byte) = self.0.get_mut(usize::from(code / 8)) {
            let bit = 1 << (code % 8);
            *byte = if on { *byte | bit } else { *byte & !bit };
        }
    }

    /// Whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The codes in the set, in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(self.0).flat_map(|(at, byte)| {
            (0..8u16)
                .filter(move |bit| byte >> bit & 1 == 1)
                .map(move |bit| at * 8 + bit)
        })
    }

    /// The codes that are in this set and not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let mut left = *self;
        for (byte, taken) in left.0.iter_mut().zip(other.0) {
            *byte &= !taken;
        }
        left
    }

    /// The bitmap up to its last byte that is not 0.
    pub fn trimmed(&self) -> &[u8] {
        let length = self
            .0
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |last| last + 1);
        self.0.get(..length).unwrap_or(&[])
    }
}

impl Default for Bits {
    fn default() -> Self {
        Self([0; PAYLOAD_SIZE])
    }
}

impl FromIterator<u16> for Bits {
    fn from_iter<I: IntoIterator<Item = u16>>(codes: I) -> Self {
        let mut bits = Self::default();
        for code in codes {
            bits.set(code, true);
        }
        bits
    }
}

impl std::fmt::Debug for Bits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The identity of a device (`struct virtio_input_devids`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// One of `BUS_*`.
    pub bus: u16,
    /// The vendor, as the bus numbers them.
    pub vendor: u16,
    /// The product, as the vendor numbers them.
    pub product: u16,
    /// The product's version.
    pub version: u16,
}

impl Ids {
    /// As the driver reads it, little-endian.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.bus, self.vendor, self.product, self.version]
            .into_iter()
            .flat_map(u16::to_le_bytes)
            .collect()
    }
}

/// An absolute axis (`struct virtio_input_absinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Axis {
    /// The least value.
    pub min: i32,
    /// The greatest value.
    pub max: i32,
    /// By how much the value trembles.
    pub fuzz: i32,
    /// How far from the centre counts as the centre.
    pub flat: i32,
    /// Units per millimetre, or per radian.
    pub res: i32,
}

impl Axis {
    /// As the driver reads it, little-endian.
    pub fn to_bytes(self) -> Vec<u8> {
        [self.min, self.max, self.fuzz, self.flat, self.res]
            .into_iter()
            .flat_map(i32::to_le_bytes)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_eight_little_endian_bytes() {
        let event = Event::new(code::EV_ABS, 0x0135, -2);
        let bytes = [3, 0, 0x35, 1, 0xfe, 0xff, 0xff, 0xff];
        assert_eq!(event.to_bytes(), bytes);
        assert_eq!(Event::from_bytes(bytes), event);
    }

    #[test]
    fn bits_lie_as_evdev_has_them() {
        let bits: Bits = [0, 9, 10].into_iter().collect();
        assert_eq!(bits.trimmed(), [0b1, 0b110]);
        assert_eq!(bits.iter().collect::<Vec<_>>(), [0, 9, 10]);
        assert!(bits.contains(9) && !bits.contains(8));
        assert!(Bits::default().trimmed().is_empty());
    }

    #[test]
    fn the_last_code_fits_and_those_beyond_are_ignored() {
        let bits: Bits = [1023, 1024, u16::MAX].into_iter().collect();
        assert_eq!(bits.iter().collect::<Vec<_>>(), [1023]);
        assert_eq!(bits.trimmed().len(), PAYLOAD_SIZE);
        assert!(!bits.contains(1024));
    }
}
