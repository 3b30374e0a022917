//! A program that sends events, such as a console.
//!
//! It sends `struct virtio_input_event` (virtio 1.2, 5.8.6): whole reports, each closed by `SYN_REPORT`. It gets the same:
//! the LEDs of the device, at the start and whenever they change.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll::EventFlags;

use crate::input::device_info::DeviceInfo;
use crate::input::protocol::event_codes::{EV_ABS, EV_KEY, EV_LED, EV_REL, EV_SYN};
use crate::input::protocol::{Bitmap, Event};

/// Most events of a report, without its end.
const MAX_REPORT: usize = 64;
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
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            partial_event: Vec::new(),
            partial_report: Vec::new(),
            keys: Bitmap::default(),
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
        let mut bytes = [0; READ_SIZE];
        let count = match self.stream.read(&mut bytes) {
            Ok(0) => return ClientRead::nothing(Err(ClientError::Disconnected)),
            Ok(count) => count,
            Err(error) => {
                let more = match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(false),
                    io::ErrorKind::Interrupted => Ok(true),
                    _ => Err(error.into()),
                };
                return ClientRead::nothing(more);
            }
        };
        let mut reports = Vec::new();
        let taken = self.take_bytes(bytes.get(..count).unwrap_or_default(), info, &mut reports);
        ClientRead {
            reports,
            more: taken.map(|()| count == READ_SIZE),
        }
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
        let interest = if self.unsent.is_empty() {
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
