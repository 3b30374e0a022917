// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the events of an evdev device, so that a successor takes those of which this process made nothing.

use std::io;
use std::os::fd::AsFd;

use crate::backend::continuity::{Continuity, Inbox, Ledger, Owner, RecordKey};
use crate::input::protocol::Event;
use crate::input::records::{RecordError, tables};

/// The number of the last read of which something was made.
const TAKEN: RecordKey = RecordKey::new(tables::EVDEV, 1);

/// Reads into memory that outlives the process.
#[derive(Debug)]
pub(crate) struct EventReader {
    inbox: Inbox,
    ledger: Ledger,
    /// Whether a predecessor may have read events that it made nothing of.
    has_left: bool,
}

impl EventReader {
    /// `None` if nothing is kept.
    ///
    /// # Errors
    /// If the record is invalid.
    pub(crate) fn load(continuity: &Continuity) -> Result<Option<Self>, RecordError> {
        let Some(inbox) = continuity.inbox() else {
            return Ok(None);
        };
        let ledger = continuity.ledger(Owner::Device);
        let taken = ledger.read(TAKEN, |value| value.u64())?;
        let taken = taken.unwrap_or_default();
        Ok(Some(Self {
            has_left: inbox.number() != taken,
            inbox,
            ledger,
        }))
    }

    /// The events that a predecessor read and made nothing of; none the second time. They count as taken after the
    /// next commit.
    pub(crate) fn left(&mut self) -> Vec<Event> {
        if !std::mem::take(&mut self.has_left) {
            return Vec::new();
        }
        self.take()
    }

    /// Reads from `device`. What is recorded of the events belongs into the same commit as that they are taken, before
    /// the next call.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub(crate) fn read(&mut self, device: impl AsFd) -> io::Result<Vec<Event>> {
        self.inbox.read(device)?;
        Ok(self.take())
    }

    fn take(&self) -> Vec<Event> {
        // Each read has another number.
        self.ledger.write_often_new(TAKEN, |value| {
            value.u64(self.inbox.number());
        });
        let events = self.inbox.events();
        events
            .map(|event| Event::new(event.type_, event.code, event.value))
            .collect()
    }
}
