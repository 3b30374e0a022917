// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A client's connection in the locker, and what was received of it, so that a successor misses and repeats nothing.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::RecvFlags;

use crate::backend::continuity::{
    FdId, IoSlot, Ledger, Locker, RecordKey, ValueError, ValueReader,
};
use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::EV_KEY;
use crate::input::protocol::{Bitmap, Event};
use crate::input::records::{self, RecordError, tables};

/// Most events of a report, without its end.
pub(super) const MAX_REPORT: usize = 64;

/// How a client is kept.
#[derive(Debug)]
pub(super) struct KeptClient {
    slot: CountedSlot,
    /// `None` if its connection could not be kept: it ends with this process.
    id: Option<FdId>,
    /// The slot's bytes, before and those of this client, of which something was made.
    taken: u64,
}

/// A slot, and its number.
#[derive(Debug)]
pub(super) struct CountedSlot {
    pub(super) number: u8,
    pub(super) slot: IoSlot,
}

/// How far a client is.
#[derive(Debug, Default)]
pub(super) struct ClientProgress {
    /// What the client presses.
    pub(super) keys: Bitmap,
    /// The beginning of an event.
    pub(super) partial_event: Vec<u8>,
    /// The beginning of a report.
    pub(super) partial_report: Vec<Event>,
}

/// A client of a predecessor.
pub(super) struct LeftClient {
    /// `None` if the connection could not be kept.
    pub(super) stream: Option<UnixStream>,
    pub(super) kept: KeptClient,
    pub(super) progress: ClientProgress,
}

impl ClientProgress {
    /// Reads it from the end of a record, for a device `info`.
    fn read(value: &mut ValueReader<'_>, info: &DeviceInfo) -> Result<Self, ValueError> {
        let mut progress = Self::default();
        for _ in 0..value.u16()? {
            let key = value.u16()?;
            if !info.has(EV_KEY, key) {
                return Err(ValueError::Content("the device has no such key"));
            }
            progress.keys.set(key, true);
        }
        let length = value.u8()?;
        if usize::from(length) >= Event::SIZE {
            return Err(ValueError::Content("an event is too long"));
        }
        progress.partial_event = value.bytes(length.into())?.to_vec();
        progress.partial_report = records::read_events(value)?;
        if progress.partial_report.len() > MAX_REPORT {
            return Err(ValueError::Content("a report is too long"));
        }
        Ok(progress)
    }
}

impl KeptClient {
    /// Keeps the connection `stream` of a new client. The descriptor is kept at once, and named by a record with the
    /// next commit after [`Self::put`].
    pub(super) fn new(stream: &UnixStream, slot: CountedSlot, locker: &Locker) -> Self {
        let id = locker.keep(&[stream.as_fd()]);
        let id = id.unwrap_or_else(|error| {
            log::warn!("a restart of this program will disconnect a program: {error}");
            None
        });
        Self {
            id,
            taken: slot.slot.transferred(),
            slot,
        }
    }

    /// Takes the client of a predecessor in `slot`, if there is one.
    ///
    /// # Errors
    /// Gives the slot back if there is none; the other error if the record is invalid.
    pub(super) fn take_left(
        slot: CountedSlot,
        info: &DeviceInfo,
        ledger: &Ledger,
        locker: &Locker,
    ) -> Result<Result<LeftClient, CountedSlot>, RecordError> {
        let key = record_key(&slot);
        let left = ledger.read(key, |value| {
            let id = FdId::from_bits(value.u64()?);
            let taken = value.u64()?;
            let progress = ClientProgress::read(value, info)?;
            let left = slot.slot.transferred().checked_sub(taken);
            let received = slot.slot.shared_bytes().len() as u64;
            if left.is_none_or(|left| left != 0 && left != received) {
                return Err(ValueError::Content("other bytes were received"));
            }
            Ok((id, taken, progress))
        })?;
        let Some((id, taken, progress)) = left else {
            return Ok(Err(slot));
        };
        let files = id.and_then(|id| locker.take(id));
        let stream = files.and_then(|files| files.into_iter().next());
        let kept = Self { slot, id, taken };
        Ok(Ok(LeftClient {
            stream: stream.map(UnixStream::from),
            kept,
            progress,
        }))
    }

    /// Whether a predecessor received bytes that it made nothing of.
    pub(super) fn has_left(&self) -> bool {
        self.slot.slot.transferred() != self.taken
    }

    /// Receives up to `max` bytes; none at the end of the stream. Those that a predecessor received and made nothing of
    /// come first.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub(super) fn receive(&mut self, stream: &UnixStream, max: usize) -> io::Result<Vec<u8>> {
        if !self.has_left() {
            let slot = &mut self.slot.slot;
            if slot.receive_shared(stream, max, RecvFlags::DONTWAIT)? == 0 {
                return Ok(Vec::new());
            }
        }
        self.taken = self.slot.slot.transferred();
        Ok(self.slot.slot.shared_bytes())
    }

    /// Records how far the client is.
    pub(super) fn put(
        &self,
        ledger: &Ledger,
        keys: &Bitmap,
        partial_event: &[u8],
        partial_report: &[Event],
    ) {
        ledger.write(record_key(&self.slot), |value| {
            value.u64(self.id.map_or(0, FdId::to_bits)).u64(self.taken);
            // There are less than 1024 keys, and less than 8 bytes of an event.
            let pressed: Vec<u16> = keys.iter().collect();
            value.u16(pressed.len() as u16);
            for key in pressed {
                value.u16(key);
            }
            value.u8(partial_event.len() as u8).bytes(partial_event);
            records::write_events(value, partial_report);
        });
    }

    /// Removes the record. The descriptor is to be forgotten after the next commit.
    pub(super) fn remove(self, ledger: &Ledger) -> (CountedSlot, Option<FdId>) {
        ledger.remove(record_key(&self.slot));
        (self.slot, self.id)
    }
}

fn record_key(slot: &CountedSlot) -> RecordKey {
    RecordKey::new(tables::CLIENTS, slot.number.into())
}
