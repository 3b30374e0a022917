// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connection to an events socket, which never blocks and never keeps more than a bound.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::epoll::EventFlags;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
};

use crate::evdev_event::{EV_LED, Event};
use crate::vnc::input::held::Held;
use crate::vnc::input::led_state::LedState;

/// Most bytes that wait here for the socket.
const MAX_WAITING: usize = 8 * 1024;
/// The socket's own buffer, in bytes with the kernel's overhead: some hundred reports. What a device does not read is soon
/// out of date.
const SEND_BUFFER: usize = 64 * 1024;
/// Most reads for one event, of [`READ_SIZE`] bytes each: a device cannot keep the program from all else.
const MAX_READS: usize = 4;
const READ_SIZE: usize = 512;

/// A connection, and what the device was told on it.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    waiting: VecDeque<u8>,
    /// The state that the device has after all that waits.
    told: Held,
    /// Whether reports were dropped.
    is_behind: bool,
    /// The beginning of an event.
    partial: Vec<u8>,
    /// The LEDs after the last event.
    reading_leds: LedState,
    /// The LEDs after the last report, unless they were taken.
    leds: Option<LedState>,
    interest: EventFlags,
}

impl Connection {
    /// Connects to the socket at `path`, or fails at once: also if its queue of connections is full.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self::new(UnixStream::from(socket)))
    }

    fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            waiting: VecDeque::new(),
            told: Held::default(),
            is_behind: false,
            partial: Vec::new(),
            reading_leds: LedState::default(),
            leds: None,
            interest: EventFlags::IN,
        }
    }

    /// What it waits for.
    pub(super) fn interest(&self) -> EventFlags {
        if self.waiting.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        }
    }

    /// It is to be watched for `flags`. Returns whether that is new.
    pub(super) fn watched_for(&mut self, flags: EventFlags) -> bool {
        std::mem::replace(&mut self.interest, flags) != flags
    }

    /// Sends all of `reports`, which lead to `held`, or none of them: then the device is told `held` once it has read what
    /// waits.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn send(&mut self, reports: &[Vec<Event>], held: &Held) -> io::Result<()> {
        let events: usize = reports.iter().map(Vec::len).sum();
        if self.is_behind || self.waiting.len() + events * Event::SIZE > MAX_WAITING {
            self.is_behind = true;
        } else {
            self.push(reports);
        }
        self.flush(held)
    }

    /// Tells the device `held`.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn tell(&mut self, held: &Held) -> io::Result<()> {
        self.is_behind = true;
        self.flush(held)
    }

    /// Writes what waits, and then tells the device `held` if reports were dropped.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn flush(&mut self, held: &Held) -> io::Result<()> {
        self.write()?;
        if self.waiting.is_empty() && self.is_behind {
            self.is_behind = false;
            let reports = self.told.changes_to(held);
            self.push(&reports);
            self.write()?;
        }
        Ok(())
    }

    fn push(&mut self, reports: &[Vec<Event>]) {
        for event in reports.iter().flatten() {
            self.told.apply(event);
            self.waiting.extend(event.to_bytes());
        }
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            match self.stream.write(self.waiting.make_contiguous()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads the device's LEDs.
    ///
    /// # Errors
    /// If the connection ended.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut bytes = [0; READ_SIZE];
        for _ in 0..MAX_READS {
            match self.stream.read(&mut bytes) {
                Ok(0) => {
                    let ended = "the device closed the connection";
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ended));
                }
                Ok(count) => self.take_bytes(bytes.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take_bytes(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let all = std::mem::take(&mut self.partial);
        let mut events = all.chunks_exact(Event::SIZE);
        for event in &mut events {
            if let Ok(event) = event.try_into() {
                self.take_event(Event::from_bytes(event));
            }
        }
        self.partial = events.remainder().to_vec();
    }

    fn take_event(&mut self, event: Event) {
        if event.kind == EV_LED {
            self.reading_leds.set(event.code, event.value != 0);
        } else if event == Event::REPORT {
            self.leds = Some(self.reading_leds);
        }
    }

    /// The LEDs, if the device told them since the last call.
    pub(super) fn take_leds(&mut self) -> Option<LedState> {
        self.leds.take()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
