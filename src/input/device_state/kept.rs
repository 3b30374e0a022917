// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device's state whose parts are records, each written only if it changed.

use std::ops::Deref;

use crate::backend::continuity::{Ledger, RecordKey, ValueError, ValueReader, ValueWriter};
use crate::input::protocol::event_codes::{
    ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_SW, is_contact_axis,
};
use crate::input::protocol::{Bitmap, Event};
use crate::input::records::RecordError;

use super::{Contact, DeviceState, Touch};

/// The greatest code of an absolute axis (`ABS_MAX`).
const ABS_MAX: u16 = 0x3f;
/// What is recorded of an unknown slot.
const NO_SLOT: i32 = -1;

/// A device's state, which a ledger has too after [`KeptState::record`].
#[derive(Debug)]
pub(crate) struct KeptState {
    state: DeviceState,
    /// What may differ from the records.
    changed: Parts,
    table: u16,
}

/// A set of the parts of a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Parts {
    /// Bits of words.
    keys: u16,
    switches: u16,
    axes: Axes,
}

/// Which axes and contacts are in a set of parts. An event adds all at once: that costs less than to tell them apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Axes {
    #[default]
    None,
    /// Those that have a value.
    Known,
    /// Those too whose record is to be removed.
    All,
}

const _: () = assert!(Bitmap::WORDS == 16 && ABS_MAX == 63);

impl Parts {
    const ALL: Self = Self {
        keys: u16::MAX,
        switches: u16::MAX,
        axes: Axes::All,
    };

    /// Those that `events`, as they are encoded, set in a state that follows contacts if `has_slots`.
    fn set_by(events: &[[u8; Event::SIZE]], has_slots: bool) -> Self {
        let mut parts = Self::default();
        // Those of touch screens, which send many events in a report, set no keys most of the time. Others than the 32 kinds
        // that there are count as one of them.
        let kinds = events.iter().fold(0, |kinds: u64, event| {
            kinds | 1_u64.wrapping_shl(u64::from_le_bytes(*event) as u32)
        });
        if has_slots && kinds & (1 << EV_KEY | 1 << EV_SW) == 0 {
            if kinds & 1 << EV_ABS != 0 {
                parts.axes = Axes::Known;
            }
            return parts;
        }
        for event in events {
            // Its first two fields, read at once: touch screens send many events in a report.
            let event = u64::from_le_bytes(*event);
            let (kind, code) = (event as u16, (event >> 16) as u16);
            if kind == EV_ABS {
                if code <= ABS_MAX && (has_slots || !is_contact_axis(code)) {
                    parts.axes = Axes::Known;
                }
                continue;
            }
            let bit = || 1u16.checked_shl(Bitmap::word_of(code) as u32).unwrap_or(0);
            match kind {
                EV_KEY => parts.keys |= bit(),
                EV_SW => parts.switches |= bit(),
                _ => {}
            }
        }
        parts
    }

    /// Whether there is none.
    pub(crate) fn is_empty(self) -> bool {
        self == Self::default()
    }

    fn add(&mut self, other: Self) {
        self.keys |= other.keys;
        self.switches |= other.switches;
        self.axes = self.axes.max(other.axes);
    }

    /// Those of `state`.
    fn iter(self, state: &DeviceState) -> impl Iterator<Item = Part> {
        let words = (0..Bitmap::WORDS).flat_map(move |word| {
            let keys = (self.keys >> word & 1 == 1).then_some(Part::Keys(word));
            let switches = (self.switches >> word & 1 == 1).then_some(Part::Switches(word));
            keys.into_iter().chain(switches)
        });
        let all = (self.axes == Axes::All).then_some(0..=ABS_MAX);
        let known = (self.axes == Axes::Known).then(|| state.axes.keys().copied());
        let known = known.into_iter().flatten().filter(|axis| *axis <= ABS_MAX);
        let axes = all.into_iter().flatten().chain(known);
        let touch = (self.axes != Axes::None).then_some(Part::Touch);
        words.chain(axes.map(Part::Axis)).chain(touch)
    }
}

/// A part of a state with a record of its own. A part that has the value of a new state has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// 64 keys: a word of the bitmap.
    Keys(usize),
    /// 64 switches.
    Switches(usize),
    /// An absolute axis.
    Axis(u16),
    /// The contacts, and the slot that the next events of them belong to. A report changes most of it.
    Touch,
}

impl Part {
    /// The kind of part, and a number of 16 bits.
    fn id(self) -> u64 {
        match self {
            Self::Keys(word) => word as u64 & 0xffff,
            Self::Switches(word) => 1 << 32 | word as u64 & 0xffff,
            Self::Axis(axis) => 2 << 32 | u64::from(axis),
            Self::Touch => 3 << 32,
        }
    }

    /// `None` if there is no such part. A word may be beyond the last.
    fn from_id(id: u64) -> Option<Self> {
        let number = id as u16;
        let part = match id >> 32 {
            0 => Self::Keys(number.into()),
            1 => Self::Switches(number.into()),
            2 => Self::Axis(number),
            3 => Self::Touch,
            _ => return None,
        };
        (part.id() == id).then_some(part)
    }
}

impl KeptState {
    /// The state of a device with `slots` slots as the records say; one on which nothing is pressed or touched
    /// where there are none.
    ///
    /// # Errors
    /// If a record cannot be of such a device.
    pub(crate) fn load(slots: usize, ledger: &Ledger, table: u16) -> Result<Self, RecordError> {
        let mut state = DeviceState::new(slots);
        ledger.read_table(table, |id, value| {
            let part = Part::from_id(id);
            let part = part.ok_or(ValueError::Content("there is no such part"))?;
            decode(&mut state, part, value)
        })?;
        Ok(Self {
            state,
            changed: Parts::default(),
            table,
        })
    }

    /// Applies `event`: see [`DeviceState::apply`]. That it did, [`Self::changed`] is to be told.
    pub(crate) fn apply(&mut self, event: &Event) {
        self.state.apply(event);
    }

    /// Applies `event`, and takes note of what it sets.
    pub(crate) fn apply_changed(&mut self, event: &Event) {
        self.apply(event);
        self.changed(self.parts_set_by(&[event.to_bytes()]));
    }

    /// The parts that `events`, as they are encoded, set.
    pub(crate) fn parts_set_by(&self, events: &[[u8; Event::SIZE]]) -> Parts {
        Parts::set_by(events, !self.state.touch.contacts.is_empty())
    }

    /// These parts were set since the last [`Self::record`].
    pub(crate) fn changed(&mut self, parts: Parts) {
        self.changed.add(parts);
    }

    /// All may have been set since the last [`Self::record`].
    pub(crate) fn all_changed(&mut self) {
        self.changed = Parts::ALL;
    }

    /// Writes what changed since the last call.
    pub(crate) fn record(&mut self, ledger: &Ledger) {
        for part in std::mem::take(&mut self.changed).iter(&self.state) {
            let key = RecordKey::new(self.table, part.id());
            match encode(&self.state, part) {
                Some(field) => ledger.write(key, |value| field.write(&self.state, value)),
                None => ledger.remove(key),
            }
        }
    }

    /// Releases keys and contacts: see [`DeviceState::release_all`].
    pub(crate) fn release_all(&mut self) {
        self.state.release_all();
        self.all_changed();
    }

    /// The state is another one.
    pub(crate) fn set(&mut self, state: DeviceState) {
        self.state = state;
        self.all_changed();
    }
}

#[cfg(test)]
impl PartialEq for KeptState {
    fn eq(&self, other: &Self) -> bool {
        self.state == other.state
    }
}

impl Deref for KeptState {
    type Target = DeviceState;

    fn deref(&self) -> &DeviceState {
        &self.state
    }
}

/// What a part's record consists of.
enum Field {
    Word([u8; 8]),
    Number(i32),
    Touch,
}

impl Field {
    /// Writes it, of `state`.
    fn write(self, state: &DeviceState, value: &mut ValueWriter) {
        match self {
            Self::Word(bytes) => {
                value.bytes(&bytes);
            }
            Self::Number(number) => {
                value.i32(number);
            }
            Self::Touch => write_touch(&state.touch, value),
        }
    }
}

/// What a part's record consists of; `None` if it has none.
fn encode(state: &DeviceState, part: Part) -> Option<Field> {
    let word = |bits: &Bitmap, word| {
        let bytes = bits.word(word)?;
        (bytes != [0; 8]).then_some(Field::Word(bytes))
    };
    match part {
        Part::Keys(index) => word(&state.keys, index),
        Part::Switches(index) => word(&state.switches, index),
        Part::Axis(axis) => state.axes.get(&axis).copied().map(Field::Number),
        Part::Touch => {
            let is_new = |contact: &Contact| !contact.is_present() && contact.values.is_empty();
            let touch = &state.touch;
            let is_new = touch.slot.is_none() && touch.contacts.iter().all(is_new);
            (!is_new).then_some(Field::Touch)
        }
    }
}

/// The slot, or -1, and of each contact its tracking id and the values of its axes, with their number before.
fn write_touch(touch: &Touch, value: &mut ValueWriter) {
    // A slot that the device does not have is kept as one.
    let slot = |slot| i32::try_from(slot).unwrap_or(i32::MAX);
    value.i32(touch.slot.map_or(NO_SLOT, slot));
    for contact in &touch.contacts {
        // There are fewer than 64 axes.
        value.i32(contact.id).u8(contact.values.len() as u8);
        for (axis, number) in &contact.values {
            value.u16(*axis).i32(*number);
        }
    }
}

fn read_touch(touch: &mut Touch, value: &mut ValueReader<'_>) -> Result<(), ValueError> {
    touch.slot = match value.i32()? {
        NO_SLOT => None,
        slot => {
            let slot = usize::try_from(slot);
            Some(slot.map_err(|_| ValueError::Content("there is no such slot"))?)
        }
    };
    for contact in &mut touch.contacts {
        *contact = Contact::new(value.i32()?);
        for _ in 0..value.u8()? {
            let axis = value.u16()?;
            if !is_contact_axis(axis) || axis == ABS_MT_TRACKING_ID {
                return Err(ValueError::Content("there is no such axis of a contact"));
            }
            contact.values.insert(axis, value.i32()?);
        }
    }
    Ok(())
}

/// Sets a part to the value of its record.
fn decode(
    state: &mut DeviceState,
    part: Part,
    value: &mut ValueReader<'_>,
) -> Result<(), ValueError> {
    match part {
        Part::Keys(index) | Part::Switches(index) => {
            let bits = match part {
                Part::Keys(_) => &mut state.keys,
                _ => &mut state.switches,
            };
            let word = value.array()?;
            if !bits.set_word(index, word) {
                return Err(ValueError::Content("there are no such codes"));
            }
        }
        Part::Axis(axis) if axis > ABS_MAX => {
            return Err(ValueError::Content("there is no such axis"));
        }
        Part::Axis(axis) => {
            state.axes.insert(axis, value.i32()?);
        }
        Part::Touch => read_touch(&mut state.touch, value)?,
    }
    Ok(())
}

#[cfg(test)]
mod tests;
