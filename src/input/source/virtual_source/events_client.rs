// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that sends events, such as a console.
//!
//! It sends `struct virtio_input_event` (virtio 1.2, 5.8.6): whole reports, each closed by `SYN_REPORT`. It gets the same:
//! the LEDs of the device, at the start and whenever they change.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;

use crate::backend::continuity::Ledger;
use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{EV_ABS, EV_KEY, EV_LED, EV_REL, EV_SYN};
use crate::input::protocol::{Bitmap, Event};

use super::kept_client::{ClientProgress, KeptClient, MAX_REPORT};

/// Most bytes that are read at once.
const READ_SIZE: usize = 64 * Event::SIZE;
/// The greatest step of a relative axis, either way.
const MAX_STEP: i32 = 32767;

/// Why a client is disconnected.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("it sent {0:?}, which is no event of this device")]
    UnknownEvent(Event),
    #[error("it sent {0:?}, of which the value is out of range")]
    OutOfRange(Event),
    #[error("it sent a report of more than {MAX_REPORT} events")]
    TooLong,
    #[error("it disconnected")]
    Disconnected,
    #[error(transparent)]
    Read(#[from] io::Error),
}

/// A connected client.
#[derive(Debug)]
pub(super) struct EventsClient {
    stream: UnixStream,
    /// How it is received so that a successor goes on; `None` if nothing is kept.
    kept: Option<KeptClient>,
    /// The beginning of an event.
    partial_event: Vec<u8>,
    /// The beginning of a report.
    partial_report: Vec<Event>,
    /// What the client presses.
    keys: Bitmap,
    /// The rest of a report about LEDs.
    unsent: Vec<u8>,
    /// The LEDs changed after that report.
    has_old_leds: bool,
    interest: EventFlags,
}

/// What reading a client led to.
pub(super) struct ClientRead {
    /// The whole reports, without their ends.
    pub(super) reports: Vec<Vec<Event>>,
    /// Whether there may be more to read; or why the client is to be disconnected.
    pub(super) more: Result<bool, ClientError>,
}

impl EventsClient {
    /// A client at the other end of `stream`, which does not block.
    pub(super) fn new(stream: UnixStream, kept: Option<KeptClient>) -> Self {
        let progress = ClientProgress::default();
        Self::with_progress(stream, kept, progress)
    }

    /// A client of a predecessor.
    pub(super) fn with_progress(
        stream: UnixStream,
        kept: Option<KeptClient>,
        progress: ClientProgress,
    ) -> Self {
        let ClientProgress {
            keys,
            partial_event,
            partial_report,
        } = progress;
        Self {
            stream,
            kept,
            partial_event,
            partial_report,
            keys,
            unsent: Vec::new(),
            has_old_leds: false,
            interest: EventFlags::IN,
        }
    }

    /// What the client presses.
    pub(super) fn keys(&self) -> &Bitmap {
        &self.keys
    }

    /// The client presses or releases a key. Returns `false` if it did so before.
    pub(super) fn set_key(&mut self, code: u16, down: bool) -> bool {
        let changed = self.keys.contains(code) != down;
        self.keys.set(code, down);
        changed
    }

    /// Reads once, at most as many events as a report may have: other clients have their turns.
    pub(super) fn read(&mut self, info: &DeviceInfo) -> ClientRead {
        let bytes = match self.receive() {
            Ok(bytes) if bytes.is_empty() => {
                return ClientRead::nothing(Err(ClientError::Disconnected));
            }
            Ok(bytes) => bytes,
            Err(error) => {
                let more = match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(false),
                    io::ErrorKind::Interrupted => Ok(true),
                    // It left LEDs unread.
                    io::ErrorKind::ConnectionReset => Err(ClientError::Disconnected),
                    _ => Err(error.into()),
                };
                return ClientRead::nothing(more);
            }
        };
        let mut reports = Vec::new();
        let taken = self.take_bytes(&bytes, info, &mut reports);
        ClientRead {
            reports,
            more: taken.map(|()| bytes.len() >= READ_SIZE),
        }
    }

    fn receive(&mut self) -> io::Result<Vec<u8>> {
        if let Some(kept) = &mut self.kept {
            return kept.receive(&self.stream, READ_SIZE);
        }
        let mut bytes = vec![0; READ_SIZE];
        let count = self.stream.read(&mut bytes)?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Whether a predecessor received bytes that it made nothing of.
    pub(super) fn has_left(&self) -> bool {
        self.kept.as_ref().is_some_and(KeptClient::has_left)
    }

    /// Records how far the client is: of what [`Self::read`] returned the device has made something.
    pub(super) fn put(&self, ledger: &Ledger) {
        if let Some(kept) = &self.kept {
            kept.put(
                ledger,
                &self.keys,
                &self.partial_event,
                &self.partial_report,
            );
        }
    }

    /// Ends the connection, of which a descriptor may still be kept. Returns how it was kept.
    pub(super) fn close(self) -> Option<KeptClient> {
        // It fails only if the client was faster.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.kept
    }

    fn take_bytes(
        &mut self,
        bytes: &[u8],
        info: &DeviceInfo,
        reports: &mut Vec<Vec<Event>>,
    ) -> Result<(), ClientError> {
        let mut all = std::mem::take(&mut self.partial_event);
        all.extend_from_slice(bytes);
        let mut events = all.chunks_exact(Event::SIZE);
        for event in &mut events {
            let Ok(event) = event.try_into() else {
                continue;
            };
            let event = Event::from_bytes(event);
            check(event, info)?;
            if event.ends_report() {
                reports.push(std::mem::take(&mut self.partial_report));
            } else if self.partial_report.len() < MAX_REPORT {
                self.partial_report.push(event);
            } else {
                return Err(ClientError::TooLong);
            }
        }
        self.partial_event = events.remainder().to_vec();
        Ok(())
    }

    /// Tells the client that the LEDs `leds` of those that the device has are on. If it does not read, it is told the
    /// newest state once it does.
    pub(super) fn tell_leds(&mut self, leds: &Bitmap, info: &DeviceInfo) {
        self.has_old_leds = true;
        self.send_leds(leds, info);
    }

    /// Has the client told the LEDs once it is watched: a predecessor may have died before it could tell them.
    pub(super) fn owe_leds(&mut self) {
        self.has_old_leds = true;
    }

    /// Sends what could not be sent, now that the client may have read.
    pub(super) fn send_leds(&mut self, leds: &Bitmap, info: &DeviceInfo) {
        if !self.write() || !self.has_old_leds {
            return;
        }
        self.has_old_leds = false;
        let Some(codes) = info.codes(EV_LED) else {
            return;
        };
        let event = |code: u16| Event::new(EV_LED, code, leds.contains(code).into());
        let events = codes.iter().map(event).chain([Event::REPORT]);
        self.unsent = events.flat_map(Event::to_bytes).collect();
        self.write();
    }

    /// Writes what is unsent. Returns `false` if the client does not take all of it now.
    fn write(&mut self) -> bool {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                // It does not want LEDs, or is gone, which reading tells.
                Err(_) => self.unsent.clear(),
            }
        }
        true
    }

    /// What the client waits for, if that is not what it was watched for so far.
    pub(super) fn new_interest(&mut self) -> Option<EventFlags> {
        let interest = if self.unsent.is_empty() && !self.has_old_leds {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        let before = std::mem::replace(&mut self.interest, interest);
        (before != interest).then_some(interest)
    }
}

impl ClientRead {
    fn nothing(more: Result<bool, ClientError>) -> Self {
        Self {
            reports: Vec::new(),
            more,
        }
    }
}

impl AsFd for EventsClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Checks that the device can have made `event`.
fn check(event: Event, info: &DeviceInfo) -> Result<(), ClientError> {
    let Event { kind, code, value } = event;
    let is_known = match kind {
        EV_SYN => event.ends_report(),
        EV_KEY | EV_REL | EV_ABS => info.has(kind, code),
        _ => false,
    };
    if !is_known {
        return Err(ClientError::UnknownEvent(event));
    }
    let is_in_range = match kind {
        EV_KEY => (0..=1).contains(&value),
        EV_REL => (-MAX_STEP..=MAX_STEP).contains(&value),
        EV_ABS => {
            let axis = info.axes.get(&code);
            axis.is_some_and(|axis| (axis.min..=axis.max).contains(&value))
        }
        _ => true,
    };
    if !is_in_range {
        return Err(ClientError::OutOfRange(event));
    }
    Ok(())
}
