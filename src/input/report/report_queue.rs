//! The reports that wait for the driver, and what the guest knows of the device's state.
//!
//! A report is all events up to a `SYN_REPORT`. Reports wait here while the driver has no buffers for
//! them. The queue is bounded: once it is full, the newest reports are dropped, because the guest is
//! to be told first what happened first, and because each report that waits builds on the one before.
//! When the queue is empty again, a correction brings the guest to the device's current state, so that
//! no key stays pressed for it and no contact stays on its screen. Only what leaves no state is lost:
//! motion, and keys that were tapped meanwhile.

use std::collections::VecDeque;

use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::Event;
use crate::input::protocol::event_codes::{
    EV_ABS, EV_KEY, EV_MSC, EV_REL, EV_REP, EV_SW, EV_SYN, SYN_DROPPED, SYN_MT_REPORT,
};

use super::correction::correction;
use super::slot_doubt::SlotDoubt;

/// Most events that wait for the driver: a third of a second of a mouse with 1000 reports a second, or
/// a hundred frames of two fingers. Older input is of no use.
const MAX_WAITING: usize = 1024;
/// Most events of a report, far more than any device sends: a bound for a device that never ends its
/// report.
const MAX_REPORT: usize = 1024;
/// The value of an `EV_KEY` event that autorepeat made.
const REPEATED: i32 = 2;

/// Turns a device's events into whole reports for the guest.
#[derive(Debug)]
pub(crate) struct ReportQueue {
    /// Whether the guest repeats keys itself (`EV_REP`).
    guest_repeats: bool,
    /// Whether it is a multitouch device of type A.
    slotless: bool,
    /// The report in progress.
    partial: Vec<Event>,
    intake: Intake,
    /// The slot of the state that was read last, as long as it is in doubt.
    slot_doubt: SlotDoubt,
    /// The reports to send. Of the first one, the rest.
    waiting: VecDeque<VecDeque<Event>>,
    /// Number of events in `waiting`.
    waiting_events: usize,
    /// Whether a part of the first report in `waiting` was sent.
    partly_sent: bool,
    /// Whether the guest needs a correction, because reports were dropped.
    resync_needed: bool,
    /// Number of reports dropped since the last [`Self::take_dropped`].
    dropped: u64,
    /// The device's state after its last whole report.
    device_state: DeviceState,
    /// The state that the events sent so far brought the guest to.
    guest_state: DeviceState,
}

/// What becomes of the device's next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Intake {
    /// It is added to `partial`.
    InReport,
    /// It belongs to a report that is too long: only its state is followed.
    Oversized,
    /// It is ignored until the device's state was read, because the kernel dropped events or events
    /// were attributed to the wrong slot.
    OutOfSync,
}

impl ReportQueue {
    /// An empty queue for the device `info` and a guest that was told nothing yet.
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        Self {
            guest_repeats: info.codes(EV_REP).is_some(),
            slotless: info.is_slotless(),
            partial: Vec::new(),
            intake: Intake::InReport,
            slot_doubt: SlotDoubt::default(),
            waiting: VecDeque::new(),
            waiting_events: 0,
            partly_sent: false,
            resync_needed: false,
            dropped: 0,
            device_state: DeviceState::new(info.slots()),
            guest_state: DeviceState::new(info.slots()),
        }
    }

    /// A guest gets the device, which is in the state `device_state`. The guest is told all of it,
    /// whether it has just started or was paused.
    pub(crate) fn guest_got_device(&mut self, device_state: DeviceState) {
        self.clear();
        self.slot_doubt = SlotDoubt::new(device_state.touch.slot);
        self.device_state = device_state;
        // `guest_state` follows as this is sent: the guest may be paused again before.
        let guest_state = self.guest_state.assumed_guest_state(&self.device_state);
        self.correct(&guest_state);
    }

    /// As [`Self::guest_got_device`], with a device that is gone: everything is released, and switches
    /// and axes keep their last values.
    pub(crate) fn guest_got_gone_device(&mut self) {
        let mut device_state = self.device_state.clone();
        device_state.release_all();
        self.guest_got_device(device_state);
    }

    /// The guest no longer has the device. Drops what waits, and keeps what the guest knows: it may
    /// only be paused.
    pub(crate) fn guest_lost_device(&mut self) {
        self.clear();
    }

    /// Whether there is room for as many events as a source that keeps them returns at once. A half of the
    /// queue is far more than that.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting_events <= MAX_WAITING / 2
    }

    fn clear(&mut self) {
        self.partial.clear();
        self.intake = Intake::InReport;
        self.waiting.clear();
        self.waiting_events = 0;
        self.partly_sent = false;
        self.resync_needed = false;
    }

    /// Adds events that were read from the device.
    pub(crate) fn push_events(&mut self, events: &[Event]) {
        for event in events {
            match (event.kind, event.code) {
                (EV_SYN, SYN_DROPPED) => {
                    self.lose_sync();
                    self.dropped = self.dropped.saturating_add(1);
                }
                _ if self.intake == Intake::OutOfSync => {}
                // Not counted as dropped: nobody was too slow.
                _ if self.slot_doubt.observe(event) => self.lose_sync(),
                _ if event.ends_report() => self.end_report(),
                // LEDs, sounds and repeat rates are the driver's to set. The kernel hands a reader its
                // own writes too: passed on, they would switch on an LED that the driver has switched
                // off meanwhile, which it would report, and so on endlessly.
                (EV_KEY | EV_REL | EV_ABS | EV_MSC | EV_SW, _) | (EV_SYN, SYN_MT_REPORT) => {
                    self.push_event(*event);
                }
                _ => {}
            }
        }
    }

    fn lose_sync(&mut self) {
        self.partial.clear();
        self.intake = Intake::OutOfSync;
    }

    fn push_event(&mut self, event: Event) {
        if self.intake == Intake::InReport {
            // One place remains for the SYN_REPORT.
            if self.partial.len() < MAX_REPORT - 1 {
                self.partial.push(event);
                return;
            }
            self.intake = Intake::Oversized;
            for event in std::mem::take(&mut self.partial) {
                self.device_state.apply(&event);
            }
        }
        self.device_state.apply(&event);
    }

    fn end_report(&mut self) {
        if self.intake == Intake::Oversized {
            self.intake = Intake::InReport;
            self.drop_report();
            return;
        }
        let mut report = std::mem::take(&mut self.partial);
        for event in &report {
            self.device_state.apply(event);
        }
        if self.guest_repeats {
            remove_autorepeat(&mut report);
        }
        if report.is_empty() {
            return;
        }
        report.push(Event::REPORT);
        if self.resync_needed || self.waiting_events + report.len() > MAX_WAITING {
            self.drop_report();
        } else {
            self.push_report(report);
        }
    }

    fn drop_report(&mut self) {
        self.resync_needed = true;
        self.dropped = self.dropped.saturating_add(1);
    }

    fn push_report(&mut self, report: Vec<Event>) {
        self.waiting_events += report.len();
        self.waiting.push_back(report.into());
    }

    /// All events that the source had queued were read.
    pub(crate) fn caught_up(&mut self) {
        self.slot_doubt.caught_up();
    }

    /// Whether events were lost. The caller then reads what the source still has queued, which is
    /// ignored, and calls [`Self::recover`].
    pub(crate) fn is_out_of_sync(&self) -> bool {
        self.intake == Intake::OutOfSync
    }

    /// Resumes after events were lost, with the device's current state, or with the last known one if
    /// the current state cannot be read.
    pub(crate) fn recover(&mut self, device_state: Option<DeviceState>) {
        let slot = device_state.as_ref().and_then(|state| state.touch.slot);
        self.slot_doubt = SlotDoubt::new(slot);
        if let Some(device_state) = device_state {
            self.device_state = device_state;
        }
        self.partial.clear();
        self.intake = Intake::InReport;
        self.resync_needed = true;
    }

    /// Releases all keys and contacts in the guest, because the device is gone (unplugged): right after
    /// the rest of a report that the guest has a part of.
    pub(crate) fn release_all(&mut self) {
        self.keep_rest_of_report();
        self.device_state.release_all();
        self.resync_needed = true;
    }

    /// The device that was gone is back in the state `device_state`, while the guest runs.
    pub(crate) fn device_returned(&mut self, device_state: DeviceState) {
        self.keep_rest_of_report();
        self.recover(Some(device_state));
    }

    /// Drops all that waits, but the rest of a report that the guest has a part of.
    fn keep_rest_of_report(&mut self) {
        let rest = self.waiting.pop_front().filter(|_| self.partly_sent);
        self.clear();
        if let Some(report) = rest {
            self.partly_sent = true;
            self.waiting_events = report.len();
            self.waiting.push_back(report);
        }
    }

    /// Number of events left of the next report; `None` if nothing waits.
    pub(crate) fn next_report(&mut self) -> Option<usize> {
        if self.waiting.is_empty() && self.resync_needed {
            self.correct(&self.guest_state.clone());
        }
        self.waiting.front().map(VecDeque::len)
    }

    /// The next event for the guest.
    pub(crate) fn next_event(&self) -> Option<Event> {
        self.waiting.front()?.front().copied()
    }

    /// [`Self::next_event`] was sent to the guest.
    pub(crate) fn sent(&mut self) {
        let Some(report) = self.waiting.front_mut() else {
            return;
        };
        if let Some(event) = report.pop_front() {
            self.guest_state.apply(&event);
            self.waiting_events -= 1;
        }
        self.partly_sent = !report.is_empty();
        if !self.partly_sent {
            self.waiting.pop_front();
        }
    }

    /// Number of reports dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Queues the reports that bring the guest from `guest_state` to the device's state.
    fn correct(&mut self, guest_state: &DeviceState) {
        self.resync_needed = false;
        for report in correction(guest_state, &self.device_state, self.slotless) {
            self.push_report(report);
        }
    }
}

/// Removes autorepeat from `report`. The guest repeats the keys of a device with `EV_REP` itself, and
/// the host's repetitions would come on top. The guest's own are the better ones: they end with the
/// key, however late the host's events arrive.
fn remove_autorepeat(report: &mut Vec<Event>) {
    let before = report.len();
    report.retain(|event| !(event.kind == EV_KEY && event.value == REPEATED));
    let removed = report.len() < before;
    if removed && report.iter().all(|event| event.kind == EV_MSC) {
        // The scancodes of the repeated keys.
        report.clear();
    }
}

#[cfg(test)]
mod tests;
