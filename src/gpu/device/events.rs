//! What the device's events come from: the display's socket, a timer, and the device itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vmm_sys_util::epoll::EventSet;

use crate::backend::{DeviceContext, FIRST_TOKEN};

/// Tokens of the descriptors that the device watches.
pub(super) const DISPLAY: u16 = FIRST_TOKEN;
pub(super) const TIMER: u16 = FIRST_TOKEN + 1;
pub(super) const WAKE: u16 = FIRST_TOKEN + 2;
pub(super) const FENCE: u16 = FIRST_TOKEN + 3;

/// The program around the device, and what the device watches with it.
pub(super) struct EventSources {
    pub(super) host: DeviceContext,
    timer: OwnedFd,
    timer_set: Option<Instant>,
    wake: OwnedFd,
    watched: Option<(Arc<UnixStream>, EventSet)>,
}

impl EventSources {
    /// Watches a timer and an event of its own.
    pub(super) fn new(host: DeviceContext) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        host.watch(timer.as_fd(), EventSet::IN, TIMER)?;
        host.watch(wake.as_fd(), EventSet::IN, WAKE)?;
        Ok(Self {
            host,
            timer,
            timer_set: None,
            wake,
            watched: None,
        })
    }

    /// Watches the display's socket for what it is waited for, and no other any more.
    pub(super) fn watch_display(
        &mut self,
        wanted: Option<(&Arc<UnixStream>, EventSet)>,
    ) -> io::Result<()> {
        let same = match (&self.watched, &wanted) {
            (None, None) => true,
            (Some((old, was)), Some((new, is))) => Arc::ptr_eq(old, new) && was == is,
            _ => false,
        };
        if same {
            return Ok(());
        }
        // The old socket is still open: it would stay in the event loop if it were closed first
        // and had a duplicate elsewhere.
        if let Some((old, _)) = self.watched.take() {
            self.host.unwatch(old.as_fd())?;
        }
        if let Some((socket, interest)) = wanted {
            self.host.watch(socket.as_fd(), interest, DISPLAY)?;
            self.watched = Some((socket.clone(), interest));
        }
        Ok(())
    }

    /// Has [`TIMER`] come at `deadline`, or not at all.
    pub(super) fn set_timer(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        if self.timer_set == deadline {
            return Ok(());
        }
        let zero = Duration::ZERO;
        let in_time = deadline.map_or(zero, |at| {
            let left = at.saturating_duration_since(Instant::now());
            // 0 would stop the timer.
            left.max(Duration::from_nanos(1))
        });
        let spec = |d: Duration| Timespec::try_from(d).unwrap_or_default();
        let time = Itimerspec {
            it_interval: spec(zero),
            it_value: spec(in_time),
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)?;
        self.timer_set = deadline;
        Ok(())
    }

    /// Takes note that [`TIMER`] came.
    pub(super) fn timer_rang(&mut self) {
        drain(&self.timer);
        self.timer_set = None;
    }

    /// Has [`WAKE`] come after what the event loop has to do now.
    pub(super) fn wake(&self) {
        // An event that is ready already stays so.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Takes note that [`WAKE`] came.
    pub(super) fn woke(&self) {
        drain(&self.wake);
    }
}

/// Makes an event or a timer not ready; one that was not stays so.
fn drain(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}
