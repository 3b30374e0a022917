//! Whether a slot that was read from the device is the one that its next events belong to.
//!
//! The kernel keeps an event's value at once, and hands the event to a reader with the report that it
//! is of: a state that is read is ahead of the events still to be read, by those that are queued and
//! a part of the report under way. That does no harm to a value: the events bring it again, the last
//! one last. The slot is another matter, because events of contacts do not name theirs: those up to
//! the first `ABS_MT_SLOT` belong to the slot before it, and the one that was read may be later.
//!
//! Then, and only then, an `ABS_MT_SLOT` with the very slot that was read is still to come, behind
//! such events, and in what was queued or under way. Where one does, the state is to be read again.

use super::wire::Event;
use super::wire::code::{ABS_MT_SLOT, EV_ABS, is_contact_axis};

/// A slot that was read, or none, as long as it may be the wrong one.
#[derive(Debug, Default)]
pub struct ReadSlot(Option<Doubt>);

#[derive(Debug)]
struct Doubt {
    slot: usize,
    /// Whether events of contacts were taken to belong to `slot`.
    used: bool,
    ahead: Ahead,
}

/// By what of the events to come the state may be ahead of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    /// By those that were queued when it was read, and the report then under way.
    Queued,
    /// By the next report of contacts. One of other things may come before: keys repeat by a clock
    /// of their own.
    NextReport,
    /// By what is left of this report.
    ThisReport,
}

impl ReadSlot {
    /// For a state just read, with the slot `slot`.
    pub fn new(slot: Option<usize>) -> Self {
        Self(slot.map(|slot| Doubt {
            slot,
            used: false,
            ahead: Ahead::Queued,
        }))
    }

    /// Everything was read that the device had queued.
    pub fn caught_up(&mut self) {
        if let Some(doubt) = &mut self.0
            && doubt.ahead == Ahead::Queued
        {
            doubt.ahead = Ahead::NextReport;
        }
    }

    /// Takes in the device's next event. `true` where events before it may have been taken to belong
    /// to the wrong slot.
    pub fn is_wrong(&mut self, event: &Event) -> bool {
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
                // From here on the events say it.
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
    use super::super::wire::code::{ABS_MT_TRACKING_ID, EV_KEY};
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

    /// Whether slot 1, which was read, is found to be wrong: once `queued` was read, and `next`.
    fn wrong(queued: &[Event], next: &[Event]) -> bool {
        let mut read = ReadSlot::new(Some(1));
        let mut wrong = queued.iter().any(|event| read.is_wrong(event));
        read.caught_up();
        wrong |= next.iter().any(|event| read.is_wrong(event));
        wrong
    }

    #[test]
    fn a_slot_that_comes_after_contacts_was_read_too_early() {
        let report = [CONTACT, slot(1), CONTACT, Event::REPORT];
        assert!(wrong(&[], &report));
        assert!(wrong(&report, &[]));
        // The slot that was read may be the report's second, or a later one.
        assert!(wrong(&[], &[CONTACT, slot(0), CONTACT, slot(1)]));
        assert!(wrong(&[CONTACT, Event::REPORT], &[KEY, slot(1)]));
        // Keys that repeat tell nothing of a report of contacts that is under way.
        assert!(wrong(&[], &[KEY, Event::REPORT, CONTACT, slot(1)]));
        assert!(wrong(
            &[CONTACT, Event::REPORT, slot(0), CONTACT, Event::REPORT],
            &[Event::REPORT, slot(1)]
        ));
    }

    #[test]
    fn a_slot_that_events_name_first_or_not_at_all_is_right() {
        assert!(!wrong(&[], &[slot(1), CONTACT, slot(0), CONTACT, slot(1)]));
        assert!(!wrong(&[], &[slot(0), CONTACT, slot(1), CONTACT]));
        assert!(!wrong(&[], &[CONTACT, slot(0), CONTACT, slot(2)]));
        // What comes after that was not yet reported when the slot was read.
        assert!(!wrong(&[], &[CONTACT, Event::REPORT, slot(0), slot(1)]));
        let queued = [CONTACT, Event::REPORT, CONTACT, slot(0), Event::REPORT];
        assert!(!wrong(&queued, &[CONTACT, Event::REPORT, slot(1)]));
        let mut unknown = ReadSlot::new(None);
        assert!(
            ![CONTACT, slot(1)]
                .iter()
                .any(|event| unknown.is_wrong(event))
        );
    }
}
