// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is pressed, switched and touched: on the device, or as far as the guest was told.

mod kept;

use std::collections::BTreeMap;

use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_SW, is_contact_axis,
};
use crate::input::protocol::{Bitmap, Event};

pub(crate) use kept::KeptState;

/// The `ABS_MT_TRACKING_ID` of a slot without a contact.
pub(super) const NO_CONTACT: i32 = -1;

/// The lasting state of an input device: everything that later events build on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceState {
    /// The keys and buttons that are pressed (`EVIOCGKEY`).
    pub keys: Bitmap,
    /// The switches that are on (`EVIOCGSW`).
    pub switches: Bitmap,
    /// The values of the absolute axes, as far as known, without those of contacts (`EVIOCGABS`).
    pub axes: BTreeMap<u16, i32>,
    /// The contacts on a multitouch device.
    pub touch: Touch,
}

/// The contacts on a multitouch device with slots (type B).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// The slot that the next `ABS_MT_*` events belong to (`ABS_MT_SLOT`); `None` if unknown.
    pub slot: Option<usize>,
    /// The contact in each slot (`EVIOCGMTSLOTS`).
    pub contacts: Vec<Contact>,
}

/// The contact in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The `ABS_MT_TRACKING_ID`; -1 for no contact.
    pub id: i32,
    /// The values of the contact's axes, as far as known.
    pub values: BTreeMap<u16, i32>,
}

impl Contact {
    /// The contact with the tracking id `id` (-1 for no contact) and no known values.
    pub fn new(id: i32) -> Self {
        Self {
            id,
            values: BTreeMap::new(),
        }
    }

    /// Whether there is a contact.
    pub(super) fn is_present(&self) -> bool {
        self.id != NO_CONTACT
    }
}

impl DeviceState {
    /// The state of a device with `slots` slots on which nothing is pressed or touched.
    pub fn new(slots: usize) -> Self {
        Self {
            touch: Touch {
                slot: None,
                contacts: vec![Contact::new(NO_CONTACT); slots],
            },
            ..Self::default()
        }
    }

    /// Applies `event`.
    pub fn apply(&mut self, event: &Event) {
        let Event { kind, code, value } = *event;
        match kind {
            EV_KEY => self.keys.set(code, value != 0),
            EV_SW => self.switches.set(code, value != 0),
            // Without slots, a contact does not outlast its report.
            EV_ABS if self.touch.contacts.is_empty() && is_contact_axis(code) => {}
            EV_ABS if code == ABS_MT_SLOT => self.touch.slot = usize::try_from(value).ok(),
            EV_ABS if is_contact_axis(code) => {
                let slot = self.touch.slot;
                let contact = slot.and_then(|slot| self.touch.contacts.get_mut(slot));
                if let Some(contact) = contact {
                    match code {
                        ABS_MT_TRACKING_ID => contact.id = value,
                        code => {
                            contact.values.insert(code, value);
                        }
                    }
                }
            }
            EV_ABS => {
                self.axes.insert(code, value);
            }
            _ => {}
        }
    }

    /// What to assume a guest knows when it may have been paused or restarted, so that the correction
    /// repeats everything: all of `device_state`, and the release of what is no longer pressed or
    /// touched. `self` is what the guest was told.
    ///
    /// It does not matter which of the two happened: a guest ignores what it already knows, and the
    /// release of a key that it never saw pressed.
    pub(crate) fn assumed_guest_state(&self, device_state: &Self) -> Self {
        let contacts = self.touch.contacts.iter().zip(&device_state.touch.contacts);
        let contacts = contacts.map(|(guest, device)| {
            Contact::new(if guest.id == device.id {
                NO_CONTACT
            } else {
                guest.id
            })
        });
        Self {
            keys: self.keys.without(&device_state.keys),
            switches: self.switches.without(&device_state.switches),
            axes: BTreeMap::new(),
            touch: Touch {
                slot: None,
                contacts: contacts.collect(),
            },
        }
    }

    /// Releases keys and contacts, which cannot outlast a device that is gone. Switches and axes keep
    /// their last values.
    pub(crate) fn release_all(&mut self) {
        self.keys = Bitmap::default();
        for contact in &mut self.touch.contacts {
            contact.id = NO_CONTACT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_unknown_slots_are_ignored() {
        let mut state = DeviceState::new(1);
        for (code, value) in [
            (ABS_MT_SLOT, 99),
            (ABS_MT_TRACKING_ID, 7),
            (ABS_MT_SLOT, -1),
            (ABS_MT_TRACKING_ID, 8),
        ] {
            state.apply(&Event::new(EV_ABS, code, value));
        }
        assert_eq!(state.touch.contacts, [Contact::new(-1)]);
    }

    #[test]
    fn everything_is_released() {
        let mut state = DeviceState::new(1);
        for event in [
            Event::new(EV_KEY, 1, 1),
            Event::new(EV_ABS, ABS_MT_SLOT, 0),
            Event::new(EV_ABS, ABS_MT_TRACKING_ID, 7),
        ] {
            state.apply(&event);
        }
        state.release_all();
        assert!(state.keys.is_empty());
        assert_eq!(state.touch.contacts, [Contact::new(-1)]);
    }
}
