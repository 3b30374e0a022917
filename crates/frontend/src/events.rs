// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program that sends the events of a virtual input device, as a console does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::event::PollFlags;

use crate::input::Event;
use crate::{Deadline, Error, Result};

const EVENT_SIZE: usize = 8;

/// The console's end of an events socket.
#[derive(Debug)]
pub struct EventsClient {
    stream: UnixStream,
    read: Vec<u8>,
}

impl EventsClient {
    /// Connects to the events socket at `path`, waiting for it to be there.
    ///
    /// # Errors
    /// [`Error::Timeout`] if nobody listens in [`DEFAULT_LIMIT`](crate::DEFAULT_LIMIT).
    pub fn connect(path: &Path) -> Result<Self> {
        let what = format!("an events socket at {}", path.display());
        let stream = Deadline::default().until(what, || Ok(UnixStream::connect(path).ok()))?;
        stream
            .set_nonblocking(true)
            .map_err(Error::io("an events socket"))?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Sends these events.
    ///
    /// # Errors
    /// As [`EventsClient::send_bytes`].
    pub fn send(&mut self, events: &[Event]) -> Result<()> {
        let bytes: Vec<u8> = events.iter().flat_map(|event| event.to_bytes()).collect();
        self.send_bytes(&bytes)
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// As `write(2)`; [`Error::Timeout`] if the device does not take them.
    pub fn send_bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        let deadline = Deadline::default();
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    if !deadline.ready(&self.stream, PollFlags::OUT)? {
                        return Err(deadline.missed("room for events"));
                    }
                }
                Err(e) => return Err(Error::io("sending events")(e)),
            }
        }
        Ok(())
    }

    /// Sends as much of `bytes` as there is room for. Returns how many bytes that was.
    ///
    /// # Errors
    /// As `write(2)`.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> Result<usize> {
        match self.stream.write(bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(0),
            written => written.map_err(Error::io("sending events")),
        }
    }

    /// The next report of the device, SYN_REPORT included.
    ///
    /// # Errors
    /// [`Error::Timeout`] if none comes; [`Error::Protocol`] if the device disconnected.
    pub fn next_report(&mut self) -> Result<Vec<Event>> {
        let deadline = Deadline::default();
        let mut report = Vec::new();
        loop {
            while let Some(bytes) = self.read.first_chunk::<EVENT_SIZE>().copied() {
                self.read.drain(..EVENT_SIZE);
                report.push(Event::from_bytes(bytes));
                if report.last().is_some_and(Event::is_report) {
                    return Ok(report);
                }
            }
            if !deadline.ready(&self.stream, PollFlags::IN)? {
                return Err(deadline.missed("a report of the device"));
            }
            if self.fill()? {
                return Err(Error::Protocol("the device disconnected".into()));
            }
        }
    }

    /// Waits until the device disconnects. What it still sent is dropped.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not.
    pub fn wait_closed(&mut self) -> Result<()> {
        let deadline = Deadline::default();
        loop {
            if !deadline.ready(&self.stream, PollFlags::IN)? {
                return Err(deadline.missed("the end of an events connection"));
            }
            if self.fill()? {
                return Ok(());
            }
        }
    }

    /// The socket, for another process to hold.
    pub fn into_stream(self) -> UnixStream {
        self.stream
    }

    /// Reads what is there. Returns whether the connection ended.
    fn fill(&mut self) -> Result<bool> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Ok(true),
            Ok(count) => {
                self.read.extend_from_slice(&bytes[..count]);
                Ok(false)
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            // It did not read all that was sent.
            Err(e) if e.kind() == ErrorKind::ConnectionReset => Ok(true),
            Err(e) => Err(Error::io("reading an events socket")(e)),
        }
    }
}

impl AsFd for EventsClient {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
