// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of the input device in the ledger, which outlive the process: the numbers of the tables, and what values have
//! in common. Each type writes and reads its own.

use crate::backend::continuity::{InvalidRecord, ValueError, ValueReader, ValueWriter};
use crate::input::protocol::{Bitmap, Event};

/// The tables. Virtqueues have those below 16.
pub(crate) mod tables {
    /// What the guest was told that the device is.
    pub(crate) const INFO: u16 = 33;
    /// The evdev device.
    pub(crate) const EVDEV: u16 = 34;
    /// Who has the source.
    pub(crate) const OWNERSHIP: u16 = 35;
    /// The device's state, by part.
    pub(crate) const DEVICE_STATE: u16 = 36;
    /// What the guest knows of it, by part.
    pub(crate) const GUEST_STATE: u16 = 37;
    /// How far the report queue is.
    pub(crate) const REPORT_QUEUE: u16 = 38;
    /// The reports that wait, by number.
    pub(crate) const REPORTS: u16 = 39;
    /// The event queue.
    pub(crate) const EVENT_QUEUE: u16 = 40;
    /// What the driver selected in the configuration space.
    pub(crate) const CONFIG: u16 = 41;
    /// LEDs and sounds as the guest set them last, by type and code.
    pub(crate) const LEDS_AND_SOUNDS: u16 = 42;
    /// The LEDs of the host.
    pub(crate) const HOST_LEDS: u16 = 43;
    /// The clients of a virtual device, by slot.
    pub(crate) const CLIENTS: u16 = 44;
    /// The absolute axes of a virtual device, by axis.
    pub(crate) const VIRTUAL_AXES: u16 = 45;
    /// The LEDs of a virtual device.
    pub(crate) const VIRTUAL_LEDS: u16 = 46;
    /// The events that changed the two states since their parts were written, by number.
    pub(crate) const STATE_CHANGES: u16 = 47;
}

/// Why the state that a predecessor left cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is of a device that is not the one of this process's options.
    #[error("it is of another device")]
    Device,
    /// A record is not as this program writes it.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
}

/// Writes events, which are the rest of a value.
pub(crate) fn write_events(value: &mut ValueWriter, events: &[Event]) {
    for event in events {
        value.bytes(&event.to_bytes());
    }
}

/// Reads the events that all that is left of a value consists of.
///
/// # Errors
/// If it ends within one.
pub(crate) fn read_events(value: &mut ValueReader<'_>) -> Result<Vec<Event>, ValueError> {
    let mut events = Vec::new();
    while !value.is_empty() {
        events.push(Event::from_bytes(value.array()?));
    }
    Ok(events)
}

/// Reads the codes that all that is left of a value consists of.
///
/// # Errors
/// If there are more than event types have.
pub(crate) fn read_codes(value: &mut ValueReader<'_>) -> Result<Bitmap, ValueError> {
    Bitmap::from_trimmed(value.rest()).ok_or(ValueError::TooLong)
}

#[cfg(test)]
pub(crate) mod testing {
    use crate::backend::continuity::{Continuity, Ledger, Owner};
    use crate::backend::testing::kept_state::KeptState;

    /// The records of processes that die one after the other.
    pub(crate) struct KeptRecords {
        kept: KeptState,
        continuity: Continuity,
    }

    impl KeptRecords {
        /// Of the first process.
        pub(crate) fn new() -> Self {
            let mut kept = KeptState::new().expect("cannot make descriptors");
            let continuity = kept.next_process().expect("cannot map memory");
            Self { kept, continuity }
        }

        /// The device's records, as the process that runs has them.
        pub(crate) fn ledger(&self) -> Ledger {
            self.continuity.ledger(Owner::Device)
        }

        /// The process died, and the next one has these records.
        pub(crate) fn successor(&mut self) -> Ledger {
            self.continuity = self.kept.next_process().expect("the state is valid");
            self.ledger()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::continuity::value;

    #[test]
    fn events_are_read_as_they_were_written_and_none_that_is_cut() {
        let events = [Event::new(3, 0x39, -1), Event::REPORT];
        let mut writer = ValueWriter::default();
        write_events(&mut writer, &events);
        let bytes = writer.as_bytes();
        assert_eq!(value::read(bytes, read_events), Ok(events.to_vec()));
        let cut = &bytes[..bytes.len() - 1];
        assert_eq!(value::read(cut, read_events), Err(ValueError::TooShort));
    }
}
