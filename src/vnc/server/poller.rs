// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Waiting for descriptors.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

pub(super) use rustix::event::epoll::EventFlags;

/// Most events of one wait.
const EVENTS: usize = 64;

/// An epoll descriptor.
pub(super) struct Poller(OwnedFd);

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(epoll::create(epoll::CreateFlags::CLOEXEC)?))
    }

    /// Waits for `fd` from now on, until it is closed.
    pub(super) fn add(&self, fd: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::add(&self.0, fd, data, flags)?)
    }

    /// Waits for other events of `fd`.
    pub(super) fn modify(&self, fd: impl AsFd, token: u64, flags: EventFlags) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token);
        Ok(epoll::modify(&self.0, fd, data, flags)?)
    }

    /// Waits, at most for `limit`. Returns what is ready.
    pub(super) fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<(u64, EventFlags)>> {
        let limit = limit.map(Timespec::try_from).transpose();
        let limit = limit.map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(EVENTS);
        match epoll::wait(&self.0, spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let ready = events.iter().map(|event| {
            // Unaligned fields.
            let (data, flags) = (event.data, event.flags);
            (data.u64(), flags)
        });
        Ok(ready.collect())
    }
}
