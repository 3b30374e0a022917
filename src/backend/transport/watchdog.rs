// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The timer for `WATCHDOG=1` (sd_notify(3)).

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use crate::backend::service::notify;

/// A timer for `WATCHDOG=1`.
pub(super) struct Watchdog {
    timer: OwnedFd,
    interval: Duration,
}

impl Watchdog {
    /// The watchdog of the unit (`WatchdogSec=`), if it has one.
    pub(super) fn of_unit() -> io::Result<Option<Self>> {
        notify::watchdog_interval().map(Self::new).transpose()
    }

    fn new(interval: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let watchdog = Self { timer, interval };
        watchdog.due_in(interval)?;
        Ok(watchdog)
    }

    /// Sets the timer: once after `first`, then at each interval.
    fn due_in(&self, first: Duration) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: Timespec::try_from(self.interval).map_err(io::Error::other)?,
            it_value: Timespec::try_from(first).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Readable while [`Self::feed`] is due.
    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Sends `WATCHDOG=1` if it is due, after `wait_for_threads` has returned.
    pub(super) fn feed(&self, wait_for_threads: impl FnOnce()) -> io::Result<()> {
        let mut expirations = [0; 8];
        if rustix::io::read(&self.timer, &mut expirations).is_ok() {
            wait_for_threads();
            if !notify::watchdog() {
                self.due_in(notify::watchdog_retry(self.interval))?;
            }
        }
        Ok(())
    }
}
