// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The main thread's loop: waits for the front-end, the other threads and signals, and passes vhost-user messages on.

use std::error::Error;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use conventions::FrontEndStatus;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::endpoint::Endpoint;
use super::other_front_ends::OtherFrontEnds;
use super::takeover;
use crate::backend::logging::RateLimitedLog;
use crate::backend::service::main_thread_channel::{MainThreadEvent, MainThreadReceiver};
use crate::backend::service::notify;
use crate::backend::service::status_line::StatusLine;
use crate::backend::sockets::is_passing;
use crate::backend::transport::device_handler::DeviceEnd;
use crate::backend::transport::proxy::{ConnectionSide, FrontEndProxy};

/// How long the device may take to give back what would outlast the program.
const END_LIMIT: Duration = Duration::from_millis(500);

/// Why the program ends.
#[derive(Debug)]
pub(super) enum ExitReason {
    /// SIGTERM or SIGINT.
    Signal,
    /// The front-end closed its connection.
    Disconnected,
    /// The last client of the further listening sockets left, and no front-end came: the service manager starts the
    /// program again for either.
    Idle,
    /// A fault of this process.
    Crashed(String),
    /// The program cannot go on.
    Failed(Box<dyn Error + Send + Sync>),
}

impl ExitReason {
    pub(super) fn failed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(error.into())
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for ExitReason {
    fn from(error: E) -> Self {
        Self::failed(error)
    }
}

/// What the main thread waited for.
enum MainEvent<const N: usize> {
    /// The worker has built the device.
    DeviceBuilt,
    /// Descriptors are ready, or the device makes a request to the front-end.
    Ready([PollFlags; N]),
}

/// The main thread's loop.
pub(super) struct MainLoop {
    /// Readable after SIGTERM and SIGINT.
    stop: UnixStream,
    receiver: MainThreadReceiver,
    status: StatusLine,
    /// The service manager was told that the program is ready.
    is_ready: bool,
    /// Whether to end when the last client leaves before a front-end comes.
    ends_idle: bool,
    /// Clients came, and left again.
    clients_left: bool,
    /// Hardware may come and go all the time.
    losses: RateLimitedLog,
}

impl MainLoop {
    /// From now on SIGTERM and SIGINT do not kill the process; the loop sees them.
    pub(super) fn new(receiver: MainThreadReceiver) -> io::Result<Self> {
        let (stop, signalled) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, signalled.try_clone()?)?;
        }
        Ok(Self {
            stop,
            receiver,
            status: StatusLine::default(),
            is_ready: false,
            ends_idle: false,
            clients_left: false,
            losses: RateLimitedLog::default(),
        })
    }

    /// Waits for `fds`, or an event of another thread.
    fn wait<const N: usize>(&mut self, fds: [PollFd<'_>; N]) -> Result<MainEvent<N>, ExitReason> {
        loop {
            let idle = self.is_idle();
            let timeout = match self.tell_status() {
                _ if idle => Some(Duration::ZERO),
                timeout => timeout,
            };
            let timeout = timeout.map(Timespec::try_from);
            let timeout = timeout.transpose().map_err(io::Error::other)?;
            let mut all = vec![
                PollFd::new(&self.stop, PollFlags::IN),
                PollFd::new(&self.receiver, PollFlags::IN),
            ];
            all.extend(fds.iter().cloned());
            match poll(&mut all, timeout.as_ref()) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(io::Error::from(e).into()),
            }
            let mut ready = all.iter().map(PollFd::revents);
            let stopped = ready.next().is_some_and(|flags| !flags.is_empty());
            let told = ready.next().is_some_and(|flags| !flags.is_empty());
            let flags: [PollFlags; N] =
                std::array::from_fn(|_| ready.next().unwrap_or(PollFlags::empty()));
            if stopped {
                return Err(ExitReason::Signal);
            }
            let event = if told { self.receiver.take() } else { None };
            match event {
                None | Some(MainThreadEvent::DeviceEnded) => {}
                Some(MainThreadEvent::ClientsLeft) => self.clients_left = true,
                Some(MainThreadEvent::RequestMade) => return Ok(MainEvent::Ready(flags)),
                Some(MainThreadEvent::Failed(message)) => return Err(message.into()),
                Some(MainThreadEvent::Crashed(message)) => {
                    return Err(ExitReason::Crashed(message));
                }
                Some(MainThreadEvent::DeviceBuilt(Err(e))) => return Err(e.into()),
                Some(MainThreadEvent::DeviceBuilt(Ok(()))) => return Ok(MainEvent::DeviceBuilt),
                Some(MainThreadEvent::HardwareLost {
                    message,
                    is_awaited,
                }) => self.lose_hardware(message, is_awaited)?,
                Some(MainThreadEvent::StateLost(reason)) => self.lose_state(reason),
            }
            if flags.iter().any(|flags| !flags.is_empty()) {
                return Ok(MainEvent::Ready(flags));
            }
            // A front-end that connects from here on stays in the queue of the socket, for the next start.
            if idle && !told {
                return Err(ExitReason::Idle);
            }
        }
    }

    /// From now on, without a front-end the program ends when its last client leaves.
    pub(super) fn end_when_idle(&mut self) {
        self.ends_idle = true;
    }

    fn is_idle(&self) -> bool {
        let may_end = self.ends_idle && !self.status.is_connected();
        may_end && self.clients_left && !self.receiver.has_clients()
    }

    /// Ends the program, or serves the front-end that is connected, or will be, without the hardware.
    fn lose_hardware(&mut self, message: String, is_awaited: bool) -> Result<(), ExitReason> {
        let what = match (self.status.is_connected(), is_awaited) {
            (true, _) => "the front-end is served without it",
            (false, true) => "it is waited for",
            (false, false) => return Err(message.into()),
        };
        self.losses.error(format_args!("{message}; {what}"));
        Ok(())
    }

    /// The front-end is served, and no other process can go on with it.
    fn lose_state(&mut self, reason: String) {
        takeover::forget_all();
        log::warn!(
            "the VM loses this device when this program is restarted or ends, because {reason}; shut the VM down before a \
             restart or an upgrade"
        );
        self.status.lose_state(reason);
    }

    /// Tells the service manager that the program is ready, with its first status. Only the first call has an effect.
    pub(super) fn ready(&mut self, status: impl fmt::Display) {
        if !std::mem::replace(&mut self.is_ready, true) {
            notify::ready(status);
        }
    }

    /// The front-end of the process before this one is served as that did.
    fn took_over(&mut self) {
        if !self.is_ready {
            log::info!("took over from the process before this one; its front-end is connected");
            self.ready(FrontEndStatus::Connected {
                next: None,
                detail: "took over from the process before this one",
            });
        }
    }

    /// Reports the front-end to the service manager.
    pub(super) fn connect_status(&mut self) {
        self.status.connect();
    }

    /// Sends the newest status, unless one was sent within the last second. Returns how long to wait with it.
    fn tell_status(&mut self) -> Option<Duration> {
        if let Some(detail) = self.receiver.take_status() {
            self.status.set_detail(detail);
        }
        if !self.is_ready {
            return None;
        }
        self.status.tell(Instant::now())
    }

    /// Waits until the worker has built the device.
    pub(super) fn wait_for_device(&mut self) -> Result<(), ExitReason> {
        match self.wait([])? {
            MainEvent::DeviceBuilt | MainEvent::Ready([]) => Ok(()),
        }
    }

    /// Accepts a front-end.
    pub(super) fn accept(&mut self, endpoint: &Endpoint) -> Result<UnixStream, ExitReason> {
        let listener = match endpoint {
            Endpoint::Connected(stream) => return Ok(stream.try_clone()?),
            Endpoint::Ours(listener, _) => listener,
            Endpoint::Listening {
                kept: Some(kept), ..
            } => {
                notify::forget_kept(notify::FRONT_END);
                return Ok(kept.try_clone()?);
            }
            Endpoint::Listening { listener, .. } => listener,
        };
        loop {
            self.wait([PollFd::new(listener, PollFlags::IN)])?;
            match listener.accept() {
                Ok((front_end, _)) => return Ok(front_end),
                Err(e) if is_passing(&e) => {}
                Err(e) => return Err(format!("cannot accept a front-end: {e}").into()),
            }
        }
    }

    /// Passes messages on until one side closes the connection; tells which. A program that goes on with the front-end of the
    /// process before it is ready once the daemon has done what that one's had. No front-end can delay that.
    pub(super) fn forward(
        &mut self,
        proxy: &mut dyn FrontEndProxy,
        others: &mut OtherFrontEnds<'_>,
    ) -> Result<ConnectionSide, ExitReason> {
        // One may have waited in an earlier run.
        self.status.set_next(others.next());
        loop {
            let [front_end, daemon, channel] = proxy.poll_fds();
            let (connection, other) = match others.poll_fd() {
                Some(other) => match self.wait([front_end, daemon, channel, other])? {
                    MainEvent::Ready([front_end, daemon, _, other]) => ([front_end, daemon], other),
                    MainEvent::DeviceBuilt => continue,
                },
                None => match self.wait([front_end, daemon, channel])? {
                    MainEvent::Ready([front_end, daemon, _]) => {
                        ([front_end, daemon], PollFlags::empty())
                    }
                    MainEvent::DeviceBuilt => continue,
                },
            };
            // First: one that connects after this front-end disconnected is no second front-end.
            if let Some(side) = proxy.pass(connection)? {
                return Ok(side);
            }
            if proxy.is_set_up() {
                self.took_over();
            }
            if !other.is_empty() {
                others.look();
                self.status.set_next(others.next());
            }
        }
    }

    /// Lets the device give back what would outlast the program. A worker that hangs does not delay the exit
    /// for longer than [`END_LIMIT`].
    pub(super) fn end_device(&self, device: &DeviceEnd) {
        if let Err(e) = device.request() {
            log::warn!("cannot have the device end: {e}");
            return;
        }
        let deadline = Instant::now() + END_LIMIT;
        loop {
            while let Some(event) = self.receiver.take() {
                match event {
                    MainThreadEvent::DeviceEnded => return,
                    // The worker itself may have ended.
                    MainThreadEvent::Failed(message) | MainThreadEvent::Crashed(message) => {
                        log::error!("{message}");
                        return;
                    }
                    MainThreadEvent::DeviceBuilt(_)
                    | MainThreadEvent::HardwareLost { .. }
                    | MainThreadEvent::ClientsLeft
                    | MainThreadEvent::RequestMade
                    | MainThreadEvent::StateLost(_) => {}
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                log::warn!(
                    "the device did not stop in time: its state on the host may not be restored"
                );
                return;
            }
            let mut fds = [PollFd::new(&self.receiver, PollFlags::IN)];
            // Whatever poll returns, the receiver and the time are checked again.
            let _ = poll(&mut fds, Timespec::try_from(left).ok().as_ref());
        }
    }
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal => f.write_str("stopped by a signal"),
            Self::Disconnected => f.write_str("the front-end disconnected"),
            Self::Idle => f.write_str("the last client left, and no front-end is connected"),
            Self::Crashed(message) => f.write_str(message),
            Self::Failed(error) => error.fmt(f),
        }
    }
}
