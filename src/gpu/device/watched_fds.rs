// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The file descriptors that bring the device events, beside its virtqueues' kicks: display sockets, a
//! timer, an event that the device sends itself, and the renderer's fence event.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::displays::Displays;
use super::error_log::ErrorLog;
use super::tokens::{FENCE, TIMER, WAKE};
use crate::backend::{DeviceContext, EventSet, WakeEvent};
use crate::gpu::scanout::Scanouts;

/// A socket that is watched.
struct WatchedSocket {
    token: u16,
    socket: Arc<UnixStream>,
    interest: EventSet,
}

/// What the device watches in the worker's event loop.
pub(super) struct WatchedFds {
    context: DeviceContext,
    timer: OwnedFd,
    timer_set: Option<Instant>,
    wake: WakeEvent,
    sockets: Vec<WatchedSocket>,
}

impl WatchedFds {
    /// Watches a timer and an event of its own.
    pub(super) fn new(context: DeviceContext) -> io::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )?;
        context.watch(timer.as_fd(), EventSet::IN, TIMER)?;
        let wake = context.wake_event(WAKE)?;
        Ok(Self {
            context,
            timer,
            timer_set: None,
            wake,
            sockets: Vec::new(),
        })
    }

    /// Watches the renderer's fence event.
    pub(super) fn watch_fences(&self, event: BorrowedFd<'_>) -> io::Result<()> {
        self.context.watch(event, EventSet::IN, FENCE)
    }

    /// Watches the displays' sockets, and sets the timer as the displays need it now and for `deadline`. Returns how many consoles are
    /// gone since the last time.
    pub(super) fn rearm(
        &mut self,
        displays: &mut Displays,
        scanouts: &mut Scanouts,
        deadline: Option<Instant>,
        log: &mut ErrorLog,
    ) -> usize {
        let gone = displays.watch(
            |token, wanted| self.watch_socket(token, wanted),
            scanouts,
            log,
        );
        let deadlines = displays.deadline().into_iter().chain(deadline);
        if let Err(e) = self.set_timer(deadlines.min()) {
            log.device(format_args!("cannot set the timer: {e}"));
        }
        gone
    }

    /// Watches a socket with `token`, and no other with that token any more.
    fn watch_socket(
        &mut self,
        token: u16,
        wanted: Option<(&Arc<UnixStream>, EventSet)>,
    ) -> io::Result<()> {
        let position = self.sockets.iter().position(|old| old.token == token);
        let old = position.and_then(|position| self.sockets.get(position));
        let is_same = match (old, &wanted) {
            (None, None) => true,
            (Some(old), Some((socket, interest))) => {
                Arc::ptr_eq(&old.socket, socket) && old.interest == *interest
            }
            _ => false,
        };
        if is_same {
            return Ok(());
        }
        // The old socket is still open: it would stay in the event loop if it were closed first
        // and had a duplicate elsewhere.
        if let Some(position) = position {
            let old = self.sockets.swap_remove(position);
            self.context.unwatch(old.socket.as_fd())?;
        }
        if let Some((socket, interest)) = wanted {
            self.context.watch(socket.as_fd(), interest, token)?;
            self.sockets.push(WatchedSocket {
                token,
                socket: socket.clone(),
                interest,
            });
        }
        Ok(())
    }

    /// Sets the timer so that [`TIMER`] comes at `deadline`, or not at all.
    fn set_timer(&mut self, deadline: Option<Instant>) -> io::Result<()> {
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

    /// [`TIMER`] came.
    pub(super) fn timer_expired(&mut self) {
        // One that did not expire stays so.
        let _ = rustix::io::read(&self.timer, &mut [0_u8; 8]);
        self.timer_set = None;
    }

    /// Makes [`WAKE`] come after the events that are ready now.
    pub(super) fn wake(&self) {
        self.wake.set();
    }

    /// [`WAKE`] came.
    pub(super) fn woke(&self) {
        self.wake.clear();
    }
}
