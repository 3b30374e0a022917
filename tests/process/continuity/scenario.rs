// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a front-end, its guest and others do, and what they see.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use frontend::manager::{Service, ServiceOptions};
use frontend::{Error, Result, Session};

/// The sockets of the service.
#[derive(Debug)]
pub(super) struct Paths {
    pub(super) vhost_user: PathBuf,
    pub(super) events: PathBuf,
}

impl Paths {
    pub(super) fn of(service: &Service) -> Self {
        Self {
            vhost_user: service.path("vhost-user"),
            events: service.path("events"),
        }
    }
}

/// The front-end's connection, as a bystander sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Connection(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stream: Mutex<Option<UnixStream>>,
    leaving: AtomicBool,
}

impl Connection {
    fn set(&self, stream: Option<UnixStream>) {
        let mut place = self.0.stream.lock().unwrap_or_else(PoisonError::into_inner);
        *place = stream;
    }

    /// Whether the front-end disconnects next, or has done so.
    pub(super) fn is_leaving(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// Whether the program closed it. Nothing then comes that the scenario waits for.
    pub(super) fn is_closed(&self) -> bool {
        let place = self.0.stream.lock().unwrap_or_else(PoisonError::into_inner);
        place.as_ref().is_some_and(|stream| {
            let mut fds = [PollFd::new(stream, PollFlags::empty())];
            let now = Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().contains(PollFlags::HUP)
        })
    }
}

/// What was seen so far, in words.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) lines: Vec<String>,
    connection: Connection,
}

impl Seen {
    pub(super) fn with(connection: &Connection) -> Self {
        Self {
            lines: Vec::new(),
            connection: connection.clone(),
        }
    }

    /// Something was seen.
    pub(super) fn add(&mut self, what: impl std::fmt::Display) {
        self.lines.push(what.to_string());
    }

    /// Connects the front-end.
    pub(super) fn connect(&self, path: &Path) -> Result<Session> {
        let failed = |source| Error::Io {
            what: format!("connecting to {}", path.display()).into(),
            source,
        };
        let stream = UnixStream::connect(path).map_err(failed)?;
        self.connection.set(stream.try_clone().ok());
        Ok(Session::new(stream))
    }

    /// The front-end disconnects next.
    pub(super) fn leave(&self) {
        self.connection.0.leaving.store(true, Ordering::Release);
        self.connection.set(None);
    }
}

/// A sequence of actions whose outcome is the same each time.
#[derive(Clone, Copy)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// The service.
    pub(super) options: fn() -> ServiceOptions,
    /// Plays front-end and guest. What it adds to `seen` is the same each time, or an error is returned.
    pub(super) play: fn(&Paths, &mut Seen) -> Result<()>,
}
