// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reports that wait for the driver, and what the guest knows of the device's state.
//!
//! A report is all events up to a `SYN_REPORT`. Reports wait here while the driver has no buffers for
//! them. The queue is bounded: once it is full, the newest reports are dropped, because the guest is
//! to be told first what happened first, and because each report that waits builds on the one before.
//! When the queue is empty again, a correction brings the guest to the device's current state, so that
//! no key stays pressed for it and no contact stays on its screen. Only what leaves no state is lost:
//! motion, and keys that were tapped meanwhile.

use crate::backend::continuity::{Ledger, RecordKey, ValueError, ValueReader};
use crate::input::device_info::DeviceInfo;
use crate::input::device_state::DeviceState;
use crate::input::protocol::Event;
use crate::input::protocol::event_codes::{
    EV_ABS, EV_KEY, EV_MSC, EV_REL, EV_REP, EV_SW, EV_SYN, SYN_DROPPED, SYN_MT_REPORT,
};
use crate::input::records::{self, RecordError, tables};

use super::correction::correction;
use super::kept_states::KeptStates;
use super::slot_doubt::SlotDoubt;
use super::waiting_reports::WaitingReports;

/// Most events that wait for the driver: a third of a second of a mouse with 1000 reports a second, or
/// a hundred frames of two fingers. Older input is of no use.
const MAX_WAITING: usize = 1024;
/// Most events of a report, far more than any device sends: a bound for a device that never ends its
/// report.
const MAX_REPORT: usize = 1024;
/// The value of an `EV_KEY` event that autorepeat made.
const REPEATED: i32 = 2;

/// How a report comes about.
const INTAKE: RecordKey = RecordKey::new(tables::REPORT_QUEUE, 0);
/// The report in progress.
const PARTIAL: RecordKey = RecordKey::new(tables::REPORT_QUEUE, 2);

/// Turns a device's events into whole reports for the guest.
///
/// All of it is in records, which agree with each other after [`Self::record`]: only then they may be committed.
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
    /// The reports to send.
    waiting: WaitingReports,
    /// Whether the guest needs a correction, because reports were dropped.
    resync_needed: bool,
    /// Number of reports dropped since the last [`Self::take_dropped`].
    dropped: u64,
    /// What the device is in after its last whole report, and what the guest was brought to.
    states: KeptStates,
    /// What is recorded of `intake`, `resync_needed` and `slot_doubt`.
    recorded_intake: Option<(Intake, bool, SlotDoubt)>,
    /// There is a record of `partial`.
    has_partial_record: bool,
    ledger: Ledger,
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

impl Intake {
    fn encode(self) -> u8 {
        match self {
            Self::InReport => 0,
            Self::Oversized => 1,
            Self::OutOfSync => 2,
        }
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        Ok(match value.u8()? {
            0 => Self::InReport,
            1 => Self::Oversized,
            2 => Self::OutOfSync,
            _ => return Err(ValueError::Content("there is no such intake")),
        })
    }
}

impl ReportQueue {
    /// The queue of the device `info` as the records say. Where there are none it is empty, and the guest was told
    /// nothing yet.
    ///
    /// # Errors
    /// If the records cannot be of such a queue.
    pub(crate) fn load(info: &DeviceInfo, ledger: Ledger) -> Result<Self, RecordError> {
        let mut queue = Self {
            guest_repeats: info.codes(EV_REP).is_some(),
            slotless: info.is_slotless(),
            partial: Vec::new(),
            intake: Intake::InReport,
            slot_doubt: SlotDoubt::default(),
            waiting: WaitingReports::load(ledger.clone())?,
            resync_needed: false,
            dropped: 0,
            states: KeptStates::load(info.slots(), ledger.clone())?,
            recorded_intake: None,
            has_partial_record: false,
            ledger,
        };
        let left = queue.ledger.read(INTAKE, |value| {
            let (intake, resync_needed) = (Intake::decode(value)?, value.bool()?);
            Ok((intake, resync_needed, SlotDoubt::decode(value)?))
        })?;
        if let Some(left) = left {
            (queue.intake, queue.resync_needed, queue.slot_doubt) = left;
        }
        let partial = queue.ledger.read(PARTIAL, |value| {
            let partial = records::read_events(value)?;
            if partial.len() >= MAX_REPORT {
                return Err(ValueError::Content("it is longer than a report"));
            }
            Ok(partial)
        })?;
        queue.has_partial_record = partial.is_some();
        queue.partial = partial.unwrap_or_default();
        Ok(queue)
    }

    /// An empty queue that is not kept.
    #[cfg(test)]
    pub(crate) fn new(info: &DeviceInfo) -> Self {
        Self::load(info, Ledger::default()).expect("there are no records")
    }

    /// Writes what is not recorded yet. Events that were pushed, and reports that were sent, are not: a report that comes and
    /// goes between two commits leaves no record but of the state.
    pub(crate) fn record(&mut self) {
        self.states.record();
        if !self.ledger.is_kept() {
            return;
        }
        self.waiting.record();
        let is_recorded = |(intake, resync_needed, slot_doubt): &(_, _, _)| {
            (*intake, *resync_needed) == (self.intake, self.resync_needed)
                && *slot_doubt == self.slot_doubt
        };
        if !self.recorded_intake.as_ref().is_some_and(is_recorded) {
            let slot_doubt = self.slot_doubt.clone();
            self.recorded_intake = Some((self.intake, self.resync_needed, slot_doubt));
            self.ledger.write(INTAKE, |value| {
                value.u8(self.intake.encode()).bool(self.resync_needed);
                self.slot_doubt.encode(value);
            });
        }
        if !self.partial.is_empty() {
            self.ledger.write(PARTIAL, |value| {
                records::write_events(value, &self.partial);
            });
        } else if self.has_partial_record {
            self.ledger.remove(PARTIAL);
        }
        self.has_partial_record = !self.partial.is_empty();
    }

    /// A guest gets the device, which is in the state `device_state`. The guest is told all of it,
    /// whether it has just started or was paused.
    pub(crate) fn guest_got_device(&mut self, device_state: DeviceState) {
        self.clear();
        self.slot_doubt = SlotDoubt::new(device_state.touch.slot);
        self.states.set_device(device_state);
        // What the guest knows follows as this is sent: the guest may be paused again before.
        let states = &self.states;
        let guest_state = states.guest().assumed_guest_state(states.device());
        self.correct(&guest_state);
        self.record();
    }

    /// As [`Self::guest_got_device`], with a device that is gone: everything is released, and switches
    /// and axes keep their last values.
    pub(crate) fn guest_got_gone_device(&mut self) {
        let mut device_state = self.states.device().clone();
        device_state.release_all();
        self.guest_got_device(device_state);
    }

    /// The guest no longer has the device. Drops what waits, and keeps what the guest knows: it may
    /// only be paused.
    pub(crate) fn guest_lost_device(&mut self) {
        self.clear();
        self.record();
    }

    /// Whether there is room for as many events as a source that keeps them returns at once. A half of the
    /// queue is far more than that.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.events() <= MAX_WAITING / 2
    }

    fn clear(&mut self) {
        self.partial.clear();
        self.intake = Intake::InReport;
        self.waiting.clear();
        self.resync_needed = false;
    }

    /// Adds events that were read from the device, without a [`Self::record`].
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
            let partial = std::mem::take(&mut self.partial);
            self.states.device_reports(&partial);
        }
        self.states.device_reports(&[event]);
    }

    fn end_report(&mut self) {
        if self.intake == Intake::Oversized {
            self.intake = Intake::InReport;
            self.drop_report();
            return;
        }
        let mut report = std::mem::take(&mut self.partial);
        self.states.device_reports(&report);
        if self.guest_repeats {
            remove_autorepeat(&mut report);
        }
        if report.is_empty() {
            return;
        }
        report.push(Event::REPORT);
        if self.resync_needed || self.waiting.events() + report.len() > MAX_WAITING {
            self.drop_report();
        } else {
            self.waiting.push(report);
        }
    }

    fn drop_report(&mut self) {
        self.resync_needed = true;
        self.dropped = self.dropped.saturating_add(1);
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
            self.states.set_device(device_state);
        }
        self.partial.clear();
        self.intake = Intake::InReport;
        self.resync_needed = true;
        self.record();
    }

    /// Releases all keys and contacts in the guest, because the device is gone (unplugged): right after
    /// the rest of a report that the guest has a part of.
    pub(crate) fn release_all(&mut self) {
        self.keep_rest_of_report();
        self.states.release_device();
        self.resync_needed = true;
        self.record();
    }

    /// The device that was gone is back in the state `device_state`, while the guest runs.
    pub(crate) fn device_returned(&mut self, device_state: DeviceState) {
        self.keep_rest_of_report();
        self.recover(Some(device_state));
    }

    /// Drops all that waits, but the rest of a report that the guest has a part of.
    fn keep_rest_of_report(&mut self) {
        self.partial.clear();
        self.intake = Intake::InReport;
        self.waiting.clear_unsent();
        self.resync_needed = false;
    }

    /// Number of events left of the next report; `None` if nothing waits.
    pub(crate) fn next_report(&mut self) -> Option<usize> {
        if self.waiting.is_empty() && self.resync_needed {
            let guest_state = self.states.guest().clone();
            self.correct(&guest_state);
        }
        self.waiting.next_report()
    }

    /// How many events of the next report are to be sent now, whatever the driver has buffers for: a predecessor died
    /// while it sent them.
    pub(crate) fn begun(&self) -> Option<usize> {
        Some(self.waiting.begun()).filter(|count| *count > 0)
    }

    /// `count` events of the next report are sent at once.
    pub(crate) fn begin(&mut self, count: usize) {
        self.waiting.begin(count);
    }

    /// The next `count` events for the guest, or those that the next report has left.
    pub(crate) fn next_events(&self, count: usize) -> &[Event] {
        self.waiting.next_events(count)
    }

    /// [`Self::next_events`] of as many were sent to the guest. They are recorded by [`Self::record`].
    pub(crate) fn sent(&mut self, count: usize) {
        self.states.guest_gets(self.waiting.next_events(count));
        self.waiting.sent(count);
    }

    /// Number of reports dropped since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }

    /// Queues the reports that bring the guest from `guest_state` to the device's state.
    fn correct(&mut self, guest_state: &DeviceState) {
        self.resync_needed = false;
        for report in correction(guest_state, self.states.device(), self.slotless) {
            self.waiting.push(report);
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
