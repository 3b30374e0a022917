// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The reports that wait for the driver, each with a record once they have waited, and how far the first one was sent.

use std::collections::VecDeque;

use crate::backend::continuity::{InvalidRecord, Ledger, RecordKey, ValueError};
use crate::input::protocol::Event;
use crate::input::records::{self, RecordError, tables};

const PROGRESS: RecordKey = RecordKey::new(tables::REPORT_QUEUE, 1);

/// Reports in their order. They are numbered, so that a record of one is written once.
#[derive(Debug)]
pub(super) struct WaitingReports {
    reports: VecDeque<Vec<Event>>,
    /// The number of the first one.
    first: u64,
    /// How many events of the first one were sent: less than it has.
    sent: usize,
    /// How many are sent at once with those that were: as many as the driver had buffers for.
    sent_at_once: usize,
    /// How many events are not sent.
    events: usize,
    /// How many of the reports, from the first one on, have a record.
    recorded: usize,
    /// Reports that are gone and have a record.
    gone: Vec<u64>,
    /// What is recorded of the first report: its number, how many of its events were sent, and how many are sent at once.
    progress: Option<(u64, usize, usize)>,
    ledger: Ledger,
}

impl WaitingReports {
    /// The reports that the records say; none where there are none.
    ///
    /// # Errors
    /// If the records cannot be of such a queue.
    pub(super) fn load(ledger: Ledger) -> Result<Self, RecordError> {
        let mut waiting = Self {
            reports: VecDeque::new(),
            first: 0,
            sent: 0,
            sent_at_once: 0,
            events: 0,
            recorded: 0,
            gone: Vec::new(),
            progress: None,
            ledger,
        };
        let progress = waiting.ledger.read(PROGRESS, |value| {
            Ok((value.u64()?, value.u16()?, value.u16()?))
        })?;
        if let Some((first, sent, sent_at_once)) = progress {
            waiting.first = first;
            waiting.sent = sent.into();
            waiting.sent_at_once = sent_at_once.into();
            waiting.progress = Some((first, waiting.sent, waiting.sent_at_once));
        }
        let mut number = waiting.first;
        let reports = waiting.ledger.read_table(tables::REPORTS, |id, value| {
            let events = records::read_events(value)?;
            if id != number || events.is_empty() {
                return Err(ValueError::Content("it is not the next report"));
            }
            number = number.wrapping_add(1);
            Ok(events)
        })?;
        waiting.events = reports.iter().map(Vec::len).sum();
        waiting.reports = reports.into();
        let first = waiting.reports.front().map_or(0, Vec::len);
        if (waiting.sent > 0 && waiting.sent >= first) || waiting.sent_at_once > first {
            let source = ValueError::Content("there is no such report");
            return Err(InvalidRecord::new(PROGRESS, source).into());
        }
        waiting.events -= waiting.sent;
        waiting.recorded = waiting.reports.len();
        Ok(waiting)
    }

    /// Number of events that are not sent.
    pub(super) fn events(&self) -> usize {
        self.events
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Number of events left of the first report; `None` if nothing waits.
    pub(super) fn next_report(&self) -> Option<usize> {
        let report = self.reports.front()?;
        Some(report.len().saturating_sub(self.sent))
    }

    /// `count` events of the first report are sent at once.
    pub(super) fn begin(&mut self, count: usize) {
        self.sent_at_once = self.sent.saturating_add(count);
    }

    /// How many events are still to be sent with those that were, because a predecessor died meanwhile.
    pub(super) fn begun(&self) -> usize {
        self.sent_at_once.saturating_sub(self.sent)
    }

    /// The next `count` events, or those that the first report has left.
    pub(super) fn next_events(&self, count: usize) -> &[Event] {
        let report = self.reports.front().map_or(&[][..], Vec::as_slice);
        let left = report.get(self.sent..).unwrap_or_default();
        left.get(..count).unwrap_or(left)
    }

    /// Adds `report`, which has events.
    pub(super) fn push(&mut self, report: Vec<Event>) {
        if report.is_empty() {
            return;
        }
        self.events += report.len();
        self.reports.push_back(report);
    }

    /// [`Self::next_events`] of as many were sent.
    pub(super) fn sent(&mut self, count: usize) {
        let Some(length) = self.reports.front().map(Vec::len) else {
            return;
        };
        let count = count.min(length.saturating_sub(self.sent));
        self.sent += count;
        self.events -= count;
        if self.sent >= length {
            self.reports.pop_front();
            // Without a record, the next one gets its number.
            if let Some(left) = self.recorded.checked_sub(1) {
                self.recorded = left;
                self.gone.push(self.first);
                self.first = self.first.wrapping_add(1);
            }
            self.sent = 0;
            self.sent_at_once = 0;
        }
    }

    /// Drops all reports.
    pub(super) fn clear(&mut self) {
        self.forget_records(0);
        self.first = self.first.wrapping_add(self.recorded as u64);
        self.recorded = 0;
        self.sent = 0;
        self.sent_at_once = 0;
        self.reports.clear();
        self.events = 0;
    }

    /// Drops all reports but the rest of one of which a part was sent.
    pub(super) fn clear_unsent(&mut self) {
        if self.sent == 0 {
            self.clear();
            return;
        }
        self.forget_records(1);
        self.recorded = self.recorded.min(1);
        self.reports.truncate(1);
        self.events = self.next_report().unwrap_or(0);
    }

    /// The reports from the index `from` on are gone.
    fn forget_records(&mut self, from: usize) {
        let numbers = (from..self.recorded).map(|index| self.first.wrapping_add(index as u64));
        self.gone.extend(numbers);
    }

    /// Writes what is not recorded yet.
    pub(super) fn record(&mut self) {
        if !self.ledger.is_kept() {
            return;
        }
        for number in self.gone.drain(..) {
            self.ledger.remove(report_key(number));
        }
        if self.recorded < self.reports.len() {
            for (index, report) in self.reports.iter().enumerate().skip(self.recorded) {
                let key = report_key(self.first.wrapping_add(index as u64));
                self.ledger
                    .write(key, |value| records::write_events(value, report));
            }
            self.recorded = self.reports.len();
        }
        let progress = Some((self.first, self.sent, self.sent_at_once));
        if self.progress != progress {
            self.progress = progress;
            // A report has less than 65536 events: see `MAX_REPORT`, and the contacts of a correction.
            let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX);
            self.ledger.write(PROGRESS, |value| {
                value.u64(self.first).u16(count(self.sent));
                value.u16(count(self.sent_at_once));
            });
        }
    }
}

fn report_key(number: u64) -> RecordKey {
    RecordKey::new(tables::REPORTS, number)
}

#[cfg(test)]
mod tests {
    use crate::input::records::testing::KeptRecords;

    use super::*;

    /// A guest may have forged the records.
    #[test]
    fn last_number_of_all_is_no_end() {
        let kept = KeptRecords::new();
        let ledger = kept.ledger();
        ledger.write(PROGRESS, |value| {
            value.u64(u64::MAX).u16(1).u16(1);
        });
        ledger.write(report_key(u64::MAX), |value| {
            records::write_events(value, &[Event::REPORT, Event::REPORT]);
        });
        let mut waiting = WaitingReports::load(ledger.clone()).expect("it is valid");
        waiting.push(vec![Event::REPORT]);
        waiting.clear_unsent();
        assert_eq!(waiting.next_report(), Some(1));
        waiting.sent(1);
        waiting.record();
        assert!(waiting.is_empty() && ledger.table(tables::REPORTS).is_empty());
    }

    /// A report that is sent before anything is committed leaves no record.
    #[test]
    fn only_reports_that_wait_are_recorded() {
        let mut kept = KeptRecords::new();
        let mut waiting = WaitingReports::load(kept.ledger()).expect("there are no records");
        waiting.record();
        kept.ledger().commit();
        for _ in 0..3 {
            waiting.push(vec![Event::REPORT]);
            waiting.sent(1);
            waiting.record();
            assert!(!kept.ledger().has_uncommitted());
        }
        for length in 1..=4 {
            waiting.push(vec![Event::REPORT; length]);
        }
        waiting.sent(1);
        waiting.sent(2);
        waiting.record();
        waiting.sent(1);
        waiting.record();
        kept.ledger().commit();
        let mut left = WaitingReports::load(kept.successor()).expect("they are valid");
        assert_eq!((left.next_report(), left.events()), (Some(2), 6));
        left.clear_unsent();
        left.sent(1);
        left.push(vec![Event::REPORT]);
        left.record();
        kept.ledger().commit();
        let left = WaitingReports::load(kept.successor()).expect("they are valid");
        assert_eq!((left.next_report(), left.events()), (Some(1), 2));
    }
}
