//! From the device's events to what the guest is told: whole reports, or none of a report.
//!
//! A report is all the events up to a `SYN_REPORT`. Reports wait here while the driver has no
//! buffers for them. What waits is bounded: once the bound is reached the reports that follow are
//! dropped, the newest, because the guest is then told first what happened first, and each report
//! that waits still follows from the one before. When all that waited is gone, the guest is told by
//! one correction in which state the device is now, so that no key stays down for it and no contact
//! stays on the screen. Only what leaves no state is lost: motion, and keys tapped meanwhile.

use std::collections::VecDeque;

use super::slot::ReadSlot;
use super::source::Description;
use super::state::State;
use super::wire::Event;
use super::wire::code::{
    EV_ABS, EV_KEY, EV_MSC, EV_REL, EV_REP, EV_SW, EV_SYN, SYN_DROPPED, SYN_MT_REPORT,
};

/// The events that may wait for the driver: what a mouse with 1000 reports a second makes in a third
/// of a second, and a hundred frames of two fingers. Older input serves nobody.
const MAX_WAITING: usize = 1024;
/// The events of a report. Far more than any device makes, so that one that never ends a report
/// does no harm.
const MAX_REPORT: usize = 1024;
/// The value of a key that repeats.
const REPEATED: i32 = 2;

/// What of a device's events the guest was told, and what it is still to be told.
#[derive(Debug)]
pub struct Reports {
    repeats: bool,
    slotless: bool,
    /// The report that is being read.
    partial: Vec<Event>,
    reading: Reading,
    /// The slot that the state said when it was read.
    slot: ReadSlot,
    /// Reports to be sent, the first of them perhaps in part.
    waiting: VecDeque<VecDeque<Event>>,
    /// How many events there are in `waiting`.
    waiting_events: usize,
    /// Whether a part of the first report in `waiting` was sent.
    begun: bool,
    /// Whether reports were dropped since the last correction.
    behind: bool,
    dropped: u64,
    /// The device's state, after the last whole report of it.
    truth: State,
    /// The state that the events sent so far have brought the guest to.
    told: State,
}

/// What becomes of the next event of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// It belongs to `partial`.
    Report,
    /// It belongs to a report that is too long: only its state is followed.
    Oversized,
    /// The kernel lost events, or they were taken to be of the wrong slot, so that nothing is known
    /// until the device's state was read.
    Lost,
}

impl Reports {
    /// For a device that nothing is known of but its description, and a guest that was told nothing.
    pub fn new(device: &Description) -> Self {
        Self {
            repeats: device.codes(EV_REP).is_some(),
            slotless: device.is_slotless(),
            partial: Vec::new(),
            reading: Reading::Report,
            slot: ReadSlot::default(),
            waiting: VecDeque::new(),
            waiting_events: 0,
            begun: false,
            behind: false,
            dropped: 0,
            truth: State::new(device.slots()),
            told: State::new(device.slots()),
        }
    }

    /// Begins with a guest, the device being in the state `truth`: whether the guest begins too or
    /// goes on after a pause, it is told all of it.
    pub fn begin(&mut self, truth: State) {
        self.end();
        self.slot = ReadSlot::new(truth.touch.slot);
        self.truth = truth;
        // `told` becomes certain only as this is sent: before, the guest may pause again.
        let told = self.told.in_doubt(&self.truth);
        self.correct(&told);
    }

    /// As [`Reports::begin`], the device being gone: all is let go, and the rest is as it was last.
    pub fn begin_gone(&mut self) {
        let mut truth = self.truth.clone();
        truth.let_go();
        self.begin(truth);
    }

    /// Forgets what waits, because there is no guest to tell it to. What the guest was told is kept:
    /// it may only be paused.
    pub fn end(&mut self) {
        self.partial.clear();
        self.reading = Reading::Report;
        self.waiting.clear();
        self.waiting_events = 0;
        self.begun = false;
        self.behind = false;
    }

    /// Takes in events as they were read from the device.
    pub fn take(&mut self, events: &[Event]) {
        for event in events {
            match (event.kind, event.code) {
                (EV_SYN, SYN_DROPPED) => {
                    self.lose();
                    self.dropped = self.dropped.saturating_add(1);
                }
                _ if self.reading == Reading::Lost => {}
                // Nobody was too slow: that does not count as dropped.
                _ if self.slot.is_wrong(event) => self.lose(),
                _ if event.ends_report() => self.end_report(),
                // LEDs, sounds and repeat rates go the other way. The kernel shows a reader its own
                // writes too: handed back to the driver they would light an LED that it put out
                // meanwhile, which it would report, and so on without an end.
                (EV_KEY | EV_REL | EV_ABS | EV_MSC | EV_SW, _) | (EV_SYN, SYN_MT_REPORT) => {
                    self.add(*event);
                }
                _ => {}
            }
        }
    }

    fn lose(&mut self) {
        self.partial.clear();
        self.reading = Reading::Lost;
    }

    fn add(&mut self, event: Event) {
        if self.reading == Reading::Report {
            // One place is left for the report's end.
            if self.partial.len() < MAX_REPORT - 1 {
                self.partial.push(event);
                return;
            }
            self.reading = Reading::Oversized;
            for event in std::mem::take(&mut self.partial) {
                self.truth.apply(&event);
            }
        }
        self.truth.apply(&event);
    }

    fn end_report(&mut self) {
        if self.reading == Reading::Oversized {
            self.reading = Reading::Report;
            self.drop_report();
            return;
        }
        let mut report = std::mem::take(&mut self.partial);
        for event in &report {
            self.truth.apply(event);
        }
        if self.repeats {
            drop_repetitions(&mut report);
        }
        if report.is_empty() {
            return;
        }
        report.push(Event::REPORT);
        if self.behind || self.waiting_events + report.len() > MAX_WAITING {
            self.drop_report();
        } else {
            self.push(report);
        }
    }

    fn drop_report(&mut self) {
        self.behind = true;
        self.dropped = self.dropped.saturating_add(1);
    }

    fn push(&mut self, report: Vec<Event>) {
        self.waiting_events += report.len();
        self.waiting.push_back(report.into());
    }

    /// All that the device had queued was read.
    pub fn caught_up(&mut self) {
        self.slot.caught_up();
    }

    /// Whether events were lost: all that the kernel still has is to be read and dropped, and then
    /// [`Reports::recover`] to be called.
    pub fn lost(&self) -> bool {
        self.reading == Reading::Lost
    }

    /// Goes on after events were lost, with the device's state as it is now, or as it was last,
    /// where it cannot be read.
    pub fn recover(&mut self, truth: Option<State>) {
        self.slot = ReadSlot::new(truth.as_ref().and_then(|truth| truth.touch.slot));
        if let Some(truth) = truth {
            self.truth = truth;
        }
        self.partial.clear();
        self.reading = Reading::Report;
        self.behind = true;
    }

    /// The device is gone: the guest is told that everything was let go, before anything else, but
    /// after the rest of a report that it has begun to read.
    pub fn gone(&mut self) {
        let begun = self.waiting.pop_front().filter(|_| self.begun);
        self.end();
        if let Some(report) = begun {
            self.begun = true;
            self.waiting_events = report.len();
            self.waiting.push_back(report);
        }
        self.truth.let_go();
        self.behind = true;
    }

    /// The events that are left of the next report; `None` where the guest is told all.
    pub fn next_report(&mut self) -> Option<usize> {
        if self.waiting.is_empty() && self.behind {
            self.correct(&self.told.clone());
        }
        self.waiting.front().map(VecDeque::len)
    }

    /// The next event for the guest.
    pub fn next_event(&self) -> Option<Event> {
        self.waiting.front()?.front().copied()
    }

    /// The guest was given what [`Reports::next_event`] says.
    pub fn sent(&mut self) {
        let Some(report) = self.waiting.front_mut() else {
            return;
        };
        if let Some(event) = report.pop_front() {
            self.told.apply(&event);
            self.waiting_events -= 1;
        }
        self.begun = !report.is_empty();
        if !self.begun {
            self.waiting.pop_front();
        }
    }

    /// How many reports were dropped since this was asked last.
    pub fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    fn correct(&mut self, told: &State) {
        self.behind = false;
        for report in told.reports_to(&self.truth, self.slotless) {
            self.push(report);
        }
    }
}

/// Takes the repetitions of keys out of `report`. The driver is told that the device repeats keys
/// and then has the guest repeat them, so the host's repetitions would come on top. The guest's own
/// are the better ones: they stop with the key, however late the host's events come.
fn drop_repetitions(report: &mut Vec<Event>) {
    let before = report.len();
    report.retain(|event| !(event.kind == EV_KEY && event.value == REPEATED));
    let dropped = report.len() < before;
    if dropped && report.iter().all(|event| event.kind == EV_MSC) {
        // The scancodes of the repetitions.
        report.clear();
    }
}

#[cfg(test)]
mod tests;
