// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The program around a device, driven by unit tests and fuzz targets.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::backend::continuity::Continuity;
use crate::backend::device::request_links::RequestLinks;
use crate::backend::device::{DeviceContext, DeviceListeners, EventLoop};
use crate::backend::service::main_thread_channel::{
    MainThreadEvent, MainThreadHandle, MainThreadReceiver,
};
use crate::backend::virtqueue::GuestMemory;
#[cfg(feature = "fuzzing")]
use crate::backend::{SharedMemoryOutcome, SharedMemoryRequest};

/// The program around a device: an event loop that is polled by hand, and what the device reports to the main thread.
pub struct FakeContext {
    event_loop: Arc<Turns>,
    memory: GuestMemory,
    listeners: DeviceListeners,
    requests: RequestLinks,
    main_thread: MainThreadHandle,
    receiver: MainThreadReceiver,
    continuity: Continuity,
}

struct Turns(Epoll);

impl EventLoop for Turns {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        let event = EpollEvent::new(interest, token.into());
        self.0.ctl(ControlOperation::Add, fd.as_raw_fd(), event)
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let event = EpollEvent::default();
        self.0.ctl(ControlOperation::Delete, fd.as_raw_fd(), event)
    }
}

impl FakeContext {
    /// The context of a device that is yet to be built, in a guest with `memory`.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub fn new(memory: GuestMemory) -> io::Result<Self> {
        Self::with_continuity(memory, Continuity::default())
    }

    /// As [`FakeContext::new`], in a process that keeps `continuity`.
    pub(crate) fn with_continuity(memory: GuestMemory, continuity: Continuity) -> io::Result<Self> {
        let (main_thread, receiver) = MainThreadHandle::new()?;
        Ok(Self {
            event_loop: Arc::new(Turns(Epoll::new()?)),
            memory,
            listeners: DeviceListeners::default(),
            requests: RequestLinks::default(),
            main_thread,
            receiver,
            continuity,
        })
    }

    /// Gives the program the further listening socket `name`, for [`DeviceContext::listen`].
    ///
    /// # Errors
    /// As `fcntl(2)`.
    pub fn add_listener(&self, name: &'static str, listener: UnixListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        self.listeners.add(name, Arc::new(listener));
        Ok(())
    }

    /// Whether further listening sockets have clients.
    pub fn has_clients(&self) -> bool {
        self.receiver.has_clients()
    }

    /// The context to build a device with.
    pub fn context(&self) -> DeviceContext {
        DeviceContext::new(
            self.event_loop.clone(),
            self.memory.clone(),
            self.listeners.clone(),
            self.requests.clone(),
            self.main_thread.clone(),
            self.continuity.clone(),
        )
    }

    /// The events that are ready; waits for one up to `patience` milliseconds.
    ///
    /// # Errors
    /// As `epoll_wait(2)`.
    pub fn ready(&self, patience: i32) -> io::Result<Vec<(u16, EventSet)>> {
        let mut events = [EpollEvent::default(); 8];
        let count = self.event_loop.0.wait(patience, &mut events)?;
        let ready = events.iter().take(count);
        Ok(ready
            .map(|event| (event.data() as u16, event.event_set()))
            .collect())
    }

    /// What the proxy shares with a device that makes requests to its front-end.
    #[cfg(test)]
    pub(crate) fn requests(&self) -> &RequestLinks {
        &self.requests
    }

    /// The front-end asks for the device's shared memory regions, and answers requests.
    #[cfg(feature = "fuzzing")]
    pub fn begin_mapping(&self) {
        self.requests.shared_memory.asked();
        self.requests.shared_memory.set_channel(true);
    }

    /// The front-end does what it is asked in a region, or not. Returns what it was asked for.
    #[cfg(feature = "fuzzing")]
    pub fn answer_mapping(&self, outcome: SharedMemoryOutcome) -> Option<SharedMemoryRequest> {
        let memory = &self.requests.shared_memory;
        match outcome {
            SharedMemoryOutcome::Withdrawn => memory.withdraw(),
            SharedMemoryOutcome::Lost => {
                memory.set_channel(false);
                memory.set_channel(true);
            }
            SharedMemoryOutcome::Done | SharedMemoryOutcome::Refused => {
                let (_, request) = memory.take_wanted()?;
                memory.answered(outcome == SharedMemoryOutcome::Done);
                return Some(request);
            }
        }
        None
    }

    /// How many descriptors are watched with `token`.
    ///
    /// # Errors
    /// If /proc cannot be read.
    pub fn watched(&self, token: u16) -> io::Result<usize> {
        // "tfd: 5 events: 19 data: 101 ...", proc_pid_fdinfo(5).
        let path = format!("/proc/self/fdinfo/{}", self.event_loop.0.as_raw_fd());
        let token = format!("{token:x}");
        let watches = |line: &&str| line.split_whitespace().nth(5) == Some(token.as_str());
        Ok(fs::read_to_string(path)?.lines().filter(watches).count())
    }

    /// Takes the newest status.
    pub fn take_status(&self) -> Option<String> {
        self.receiver.take_status()
    }

    /// Why the program would end with an error, if it would.
    pub fn failure(&self) -> Option<String> {
        failure(&self.receiver)
    }

    /// The message of the next event, if it is the loss of the hardware.
    #[cfg(test)]
    pub fn lost_hardware(&self) -> Option<String> {
        match self.receiver.take()? {
            MainThreadEvent::HardwareLost { message, .. } => Some(message),
            _ => None,
        }
    }
}

pub(crate) fn failure(receiver: &MainThreadReceiver) -> Option<String> {
    while let Some(news) = receiver.take() {
        match news {
            MainThreadEvent::Failed(message) | MainThreadEvent::Crashed(message) => {
                return Some(message);
            }
            MainThreadEvent::DeviceBuilt(Err(error)) => return Some(error.to_string()),
            MainThreadEvent::DeviceBuilt(Ok(()))
            | MainThreadEvent::HardwareLost { .. }
            | MainThreadEvent::ClientsLeft
            | MainThreadEvent::RequestMade
            | MainThreadEvent::StateLost(_)
            | MainThreadEvent::DeviceEnded => {}
        }
    }
    None
}
