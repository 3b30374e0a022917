// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How long a device waits until the front-end tells of the memory that it has mapped.
//!
//! QEMU tells nothing of a map in a region that the guest has hidden, as by a BAR without an address.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// QEMU tells within milliseconds, also on a busy host.
const PATIENCE: Duration = Duration::from_secs(2);

/// A deadline, and the timer that makes it an event.
pub(super) struct Deadline {
    timer: OwnedFd,
    at: Option<Instant>,
}

impl Deadline {
    /// # Errors
    /// If the host has no descriptors left.
    pub(super) fn new() -> Result<Self, Errno> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { timer, at: None })
    }

    /// It begins to run.
    ///
    /// # Errors
    /// As `timerfd_settime(2)`.
    pub(super) fn start(&mut self) -> Result<(), Errno> {
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(PATIENCE).unwrap_or_default(),
        };
        // A timer that is set is readable no more, until its time.
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        self.at = Some(Instant::now() + PATIENCE);
        Ok(())
    }

    /// Whether it is over. One that never began is.
    pub(super) fn is_over(&self) -> bool {
        self.at.is_none_or(|at| Instant::now() >= at)
    }
}

/// Readable when it is over.
impl AsFd for Deadline {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}
