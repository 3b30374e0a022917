// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reports that bring a guest to the state that the device is in.

use crate::input::device_state::{DeviceState, NO_CONTACT};
use crate::input::protocol::Event;
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_SW, EV_SYN, SYN_MT_REPORT,
};

/// The reports that bring a guest from the state `guest_state` to `device_state`, each with its
/// `SYN_REPORT`; none if the states are equal.
///
/// The state does not contain the contacts of a type A device (`slotless`): the guest is told that there
/// are none, and the device's next report contains those there are.
pub(super) fn correction(
    guest_state: &DeviceState,
    device_state: &DeviceState,
    slotless: bool,
) -> Vec<Vec<Event>> {
    let mut guest = Guest {
        state: guest_state.clone(),
        report: Vec::new(),
    };
    guest.end_replaced_contacts(device_state);
    let ended = std::mem::take(&mut guest.report);
    guest.set_keys_switches_and_axes(device_state);
    guest.set_contacts(device_state);
    if slotless {
        guest.report.push(Event::new(EV_SYN, SYN_MT_REPORT, 0));
    }
    [ended, guest.report]
        .into_iter()
        .filter(|report| !report.is_empty())
        .map(|mut report| {
            report.push(Event::REPORT);
            report
        })
        .collect()
}

/// A guest that is told the device's state.
struct Guest {
    /// Its state after `report`.
    state: DeviceState,
    /// What it is told.
    report: Vec<Event>,
}

impl Guest {
    /// Ends the contacts whose slots others have taken. Without a report of its own the guest would see
    /// one contact jump.
    fn end_replaced_contacts(&mut self, device_state: &DeviceState) {
        for (slot, device) in device_state.touch.contacts.iter().enumerate() {
            let Some(guest) = self.state.touch.contacts.get(slot) else {
                break;
            };
            if guest.is_present() && device.is_present() && guest.id != device.id {
                self.push_in_slot(slot, Event::new(EV_ABS, ABS_MT_TRACKING_ID, NO_CONTACT));
            }
        }
    }

    fn set_keys_switches_and_axes(&mut self, device_state: &DeviceState) {
        for (kind, guest, device) in [
            (EV_KEY, &self.state.keys, &device_state.keys),
            (EV_SW, &self.state.switches, &device_state.switches),
        ] {
            let off = guest.without(device);
            let on = device.without(guest);
            let events = off.iter().map(|code| Event::new(kind, code, 0));
            self.report.extend(events);
            let events = on.iter().map(|code| Event::new(kind, code, 1));
            self.report.extend(events);
        }
        for (axis, value) in &device_state.axes {
            if self.state.axes.get(axis) != Some(value) {
                self.report.push(Event::new(EV_ABS, *axis, *value));
            }
        }
    }

    fn set_contacts(&mut self, device_state: &DeviceState) {
        for (slot, device) in device_state.touch.contacts.iter().enumerate() {
            let Some(guest) = self.state.touch.contacts.get(slot).cloned() else {
                break;
            };
            if guest.id != device.id {
                self.push_in_slot(slot, Event::new(EV_ABS, ABS_MT_TRACKING_ID, device.id));
            }
            // Also those of an empty slot: the device does not report them again for the slot's next
            // contact unless they change.
            for (axis, value) in &device.values {
                if guest.values.get(axis) != Some(value) {
                    self.push_in_slot(slot, Event::new(EV_ABS, *axis, *value));
                }
            }
        }
        // The device's next `ABS_MT_*` events belong to the slot that it is at.
        if let Some(slot) = device_state.touch.slot {
            self.select_slot(slot);
        }
    }

    fn push_in_slot(&mut self, slot: usize, event: Event) {
        self.select_slot(slot);
        self.push(event);
    }

    fn select_slot(&mut self, slot: usize) {
        if self.state.touch.slot != Some(slot) {
            // A device has at most 1024 slots.
            self.push(Event::new(EV_ABS, ABS_MT_SLOT, slot as i32));
        }
    }

    fn push(&mut self, event: Event) {
        self.state.apply(&event);
        self.report.push(event);
    }
}

#[cfg(test)]
mod tests;
