// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a [`Client`](super::Client) talks over.
pub trait Connection: Read + Write {
    /// From now on a read and a write end after `limit`, which is not 0, with [`io::ErrorKind::WouldBlock`] or
    /// [`io::ErrorKind::TimedOut`].
    ///
    /// # Errors
    /// Where it has no such limit.
    fn set_timeout(&mut self, limit: Duration) -> io::Result<()>;
}

impl Connection for UnixStream {
    fn set_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

impl Connection for TcpStream {
    fn set_timeout(&mut self, limit: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(limit))?;
        self.set_write_timeout(Some(limit))
    }
}

/// A connection with a deadline, and a buffer to read into.
#[derive(Debug)]
pub(super) struct Stream<S> {
    connection: S,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    deadline: Instant,
    received: u64,
}

const BUFFER_LEN: usize = 64 << 10;

impl<S: Connection> Stream<S> {
    pub(super) fn new(connection: S) -> Self {
        Self {
            connection,
            buffer: vec![0; BUFFER_LEN].into(),
            start: 0,
            end: 0,
            deadline: Instant::now(),
            received: 0,
        }
    }

    pub(super) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    pub(super) fn received(&self) -> u64 {
        self.received
    }

    pub(super) fn connection(&mut self) -> &mut S {
        &mut self.connection
    }

    pub(super) fn buffered(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, len: usize) {
        self.start = self.end.min(self.start + len);
    }

    /// Waits for more bytes behind those in the buffer.
    pub(super) fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let limit = self.time_left()?;
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let len = read_some(&mut self.connection, limit, room)?;
        self.end += len;
        self.received += len as u64;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    pub(super) fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let limit = self.time_left()?;
            self.connection.set_timeout(limit)?;
            match self.connection.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => bytes = bytes.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn time_left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // A socket takes 0 as no limit, and counts in microseconds.
        if left < Duration::from_micros(1) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(left)
    }
}

fn read_some(
    connection: &mut impl Connection,
    limit: Duration,
    room: &mut [u8],
) -> io::Result<usize> {
    connection.set_timeout(limit)?;
    loop {
        match connection.read(room) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

impl<S: Connection> Read for Stream<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.start == self.end {
            if to.len() >= BUFFER_LEN {
                let limit = self.time_left()?;
                let len = read_some(&mut self.connection, limit, to)?;
                self.received += len as u64;
                return Ok(len);
            }
            match self.fill() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                filled => filled?,
            }
        }
        let mut buffered = self.buffered();
        let len = buffered.read(to)?;
        self.consume(len);
        Ok(len)
    }
}
