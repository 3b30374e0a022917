// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to the events socket of one virtual input device.

mod connection;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::Instant;

use rustix::event::epoll;

use connection::Connection;

use super::held::Held;
use super::led_state::LedState;
use crate::backend::RateLimitedLog;
use crate::evdev_event::Event;
use crate::vnc::retry_pause::RetryPause;

/// A connection that is made again when it ends, as long as it is wanted.
#[derive(Debug)]
pub(super) struct EventsLink {
    path: PathBuf,
    /// What messages call the device.
    device: &'static str,
    /// By which the epoll descriptor names it.
    token: u64,
    /// Whether to connect again when the connection ends.
    wanted: bool,
    connection: Option<Connection>,
    pause: RetryPause,
    log: RateLimitedLog,
}

impl EventsLink {
    pub(super) fn new(path: PathBuf, device: &'static str, token: u64) -> Self {
        Self {
            path,
            device,
            token,
            wanted: false,
            connection: None,
            pause: RetryPause::new(),
            log: RateLimitedLog::default(),
        }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Connects, unless it is too early after a failure, and goes on trying until [`Self::let_be`] or [`Self::close`].
    pub(super) fn open(&mut self, held: &Held, epoll: BorrowedFd<'_>, now: Instant) {
        self.wanted = true;
        self.tick(held, epoll, now);
    }

    /// Keeps the connection that there is, but makes no other.
    pub(super) fn let_be(&mut self) {
        self.wanted = false;
    }

    /// Disconnects: the device releases what was pressed.
    pub(super) fn close(&mut self) {
        self.wanted = false;
        // The kernel takes a closed descriptor out of the epoll descriptor.
        self.connection = None;
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = self.wanted && self.connection.is_none();
        self.pause.end().filter(|_| waits)
    }

    /// Connects if it is time.
    pub(super) fn tick(&mut self, held: &Held, epoll: BorrowedFd<'_>, now: Instant) {
        if self.wanted && self.connection.is_none() && self.pause.is_over(now) {
            self.connect(held, epoll, now);
        }
    }

    /// Sends reports, which lead to `held`. If the device reads too slowly, they are dropped, and it is told `held` later.
    pub(super) fn send(
        &mut self,
        reports: &[Vec<Event>],
        held: &Held,
        epoll: BorrowedFd<'_>,
        now: Instant,
    ) {
        let sent = match &mut self.connection {
            Some(connection) if !reports.is_empty() => connection.send(reports, held),
            _ => return,
        };
        let watched = sent.and_then(|()| self.watch(epoll));
        self.check(watched, now);
    }

    /// Handles readiness of the connection. Returns the LEDs if the device told them.
    pub(super) fn ready(
        &mut self,
        held: &Held,
        epoll: BorrowedFd<'_>,
        now: Instant,
    ) -> Option<LedState> {
        let connection = self.connection.as_mut()?;
        let read = connection.read();
        let leds = connection.take_leds();
        let flushed = read.and_then(|()| connection.flush(held));
        let watched = flushed.and_then(|()| self.watch(epoll));
        self.check(watched, now);
        leds
    }

    /// Watches the connection for what it waits for.
    fn watch(&mut self, epoll: BorrowedFd<'_>) -> io::Result<()> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let flags = connection.interest();
        if connection.watched_for(flags) {
            let data = epoll::EventData::new_u64(self.token);
            epoll::modify(epoll, connection.as_fd(), data, flags)?;
        }
        Ok(())
    }

    fn connect(&mut self, held: &Held, epoll: BorrowedFd<'_>, now: Instant) {
        let connected = Connection::open(&self.path).and_then(|mut connection| {
            let data = epoll::EventData::new_u64(self.token);
            epoll::add(epoll, connection.as_fd(), data, connection.interest())?;
            connection.tell(held)?;
            Ok(connection)
        });
        let watched = connected.and_then(|connection| {
            self.connection = Some(connection);
            self.watch(epoll)
        });
        self.check(watched, now);
    }

    /// After an error the connection is given up, and another one made later.
    fn check(&mut self, result: io::Result<()>, now: Instant) {
        let Err(error) = result else { return };
        self.connection = None;
        let pause = self.pause.begin(now).as_secs();
        let (device, path) = (self.device, self.path.display());
        self.log.warn(format_args!(
            "the viewers have no {device}: {path}: {error}; the next try is in {pause} s"
        ));
    }
}
