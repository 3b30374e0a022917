//! What an input device is and which events it can report, whatever its source.

use std::collections::BTreeMap;

use crate::input::protocol::event_codes::{ABS_MT_SLOT, is_contact_axis};
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

    /// Whether this is a multitouch device without slots (type A), of which each report contains all
    /// contacts.
    pub fn is_slotless(&self) -> bool {
        self.slots() == 0 && self.axes.keys().any(|axis| is_contact_axis(*axis))
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::ABS_MT_FIRST;

    use super::*;

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
