// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an input device is and which events it can report, whatever its source.

pub(super) mod kept;
#[cfg(test)]
pub(super) mod testing;

use std::collections::BTreeMap;
use std::fmt;

use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, EV_ABS, EV_KEY, EV_LED, EV_MSC, EV_REL, EV_REP, EV_SND, EV_SW, is_contact_axis,
};
use crate::input::protocol::{AbsInfo, Bitmap, DevIds};

/// Most slots of a multitouch device. Linux creates no more either.
pub(super) const MAX_SLOTS: usize = 1024;

/// Identity and abilities of an input device, which its driver reads from the configuration space.
#[derive(Clone, Debug, Default)]
pub struct DeviceInfo {
    /// The name (`EVIOCGNAME`).
    pub name: String,
    /// The serial number or address (`EVIOCGUNIQ`); empty for none.
    pub serial: String,
    /// The identity (`EVIOCGID`).
    pub ids: DevIds,
    /// The properties, `INPUT_PROP_*` (`EVIOCGPROP`).
    pub properties: Bitmap,
    /// The absolute axes by code (`EVIOCGABS`).
    pub axes: BTreeMap<u16, AbsInfo>,
    /// The codes of each event type, by type (`EVIOCGBIT`).
    pub codes: BTreeMap<u16, Bitmap>,
}

impl DeviceInfo {
    /// The codes of the event type `kind`; `None` if the device does not have the type.
    pub fn codes(&self, kind: u16) -> Option<&Bitmap> {
        self.codes.get(&kind)
    }

    /// Whether the device has the code `code` of the event type `kind`.
    pub fn has(&self, kind: u16, code: u16) -> bool {
        self.codes(kind).is_some_and(|codes| codes.contains(code))
    }

    /// Number of slots of a multitouch device with slots (type B); 0 for any other device.
    pub fn slots(&self) -> usize {
        let Some(slot) = self.axes.get(&ABS_MT_SLOT) else {
            return 0;
        };
        usize::try_from(slot.max)
            .map_or(0, |last| last.saturating_add(1))
            .min(MAX_SLOTS)
    }

    /// What keeps the device `other` from taking this one's place for a driver that was told of this one; `None` if
    /// nothing does. It may be able to do more, and be of another version.
    pub fn difference(&self, other: &Self) -> Option<Difference> {
        let ids = |info: &Self| (info.ids.bus, info.ids.vendor, info.ids.product);
        if (&self.name, ids(self)) != (&other.name, ids(other)) {
            let described = |info: &Self| {
                let DevIds {
                    vendor, product, ..
                } = info.ids;
                format!("{} ({vendor:04x}:{product:04x})", info.name)
            };
            return Some(Difference::Device(described(other)));
        }
        if self.serial != other.serial {
            return Some(Difference::Serial(other.serial.clone()));
        }
        if !self.properties.without(&other.properties).is_empty() {
            return Some(Difference::Properties);
        }
        let mut codes = self.codes.iter();
        let lost = codes.find(|(kind, codes)| {
            let there = other.codes(**kind);
            there.is_none_or(|there| !codes.without(there).is_empty())
        });
        if let Some((kind, _)) = lost {
            return Some(Difference::Codes(*kind));
        }
        let mut axes = self.axes.iter();
        let changed = axes.find(|(axis, range)| other.axes.get(axis) != Some(range));
        changed.map(|(axis, _)| Difference::Axis(*axis))
    }

    /// Whether the device can report what this one cannot.
    pub(super) fn is_exceeded_by(&self, other: &Self) -> bool {
        let known = Bitmap::default();
        let more = |(kind, codes): (&u16, &Bitmap)| {
            let told = self.codes(*kind).unwrap_or(&known);
            !codes.without(told).is_empty()
        };
        other.codes.iter().any(more)
    }

    /// Whether this is a multitouch device without slots (type A), of which each report contains all
    /// contacts.
    pub fn is_slotless(&self) -> bool {
        self.slots() == 0 && self.axes.keys().any(|axis| is_contact_axis(*axis))
    }
}

/// What keeps a device from taking another one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It is this other device, by its name and its vendor and product.
    Device(String),
    /// It has this serial number.
    Serial(String),
    /// It lacks properties (`INPUT_PROP_*`).
    Properties,
    /// It lacks codes of this event type.
    Codes(u16),
    /// It lacks this axis, or the axis has another range.
    Axis(u16),
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "it is another device, {device}"),
            Self::Serial(serial) if serial.is_empty() => f.write_str("it has no serial number"),
            Self::Serial(serial) => write!(f, "it has another serial number, {serial}"),
            Self::Properties => f.write_str("it lacks properties"),
            Self::Codes(kind) => {
                let what = match *kind {
                    EV_KEY => "keys",
                    EV_REL | EV_ABS => "axes",
                    EV_MSC => "scancodes",
                    EV_SW => "switches",
                    EV_LED => "LEDs",
                    EV_SND => "sounds",
                    EV_REP => "autorepeat",
                    _ => "events",
                };
                write!(f, "it lacks {what} that the guest was told of")
            }
            Self::Axis(axis) => write!(f, "its axis {axis} has another range"),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::ABS_MT_FIRST;

    use super::*;

    fn tablet() -> DeviceInfo {
        let mut info = DeviceInfo {
            name: "Tablet".into(),
            serial: "7".into(),
            ids: DevIds {
                bus: 3,
                vendor: 0x56a,
                product: 0x1234,
                version: 1,
            },
            properties: [1].into_iter().collect(),
            ..DeviceInfo::default()
        };
        info.codes.insert(EV_KEY, [30, 31].into_iter().collect());
        info.codes.insert(EV_ABS, [0].into_iter().collect());
        let range = AbsInfo {
            max: 100,
            ..AbsInfo::default()
        };
        info.axes.insert(0, range);
        info
    }

    #[test]
    fn device_that_can_do_no_less_takes_the_place_of_another() {
        let told = tablet();
        let mut other = tablet();
        assert!(!told.is_exceeded_by(&other));
        other.ids.version = 2;
        other.properties.set(2, true);
        other.codes.insert(EV_KEY, (30..40).collect());
        other.codes.insert(EV_LED, [0].into_iter().collect());
        other.axes.insert(1, AbsInfo::default());
        assert_eq!(told.difference(&other), None);
        assert!(told.is_exceeded_by(&other));
        assert!(!other.is_exceeded_by(&told));
    }

    #[test]
    fn device_of_another_kind_takes_no_place() {
        let told = tablet();
        type Change = (fn(&mut DeviceInfo), Difference);
        let changes: [Change; 9] = [
            (
                |other| other.name = "Pad".into(),
                Difference::Device("Pad (056a:1234)".into()),
            ),
            (
                |other| other.ids.bus = 5,
                Difference::Device("Tablet (056a:1234)".into()),
            ),
            (
                |other| other.ids.product = 0x1235,
                Difference::Device("Tablet (056a:1235)".into()),
            ),
            (
                |other| other.serial = "8".into(),
                Difference::Serial("8".into()),
            ),
            (
                |other| other.properties = Bitmap::default(),
                Difference::Properties,
            ),
            (
                |other| {
                    other.codes.insert(EV_KEY, [30].into_iter().collect());
                },
                Difference::Codes(EV_KEY),
            ),
            (
                |other| {
                    other.codes.remove(&EV_ABS);
                },
                Difference::Codes(EV_ABS),
            ),
            (
                |other| {
                    other.axes.remove(&0);
                },
                Difference::Axis(0),
            ),
            (
                |other| {
                    other.axes.insert(0, AbsInfo::default());
                },
                Difference::Axis(0),
            ),
        ];
        for (change, difference) in changes {
            let mut other = tablet();
            change(&mut other);
            assert_eq!(told.difference(&other), Some(difference));
        }
    }

    #[test]
    fn slots_are_counted_and_bounded() {
        let mut device = DeviceInfo::default();
        assert_eq!((device.slots(), device.is_slotless()), (0, false));
        device.axes.insert(ABS_MT_FIRST, AbsInfo::default());
        assert_eq!((device.slots(), device.is_slotless()), (0, true));
        for (max, slots) in [(-1, 0), (0, 1), (9, 10), (i32::MAX, MAX_SLOTS)] {
            let axis = AbsInfo {
                max,
                ..AbsInfo::default()
            };
            device.axes.insert(ABS_MT_SLOT, axis);
            assert_eq!(device.slots(), slots);
        }
    }
}
