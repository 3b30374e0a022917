// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The state that the device is in, and the state that the guest knows, with records of both.
//!
//! A report changes most coordinates of a touch screen, in both states. So a record has the events that changed them, once for
//! both if they are the same. Now and then, the parts of the states that the events have changed are written instead.

use crate::backend::continuity::{
    InvalidRecord, Ledger, RecordKey, ValueError, ValueReader, ValueWriter,
};
use crate::input::device_state::{DeviceState, KeptState};
use crate::input::protocol::Event;
use crate::input::records::{self, RecordError, tables};

/// Which events the records of the parts have: those before the one of this number.
const PARTS: RecordKey = RecordKey::new(tables::REPORT_QUEUE, 3);
/// Most records of events that are not in the parts.
const MAX_CHANGES: u64 = 64;
/// Most events of such a record.
const MAX_EVENTS: usize = 128;

/// An event as records have it.
type EncodedEvent = [u8; Event::SIZE];

/// What the device is in, and what the guest knows.
///
/// All of it is in records after [`Self::record`].
#[derive(Debug)]
pub(super) struct KeptStates {
    device: Followed,
    guest: Followed,
    /// How many of the first events of `device` are those of `guest`, as long as that has no others.
    same: usize,
    /// The numbers of the first change that is not in the records of the parts, and of the next one.
    first: u64,
    next: u64,
    /// The parts are to be written.
    needs_parts: bool,
    ledger: Ledger,
}

/// A state, and the events since the last [`KeptStates::record`] that were applied to it, where the state is kept.
#[derive(Debug)]
struct Followed {
    state: KeptState,
    events: Vec<EncodedEvent>,
}

/// Whose state a change is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Whose {
    Device,
    Guest,
    #[default]
    Both,
}

impl Whose {
    fn encode(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::Guest => 2,
            Self::Both => 3,
        }
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        match value.u8()? {
            1 => Ok(Self::Device),
            2 => Ok(Self::Guest),
            3 => Ok(Self::Both),
            _ => Err(ValueError::Content("there is no such state")),
        }
    }
}

/// A record of events.
#[derive(Debug)]
struct Change {
    number: u64,
    whose: Whose,
    events: Vec<Event>,
}

impl Change {
    /// Records are replaced by later ones.
    fn key(number: u64) -> RecordKey {
        RecordKey::new(tables::STATE_CHANGES, number % MAX_CHANGES)
    }

    fn encode(number: u64, whose: Whose, events: &[u8], value: &mut ValueWriter) {
        value.u64(number).u8(whose.encode()).bytes(events);
    }

    fn decode(id: u64, value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        let change = Self {
            number: value.u64()?,
            whose: Whose::decode(value)?,
            events: records::read_events(value)?,
        };
        if Self::key(change.number).id != id {
            return Err(ValueError::Content("it has the place of another one"));
        }
        Ok(change)
    }
}

impl Followed {
    fn load(slots: usize, ledger: &Ledger, table: u16) -> Result<Self, RecordError> {
        Ok(Self {
            state: KeptState::load(slots, ledger, table)?,
            events: Vec::new(),
        })
    }

    /// `events` were applied. Returns whether too many wait for their record: only the parts tell what they did, then.
    fn applied(&mut self, events: &[Event]) -> bool {
        let is_full = self.events.len() + events.len() > MAX_EVENTS;
        if is_full {
            self.state.all_changed();
        } else {
            self.events
                .extend(events.iter().map(|event| event.to_bytes()));
        }
        is_full
    }

    /// Applies events of a record.
    fn restore(&mut self, events: &[Event]) {
        for event in events {
            self.state.apply_changed(event);
        }
    }
}

impl KeptStates {
    /// Those of a device with `slots` slots as the records say; where there are none, nothing is pressed or touched.
    ///
    /// # Errors
    /// If the records cannot be of such a device.
    pub(super) fn load(slots: usize, ledger: Ledger) -> Result<Self, RecordError> {
        let mut device = Followed::load(slots, &ledger, tables::DEVICE_STATE)?;
        let mut guest = Followed::load(slots, &ledger, tables::GUEST_STATE)?;
        let first = ledger.read(PARTS, |value| value.u64())?;
        let first = first.unwrap_or_default();
        let mut changes = ledger.read_table(tables::STATE_CHANGES, Change::decode)?;
        // Those before are in the parts.
        changes.retain(|change| change.number.wrapping_sub(first) < MAX_CHANGES);
        changes.sort_unstable_by_key(|change| change.number.wrapping_sub(first));
        let mut next = first;
        for Change {
            number,
            whose,
            events,
        } in changes
        {
            if number != next {
                let source = ValueError::Content("the one before is missing");
                return Err(InvalidRecord::new(Change::key(number), source).into());
            }
            next = next.wrapping_add(1);
            if whose != Whose::Guest {
                device.restore(&events);
            }
            if whose != Whose::Device {
                guest.restore(&events);
            }
        }
        Ok(Self {
            device,
            guest,
            same: 0,
            first,
            next,
            needs_parts: false,
            ledger,
        })
    }

    /// The state of the device after its last whole report.
    pub(super) fn device(&self) -> &DeviceState {
        &self.device.state
    }

    /// The state that the events sent so far brought the guest to.
    pub(super) fn guest(&self) -> &DeviceState {
        &self.guest.state
    }

    /// `events` change the device's state.
    pub(super) fn device_reports(&mut self, events: &[Event]) {
        for event in events {
            self.device.state.apply(event);
        }
        if self.ledger.is_kept() {
            self.needs_parts |= self.device.applied(events);
        }
    }

    /// `events`, a report or a part of one, were sent to the guest.
    pub(super) fn guest_gets(&mut self, events: &[Event]) {
        for event in events {
            self.guest.state.apply(event);
        }
        let lasting = match events {
            [lasting @ .., last] if last.ends_report() => lasting,
            _ => events,
        };
        if lasting.is_empty() || !self.ledger.is_kept() {
            return;
        }
        let end = self.same.saturating_add(lasting.len());
        let next = self.device.events.get(self.same..end);
        let are_same = |next: &[EncodedEvent]| {
            let pairs = next.iter().zip(lasting);
            pairs.fold(true, |same, (next, event)| {
                same & (*next == event.to_bytes())
            })
        };
        if self.guest.events.is_empty() && next.is_some_and(are_same) {
            self.same = end;
        } else {
            self.guest_gets_others(lasting);
        }
    }

    /// The guest got events that are not the device's next ones.
    #[cold]
    fn guest_gets_others(&mut self, events: &[Event]) {
        if self.guest.events.is_empty() {
            let same = self.device.events.get(..self.same).unwrap_or_default();
            self.guest.events.extend_from_slice(same);
        }
        self.needs_parts |= self.guest.applied(events);
    }

    /// The device is in `state`.
    pub(super) fn set_device(&mut self, state: DeviceState) {
        self.device.state.set(state);
        self.needs_parts = true;
    }

    /// The device is gone: see [`DeviceState::release_all`].
    pub(super) fn release_device(&mut self) {
        self.device.state.release_all();
        self.needs_parts = true;
    }

    /// Writes what changed since the last call.
    pub(super) fn record(&mut self) {
        let has_events = !self.device.events.is_empty() || !self.guest.events.is_empty();
        if self.ledger.is_kept() && (self.needs_parts || has_events) {
            self.write();
        }
        self.needs_parts = false;
        self.device.events.clear();
        self.guest.events.clear();
        self.same = 0;
    }

    fn write(&mut self) {
        let device = self.device.events.as_slice();
        let (guest, is_same) = match self.guest.events.as_slice() {
            [] => (
                device.get(..self.same).unwrap_or_default(),
                self.same == device.len(),
            ),
            events => (events, device == events),
        };
        let device_parts = self.device.state.parts_set_by(device);
        if is_same && device_parts.is_empty() && !self.needs_parts {
            // Motion, for one, changes no part.
            return;
        }
        let guest_parts = match is_same {
            true => device_parts,
            false => self.guest.state.parts_set_by(guest),
        };
        self.device.state.changed(device_parts);
        self.guest.state.changed(guest_parts);
        let changes = match is_same {
            true => [(Whose::Both, device_parts, device), Default::default()],
            false => [
                (Whose::Device, device_parts, device),
                (Whose::Guest, guest_parts, guest),
            ],
        };
        let changes = changes.iter().filter(|(_, parts, _)| !parts.is_empty());
        let next = self.next.wrapping_add(changes.clone().count() as u64);
        if self.needs_parts || next.wrapping_sub(self.first) > MAX_CHANGES {
            self.device.state.record(&self.ledger);
            self.guest.state.record(&self.ledger);
            self.first = self.next;
            let first = self.first;
            self.ledger.write(PARTS, |value| {
                value.u64(first);
            });
            return;
        }
        for (whose, _, events) in changes {
            let number = self.next;
            self.next = number.wrapping_add(1);
            // Its number is new.
            self.ledger.write_new(Change::key(number), |value| {
                Change::encode(number, *whose, events.as_flattened(), value);
            });
        }
    }
}

#[cfg(test)]
mod tests;
