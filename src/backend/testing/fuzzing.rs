// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Access to private modules for the targets in fuzz/.

use std::io;
use std::mem::ManuallyDrop;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::fake_context::failure;
use crate::backend::device::request_links::RequestLinks;
use crate::backend::device::{DeviceBuilder, DeviceListeners};
use crate::backend::service::main_thread_channel::{
    MainThreadEvent, MainThreadHandle, MainThreadReceiver,
};
use crate::backend::transport::device_handler::BEGIN;
use crate::backend::transport::display_socket::DisplaySocketMailbox;
use crate::backend::transport::proxy::{self, FrontEndProxy as _, VhostUserProxy};
use crate::backend::transport::succession::Succession;
use crate::backend::transport::worker;

pub use super::fake_context::FakeContext;
pub use super::processes::{Processes, Proxy};
pub use super::split_queue::{Descriptor, INDIRECT, NEXT, SplitQueue, Used, WRITE};
pub use crate::backend::continuity::fuzzing::{Entry, HostileState, Part, Successor};

/// The whole of a program behind a front-end's socket: proxy, daemon, worker and device.
pub struct Connection<B: DeviceBuilder> {
    proxy: VhostUserProxy,
    goes_on: bool,
    daemon: worker::Daemon<B>,
    receiver: MainThreadReceiver,
}

impl<B: DeviceBuilder> Connection<B> {
    /// Serves the device of `builder` to the other end of `front_end`.
    ///
    /// # Errors
    /// If the host has no descriptors or threads left.
    pub fn new(front_end: UnixStream, builder: B) -> io::Result<Self> {
        let (main_thread, receiver) = MainThreadHandle::new()?;
        let slot = DisplaySocketMailbox::default();
        let listeners = DeviceListeners::default();
        let requests = RequestLinks::default();
        let (mut daemon, _) = worker::spawn(
            "fuzz",
            builder,
            slot.clone(),
            listeners,
            requests.clone(),
            main_thread,
            Succession::default(),
        )?;
        // As a program does: the worker has begun before a front-end is served.
        while has_begun(&receiver)?.is_none() {
            poll(&mut [PollFd::new(&receiver, PollFlags::IN)], None)?;
        }
        let (listener, private) = proxy::private_connection()?;
        daemon
            .start(&mut listener.into())
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self {
            proxy: VhostUserProxy::new(front_end, private, slot, requests)?,
            goes_on: true,
            daemon,
            receiver,
        })
    }

    /// Passes on what can be passed without blocking; `false` after the end of the connection.
    pub fn pass(&mut self) -> bool {
        self.goes_on &= matches!(self.proxy.pass([PollFlags::empty(); 2]), Ok(None));
        self.goes_on
    }

    /// Passes messages until a side closes the connection or a message is refused, then lets the daemon handle
    /// the rest and end. Returns why the program would have failed, if it would.
    ///
    /// # Panics
    /// If the connection or the daemon hangs.
    pub fn finish(mut self) -> Option<String> {
        while self.goes_on {
            let passed = self.proxy.pass(wait(&self.proxy.poll_fds()));
            self.goes_on = matches!(passed, Ok(None));
        }
        let Self {
            proxy,
            daemon,
            receiver,
            ..
        } = self;
        let (_, private) = proxy.into_ends();
        // It reads to the end of what was sent, and is not stopped by answers that nobody takes.
        let _ = private.shutdown(Shutdown::Write);
        let _ = private.set_nonblocking(false);
        let _ = private.set_read_timeout(Some(PATIENCE));
        let drained = io::copy(&mut &private, &mut io::sink());
        let hangs = drained.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock);
        assert!(!hangs, "the daemon hangs");
        let mut daemon = ManuallyDrop::into_inner(daemon);
        // How the front-end's messages end the connection is theirs to say.
        let _ = daemon.wait();
        let failure = failure(&receiver);
        // The worker of a program ends with it; this one is to end with its connection.
        let end =
            EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK).and_then(|end| end.write(1).map(|()| end));
        let end = end.expect("cannot make an eventfd");
        for event_loop in daemon.get_epoll_handlers() {
            let heard = event_loop.register_listener(end.as_raw_fd(), EventSet::IN, BEGIN.into());
            heard.expect("cannot end the worker");
        }
        drop(daemon);
        failure
    }
}

/// Whether the device has begun.
fn has_begun(receiver: &MainThreadReceiver) -> io::Result<Option<()>> {
    match receiver.take() {
        Some(MainThreadEvent::DeviceBuilt(started)) => started.map(Some).map_err(io::Error::other),
        Some(MainThreadEvent::Failed(message)) => Err(io::Error::other(message)),
        _ => Ok(None),
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn wait(fds: &[PollFd<'_>; 3]) -> [PollFlags; 2] {
    let mut fds = fds.clone();
    let patience = Timespec::try_from(PATIENCE).ok();
    let ready = poll(&mut fds, patience.as_ref());
    assert_ne!(ready, Ok(0), "the connection hangs");
    let [front_end, daemon, _] = fds.map(|fd| fd.revents());
    [front_end, daemon]
}

/// The proxy alone, between two sockets.
pub struct Passage(VhostUserProxy);

impl Passage {
    /// Joins the two connections.
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn new(front_end: UnixStream, daemon: UnixStream) -> io::Result<Self> {
        let proxy = VhostUserProxy::new(
            front_end,
            daemon,
            DisplaySocketMailbox::default(),
            RequestLinks::default(),
        )?;
        Ok(Self(proxy))
    }

    /// Passes on what can be passed without blocking; `false` after the end of the connection.
    pub fn pass(&mut self) -> bool {
        matches!(self.0.pass([PollFlags::empty(); 2]), Ok(None))
    }
}
