//! What is pressed, switched and touched, on the device or as the guest was told.

use std::collections::BTreeMap;

use super::wire::code::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_SW, EV_SYN, SYN_MT_REPORT, is_contact_axis,
};
use super::wire::{Bits, Event};

/// The tracking id of a slot without a contact.
const NO_CONTACT: i32 = -1;

/// The lasting state of an input device: all that later events take for granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The keys and buttons that are down.
    pub keys: Bits,
    /// The switches that are on.
    pub switches: Bits,
    /// The values of the absolute axes, as far as known, without those of contacts.
    pub axes: BTreeMap<u16, i32>,
    /// The contacts on a multitouch device.
    pub touch: Touch,
}

/// The contacts on a multitouch device with slots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    /// The slot that the next values belong to; `None` where that is not known.
    pub slot: Option<usize>,
    /// What is in each slot.
    pub contacts: Vec<Contact>,
}

/// What is in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    /// The tracking id, -1 for no contact.
    pub id: i32,
    /// The values of the contact's axes, as far as known.
    pub values: BTreeMap<u16, i32>,
}

impl Contact {
    /// The contact with the tracking id `id` (-1 for none), of whose axes nothing is known.
    pub fn new(id: i32) -> Self {
        Self {
            id,
            values: BTreeMap::new(),
        }
    }

    fn is_there(&self) -> bool {
        self.id != NO_CONTACT
    }
}

impl State {
    /// The state of a device with `slots` slots, on which nothing is pressed or touched.
    pub fn new(slots: usize) -> Self {
        Self {
            touch: Touch {
                slot: None,
                contacts: vec![Contact::new(NO_CONTACT); slots],
            },
            ..Self::default()
        }
    }

    /// Takes in what `event` says.
    pub fn apply(&mut self, event: &Event) {
        let Event { kind, code, value } = *event;
        match kind {
            EV_KEY => self.keys.set(code, value != 0),
            EV_SW => self.switches.set(code, value != 0),
            // Without slots, contacts last no longer than a report.
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

    /// What is certain of a guest that was told `self` and then paused or began anew: only that it
    /// has to be told all of `truth`, and the release of what it was told and is no more.
    ///
    /// Nothing tells the two apart for certain, and nothing has to: telling a guest again what it
    /// knows, or the release of what it never saw pressed, changes nothing for it.
    pub fn in_doubt(&self, truth: &Self) -> Self {
        let contacts = self.touch.contacts.iter().zip(&truth.touch.contacts);
        let contacts = contacts.map(|(told, real)| {
            Contact::new(if told.id == real.id {
                NO_CONTACT
            } else {
                told.id
            })
        });
        Self {
            keys: self.keys.without(&truth.keys),
            switches: self.switches.without(&truth.switches),
            axes: BTreeMap::new(),
            touch: Touch {
                slot: None,
                contacts: contacts.collect(),
            },
        }
    }

    /// Ends all that cannot stay when the device is gone: keys and contacts. Switches and axes stay
    /// as they were last.
    pub fn let_go(&mut self) {
        self.keys = Bits::default();
        for contact in &mut self.touch.contacts {
            contact.id = NO_CONTACT;
        }
    }

    /// The reports that bring a guest which was told `self` to `truth`, each with its `SYN_REPORT`;
    /// none where it is there already. With `slotless`, that of a type A device, whose contacts are
    /// not known, it is told that there are none; the next report names those there are.
    pub fn reports_to(&self, truth: &Self, slotless: bool) -> Vec<Vec<Event>> {
        let mut told = self.clone();
        let ended = told.end_replaced_contacts(truth);
        let mut report = told.difference(truth);
        if slotless {
            report.push(Event::new(EV_SYN, SYN_MT_REPORT, 0));
        }
        [ended, report]
            .into_iter()
            .filter(|report| !report.is_empty())
            .map(|mut report| {
                report.push(Event::REPORT);
                report
            })
            .collect()
    }

    /// A contact that took another's slot: the other has to end in a report before, or the guest
    /// would see one contact jump.
    fn end_replaced_contacts(&mut self, truth: &Self) -> Vec<Event> {
        let mut report = Vec::new();
        for (slot, real) in truth.touch.contacts.iter().enumerate() {
            let Some(told) = self.touch.contacts.get(slot) else {
                break;
            };
            if told.is_there() && real.is_there() && told.id != real.id {
                let ended = Event::new(EV_ABS, ABS_MT_TRACKING_ID, NO_CONTACT);
                self.tell_in_slot(slot, ended, &mut report);
            }
        }
        report
    }

    fn difference(&mut self, truth: &Self) -> Vec<Event> {
        let mut report = Vec::new();
        for (kind, told, real) in [
            (EV_KEY, &self.keys, &truth.keys),
            (EV_SW, &self.switches, &truth.switches),
        ] {
            let off = told.without(real);
            let on = real.without(told);
            report.extend(off.iter().map(|code| Event::new(kind, code, 0)));
            report.extend(on.iter().map(|code| Event::new(kind, code, 1)));
        }
        for (axis, value) in &truth.axes {
            if self.axes.get(axis) != Some(value) {
                report.push(Event::new(EV_ABS, *axis, *value));
            }
        }
        for (slot, real) in truth.touch.contacts.iter().enumerate() {
            let Some(told) = self.touch.contacts.get(slot).cloned() else {
                break;
            };
            if told.id != real.id {
                let event = Event::new(EV_ABS, ABS_MT_TRACKING_ID, real.id);
                self.tell_in_slot(slot, event, &mut report);
            }
            // The values of an empty slot are told with the contact that comes next: its device
            // may leave out those that are as the last one's were.
            for (axis, value) in &real.values {
                if told.values.get(axis) != Some(value) {
                    let event = Event::new(EV_ABS, *axis, *value);
                    self.tell_in_slot(slot, event, &mut report);
                }
            }
        }
        // The events to come belong to the slot that the device is at.
        if let Some(slot) = truth.touch.slot
            && self.touch.slot != Some(slot)
        {
            self.choose_slot(slot, &mut report);
        }
        report
    }

    fn tell_in_slot(&mut self, slot: usize, event: Event, report: &mut Vec<Event>) {
        if self.touch.slot != Some(slot) {
            self.choose_slot(slot, report);
        }
        self.apply(&event);
        report.push(event);
    }

    fn choose_slot(&mut self, slot: usize, report: &mut Vec<Event>) {
        // There are at most 1024 slots.
        let event = Event::new(EV_ABS, ABS_MT_SLOT, slot as i32);
        self.apply(&event);
        report.push(event);
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::code::ABS_MT_FIRST;
    use super::*;

    const ABS_X: u16 = 0;
    const ABS_MT_X: u16 = 0x35;

    fn abs(code: u16, value: i32) -> Event {
        Event::new(EV_ABS, code, value)
    }

    fn key(code: u16, value: i32) -> Event {
        Event::new(EV_KEY, code, value)
    }

    fn after(state: &State, events: &[Event]) -> State {
        let mut state = state.clone();
        for event in events {
            state.apply(event);
        }
        state
    }

    /// What a guest that was told `told` is told to get to `truth`, having checked that it gets
    /// there.
    fn told(told: &State, truth: &State) -> Vec<Vec<Event>> {
        let reports = told.reports_to(truth, false);
        let mut reached = after(told, &reports.concat());
        for (reached, truth) in reached.touch.contacts.iter_mut().zip(&truth.touch.contacts) {
            // Values that the truth does not know may stay.
            reached
                .values
                .retain(|axis, _| truth.values.contains_key(axis));
        }
        assert_eq!(&reached, truth);
        for report in &reports {
            assert_eq!(report.iter().filter(|event| event.ends_report()).count(), 1);
            assert!(report.last().is_some_and(Event::ends_report));
        }
        reports
    }

    #[test]
    fn no_difference_is_no_report() {
        let state = after(&State::new(2), &[key(30, 1), abs(ABS_X, 5)]);
        assert_eq!(told(&state, &state), Vec::<Vec<Event>>::new());
    }

    #[test]
    fn keys_switches_and_axes_are_brought_to_the_truth() {
        let guest = after(
            &State::new(0),
            &[
                key(30, 1),
                key(31, 1),
                Event::new(EV_SW, 0, 1),
                abs(ABS_X, 5),
            ],
        );
        let truth = after(
            &State::new(0),
            &[
                key(31, 1),
                key(700, 1),
                Event::new(EV_SW, 5, 1),
                abs(ABS_X, -5),
            ],
        );
        let expected = vec![
            key(30, 0),
            key(700, 1),
            Event::new(EV_SW, 0, 0),
            Event::new(EV_SW, 5, 1),
            abs(ABS_X, -5),
            Event::REPORT,
        ];
        assert_eq!(told(&guest, &truth), [expected]);
    }

    #[test]
    fn a_contact_that_ended_is_ended_and_the_slot_is_the_devices() {
        let touched = [
            abs(ABS_MT_SLOT, 0),
            abs(ABS_MT_TRACKING_ID, 7),
            abs(ABS_MT_X, 100),
            abs(ABS_MT_SLOT, 1),
            abs(ABS_MT_TRACKING_ID, 8),
            abs(ABS_MT_X, 200),
        ];
        let guest = after(&State::new(3), &touched);
        let lifted = [
            abs(ABS_MT_SLOT, 0),
            abs(ABS_MT_TRACKING_ID, -1),
            abs(ABS_MT_SLOT, 1),
            abs(ABS_MT_X, 250),
            abs(ABS_MT_SLOT, 2),
        ];
        let truth = after(&guest, &lifted);
        let expected = vec![
            abs(ABS_MT_SLOT, 0),
            abs(ABS_MT_TRACKING_ID, -1),
            abs(ABS_MT_SLOT, 1),
            abs(ABS_MT_X, 250),
            abs(ABS_MT_SLOT, 2),
            Event::REPORT,
        ];
        assert_eq!(told(&guest, &truth), [expected]);
    }

    #[test]
    fn a_contact_in_anothers_slot_begins_after_the_other_ended() {
        let begin = [abs(ABS_MT_SLOT, 0), abs(ABS_MT_TRACKING_ID, 7)];
        let guest = after(&State::new(1), &begin);
        let truth = after(&guest, &[abs(ABS_MT_TRACKING_ID, 9), abs(ABS_MT_FIRST, 3)]);
        let ended = vec![abs(ABS_MT_TRACKING_ID, -1), Event::REPORT];
        let begun = vec![
            abs(ABS_MT_TRACKING_ID, 9),
            abs(ABS_MT_FIRST, 3),
            Event::REPORT,
        ];
        assert_eq!(told(&guest, &truth), [ended, begun]);
    }

    #[test]
    fn in_doubt_all_is_told_again_and_nothing_stays_pressed() {
        let touched = [
            key(30, 1),
            key(31, 1),
            abs(ABS_X, 5),
            abs(ABS_MT_SLOT, 0),
            abs(ABS_MT_TRACKING_ID, 7),
            abs(ABS_MT_X, 100),
            abs(ABS_MT_SLOT, 1),
            abs(ABS_MT_TRACKING_ID, 8),
        ];
        let guest = after(&State::new(2), &touched);
        let truth = after(&guest, &[key(31, 0), abs(ABS_MT_TRACKING_ID, -1)]);
        let guest = guest.in_doubt(&truth);
        let expected = vec![
            key(31, 0),
            key(30, 1),
            abs(ABS_X, 5),
            abs(ABS_MT_SLOT, 0),
            abs(ABS_MT_TRACKING_ID, 7),
            abs(ABS_MT_X, 100),
            abs(ABS_MT_SLOT, 1),
            abs(ABS_MT_TRACKING_ID, -1),
            Event::REPORT,
        ];
        assert_eq!(told(&guest, &truth), [expected]);
    }

    #[test]
    fn without_slots_the_contacts_end_with_an_empty_one() {
        let state = State::new(0);
        let expected = vec![Event::new(EV_SYN, SYN_MT_REPORT, 0), Event::REPORT];
        assert_eq!(state.reports_to(&state, true), [expected]);
    }

    #[test]
    fn a_slot_that_there_is_not_is_no_slot() {
        let events = [
            abs(ABS_MT_SLOT, 99),
            abs(ABS_MT_TRACKING_ID, 7),
            abs(ABS_MT_SLOT, -1),
            abs(ABS_MT_TRACKING_ID, 8),
        ];
        let state = after(&State::new(1), &events);
        assert_eq!(state.touch.contacts, [Contact::new(-1)]);
        let mut gone = after(&state, &[key(1, 1)]);
        gone.let_go();
        assert!(gone.keys.is_empty());
    }
}
