// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting, with a limit.

use std::borrow::Cow;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::{Error, Result};

/// How long is waited where nothing else is said.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(30);

/// The moment until which something may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    end: Instant,
    limit: Duration,
}

impl Default for Deadline {
    fn default() -> Self {
        Self::after(DEFAULT_LIMIT)
    }
}

impl Deadline {
    /// `limit` from now.
    pub fn after(limit: Duration) -> Self {
        Self {
            end: Instant::now() + limit,
            limit,
        }
    }

    /// What is left, zero once it has passed.
    pub fn left(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.left().is_zero()
    }

    /// The error of something that was not there in time.
    pub fn missed(&self, what: impl Into<Cow<'static, str>>) -> Error {
        Error::Timeout {
            what: what.into(),
            limit: self.limit,
        }
    }

    /// Whether `fd` becomes ready for `events` (or fails) before the deadline.
    ///
    /// # Errors
    /// As `poll(2)`; a wait that ends in time with nothing is `Ok(false)`.
    pub fn ready(&self, fd: impl AsFd, events: PollFlags) -> Result<bool> {
        loop {
            let left = self.left();
            let limit = Timespec {
                tv_sec: left.as_secs() as _,
                tv_nsec: left.subsec_nanos() as _,
            };
            let mut fds = [PollFd::new(&fd, events)];
            match poll(&mut fds, Some(&limit)) {
                Ok(n) => return Ok(n > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(Error::os("poll")(e)),
            }
        }
    }

    /// Waits until `check` gives something, looking every 2 ms: for what has no descriptor to wait
    /// on.
    ///
    /// # Errors
    /// [`Error::Timeout`], and whatever `check` fails with.
    pub fn until<T>(
        &self,
        what: impl Into<Cow<'static, str>>,
        mut check: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        loop {
            if let Some(found) = check()? {
                return Ok(found);
            }
            if self.passed() {
                return Err(self.missed(what));
            }
            std::thread::sleep(Duration::from_millis(2).min(self.left()));
        }
    }
}
