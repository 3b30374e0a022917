// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file descriptors that the worker waits on for the device, besides the virtqueues' kicks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::backend::{DeviceContext, EventSet, FIRST_TOKEN, WakeEvent};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Token of the device's [`EventSource`](crate::input::EventSource): it has events.
pub(super) const SOURCE: u16 = FIRST_TOKEN;
/// Token of [`WatchedFds::wake`].
pub(super) const WAKE: u16 = FIRST_TOKEN + 1;
/// Token of the timer: [`WatchedFds::begin_long_wait`], [`WatchedFds::try_again`].
pub(super) const TIMER: u16 = FIRST_TOKEN + 2;
/// Token of the source's listening socket: a program waits that sends events.
pub(super) const CLIENTS: u16 = FIRST_TOKEN + 3;
/// Token of [`EventSource::return_fd`](crate::input::EventSource::return_fd): the source may be back.
pub(super) const RETURN: u16 = FIRST_TOKEN + 4;
/// Token of the signal by which the host asks for the source.
pub(super) const RELEASE: u16 = FIRST_TOKEN + 5;
/// Token of the signal by which the host gives it again.
pub(super) const GRAB: u16 = FIRST_TOKEN + 6;
/// Token of the group of devices that change hands together.
pub(super) const GROUP: u16 = FIRST_TOKEN + 7;

/// A wait for the release of a key is logged if it takes longer than this.
const LONG_WAIT: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};
/// A source that another process has grabbed is tried again after this long.
const RETRIES: Timespec = Timespec {
    tv_sec: 1,
    tv_nsec: 0,
};

/// An eventfd by which the device wakes itself, and a timer.
#[derive(Debug)]
pub(super) struct WatchedFds {
    wake: WakeEvent,
    timer: OwnedFd,
}

impl WatchedFds {
    /// Makes the descriptors. The worker watches them from now on, and those of the source: `source` for events,
    /// `source_return` for its return.
    pub(super) fn new(
        context: &DeviceContext,
        source: Option<BorrowedFd<'_>>,
        source_return: Option<BorrowedFd<'_>>,
    ) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        if let Some(source) = source {
            context.watch(source, EventSet::IN, SOURCE)?;
        }
        if let Some(source_return) = source_return {
            context.watch(source_return, EventSet::IN, RETURN)?;
        }
        let wake = context.wake_event(WAKE)?;
        context.watch(timer.as_fd(), EventSet::IN, TIMER)?;
        Ok(Self { wake, timer })
    }

    /// Raises [`WAKE`], which comes after the events that are ready now.
    pub(super) fn wake(&self) {
        self.wake.set();
    }

    /// Acknowledges [`WAKE`].
    pub(super) fn woke(&self) {
        self.wake.clear();
    }

    /// Raises [`TIMER`] once a wait takes so long that it is to be logged.
    pub(super) fn begin_long_wait(&self) {
        self.set_timer(Some(LONG_WAIT));
    }

    /// Raises [`TIMER`] when a source that another process has grabbed is to be tried again.
    pub(super) fn try_again(&self) {
        self.set_timer(Some(RETRIES));
    }

    /// No longer raises [`TIMER`].
    pub(super) fn stop_timer(&self) {
        self.set_timer(None);
    }

    fn set_timer(&self, time: Option<Timespec>) {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let once = Itimerspec {
            it_interval: zero,
            it_value: time.unwrap_or(zero),
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once) {
            log::debug!("cannot set a timer: {error}");
        }
    }

    /// Acknowledges [`TIMER`]. Returns `false` if the timer was stopped meanwhile.
    pub(super) fn timer_rang(&self) -> bool {
        rustix::io::read(&self.timer, &mut [0; 8]).is_ok()
    }
}
