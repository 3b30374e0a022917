//! The connection to the events socket of one virtual input device.

mod connection;

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use connection::Connection;

use super::event::Event;
use super::held::Held;
use super::led_state::LedState;
use crate::backend::RateLimitedLog;

/// How long to wait with another try after a connection failed: this first, and twice as long each time.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// A connection that is made again when it ends, as long as it is wanted.
#[derive(Debug)]
pub(super) struct EventsLink {
    path: PathBuf,
    /// What messages call the device.
    device: &'static str,
    /// By which the epoll descriptor names it.
    token: u64,
    wanted: bool,
    connection: Option<Connection>,
    /// When to try again, while there is no connection.
    next_try: Option<Instant>,
    delay: Duration,
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
            next_try: None,
            delay: FIRST_DELAY,
            log: RateLimitedLog::default(),
        }
    }

    pub(super) fn token(&self) -> u64 {
        self.token
    }

    /// Connects, and goes on trying until [`Self::close`].
    pub(super) fn open(&mut self, held: &Held, epoll: BorrowedFd<'_>, now: Instant) {
        if !self.wanted {
            self.wanted = true;
            self.delay = FIRST_DELAY;
            self.connect(held, epoll, now);
        }
    }

    /// Disconnects: the device releases what was pressed.
    pub(super) fn close(&mut self) {
        self.wanted = false;
        // The kernel takes a closed descriptor out of the epoll descriptor.
        self.connection = None;
        self.next_try = None;
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_try
    }

    /// Connects again if it is time.
    pub(super) fn tick(&mut self, held: &Held, epoll: BorrowedFd<'_>, now: Instant) {
        if self.next_try.is_some_and(|next| now >= next) {
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
        self.next_try = None;
        let connected = Connection::open(&self.path, now).and_then(|mut connection| {
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
        let lasted = self.connection.take().map(|connection| connection.age(now));
        if lasted.is_some_and(|lasted| lasted >= MAX_DELAY) {
            self.delay = FIRST_DELAY;
        }
        let (device, path, delay) = (self.device, self.path.display(), self.delay);
        self.log.warn(format_args!(
            "the viewers have no {device}: {path}: {error}; the next try is in {} s",
            delay.as_secs()
        ));
        self.next_try = now.checked_add(delay);
        self.delay = (delay * 2).min(MAX_DELAY);
    }
}
