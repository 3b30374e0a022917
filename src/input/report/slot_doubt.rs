// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Detects that the multitouch slot in a state read from the device is ahead of the events still to
//! be read.
//!
//! The kernel updates a device's state with each event, and hands events to readers by whole reports.
//! A state that is read is therefore ahead of the events still to be read: by those that are queued,
//! and by a part of the report in progress. A value that is ahead does no harm, since the events bring
//! it again, the last one last. The slot does: events of contacts do not name their slot. Those before
//! the first `ABS_MT_SLOT` belong to the slot before it, which may be an earlier one than was read.
//!
//! In that case, and in no other, an `ABS_MT_SLOT` with the very slot that was read follows such
//! events, among those that were queued or in progress. The state then has to be read again.

use crate::backend::continuity::{ValueError, ValueReader, ValueWriter};
use crate::input::protocol::Event;
use crate::input::protocol::event_codes::{ABS_MT_SLOT, EV_ABS, is_contact_axis};

/// The slot in a state that was read, as long as it may be ahead of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SlotDoubt(Option<Doubt>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Doubt {
    slot: usize,
    /// Whether events of contacts were attributed to `slot`.
    used: bool,
    ahead: Ahead,
}

/// The events to come that the state may be ahead by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// Those that were queued when it was read, and the report in progress then.
    Queued,
    /// The next report of contacts. Others may come before it: a timer of the kernel repeats keys.
    NextReport,
    /// The rest of the current report.
    ThisReport,
}

impl SlotDoubt {
    /// Adds it to a record.
    pub(super) fn encode(&self, value: &mut ValueWriter) {
        let Some(doubt) = &self.0 else {
            value.u8(0);
            return;
        };
        let ahead = match doubt.ahead {
            Ahead::Queued => 1,
            Ahead::NextReport => 2,
            Ahead::ThisReport => 3,
        };
        value.u8(ahead).bool(doubt.used).u64(doubt.slot as u64);
    }

    /// Reads it from a record.
    pub(super) fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        let ahead = match value.u8()? {
            0 => return Ok(Self(None)),
            1 => Ahead::Queued,
            2 => Ahead::NextReport,
            3 => Ahead::ThisReport,
            _ => return Err(ValueError::Content("there is no such doubt")),
        };
        let used = value.bool()?;
        let slot = usize::try_from(value.u64()?);
        let slot = slot.map_err(|_| ValueError::Content("there is no such slot"))?;
        Ok(Self(Some(Doubt { slot, used, ahead })))
    }

    /// The slot `slot` of a state just read.
    pub(super) fn new(slot: Option<usize>) -> Self {
        Self(slot.map(|slot| Doubt {
            slot,
            used: false,
            ahead: Ahead::Queued,
        }))
    }

    /// All queued events were read.
    pub(super) fn caught_up(&mut self) {
        match &mut self.0 {
            Some(doubt) if doubt.ahead == Ahead::Queued => doubt.ahead = Ahead::NextReport,
            _ => {}
        }
    }

    /// Observes the device's next event. Returns `true` if events before it may have been attributed to
    /// the wrong slot.
    #[must_use]
    pub(super) fn observe(&mut self, event: &Event) -> bool {
        let Some(doubt) = &mut self.0 else {
            return false;
        };
        match (event.kind, event.code) {
            _ if event.ends_report() => {
                if doubt.ahead == Ahead::ThisReport {
                    self.0 = None;
                }
                return false;
            }
            (EV_ABS, ABS_MT_SLOT) if !doubt.used => {
                // From here on the events name the slot.
                self.0 = None;
                return false;
            }
            (EV_ABS, ABS_MT_SLOT) if usize::try_from(event.value) == Ok(doubt.slot) => return true,
            (EV_ABS, ABS_MT_SLOT) => {}
            (EV_ABS, axis) if is_contact_axis(axis) => doubt.used = true,
            _ => return false,
        }
        if doubt.ahead == Ahead::NextReport {
            doubt.ahead = Ahead::ThisReport;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use crate::input::protocol::event_codes::{ABS_MT_TRACKING_ID, EV_KEY};

    use super::*;

    const CONTACT: Event = Event {
        kind: EV_ABS,
        code: ABS_MT_TRACKING_ID,
        value: 7,
    };
    const KEY: Event = Event {
        kind: EV_KEY,
        code: 30,
        value: 2,
    };

    fn slot(slot: i32) -> Event {
        Event::new(EV_ABS, ABS_MT_SLOT, slot)
    }

    /// Whether slot 1, which was read, is found to be wrong by the events `queued` and `next`.
    fn wrong(queued: &[Event], next: &[Event]) -> bool {
        let mut doubt = SlotDoubt::new(Some(1));
        let mut wrong = queued.iter().any(|event| doubt.observe(event));
        doubt.caught_up();
        wrong |= next.iter().any(|event| doubt.observe(event));
        wrong
    }

    #[test]
    fn slot_that_follows_contacts_is_wrong() {
        let report = [CONTACT, slot(1), CONTACT, Event::REPORT];
        assert!(wrong(&[], &report));
        assert!(wrong(&report, &[]));
        // The slot that was read may be the report's second, or a later one.
        assert!(wrong(&[], &[CONTACT, slot(0), CONTACT, slot(1)]));
        assert!(wrong(&[CONTACT, Event::REPORT], &[KEY, slot(1)]));
        // Repeated keys say nothing of a report of contacts in progress.
        assert!(wrong(&[], &[KEY, Event::REPORT, CONTACT, slot(1)]));
        assert!(wrong(
            &[CONTACT, Event::REPORT, slot(0), CONTACT, Event::REPORT],
            &[Event::REPORT, slot(1)]
        ));
    }

    #[test]
    fn slot_that_events_name_first_or_never_is_right() {
        assert!(!wrong(&[], &[slot(1), CONTACT, slot(0), CONTACT, slot(1)]));
        assert!(!wrong(&[], &[slot(0), CONTACT, slot(1), CONTACT]));
        assert!(!wrong(&[], &[CONTACT, slot(0), CONTACT, slot(2)]));
        // What follows was not yet reported when the slot was read.
        assert!(!wrong(&[], &[CONTACT, Event::REPORT, slot(0), slot(1)]));
        let queued = [CONTACT, Event::REPORT, CONTACT, slot(0), Event::REPORT];
        assert!(!wrong(&queued, &[CONTACT, Event::REPORT, slot(1)]));
        let mut unknown = SlotDoubt::new(None);
        assert!(
            ![CONTACT, slot(1)]
                .iter()
                .any(|event| unknown.observe(event))
        );
    }
}
