// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a program asks of a device, and what a device may ask of the program.

pub(crate) mod client_listener;
pub(crate) mod config_change;
pub(crate) mod display_socket;
pub(crate) mod request_links;
pub(crate) mod shared_memory;
pub(crate) mod wake_event;

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;

use vmm_sys_util::epoll::EventSet;

use client_listener::ClientListener;
pub(crate) use client_listener::DeviceListeners;
use config_change::ConfigChange;
use display_socket::DisplaySocket;
use request_links::RequestLinks;
use shared_memory::{SharedMemory, SharedMemoryRegion};
use wake_event::WakeEvent;

use crate::backend::continuity::{Continuity, Owner};
use crate::backend::sandbox::SandboxPolicy;
use crate::backend::service::main_thread_channel::{MainThreadEvent, MainThreadHandle};
use crate::backend::virtqueue::{GuestMemory, Positions, Vring};

/// The first number a device may use as the token of a file descriptor it watches. Smaller numbers are
/// virtqueues' indices and the program's own tokens.
pub const FIRST_TOKEN: u16 = 0x100;

/// A virtio device that works: [`DeviceBuilder::build`] makes it.
///
/// The worker thread builds the device and calls [`Device::handle_event`] and [`Device::end`]. The protocol thread
/// calls the other methods, to answer vhost-user messages, while the worker does not use the device. No method may
/// block: the virtqueues, the watchdog and the front-end, with its whole machine, wait for it.
pub trait Device: Send + 'static {
    /// How many virtqueues the device has.
    const QUEUES: usize;

    /// Whether the device gives each virtqueue's requests back in their order, and has none that it took and did not give
    /// back when the virtqueue stops.
    ///
    /// All requests from the used index on are then not done, whatever became of the process before this one. So the
    /// virtqueues start there, and not where the front-end says (`VHOST_USER_SET_VRING_BASE`). The two are the same, but in a
    /// VMM that connects again after a backend was killed: Cloud Hypervisor skips all that the driver made available
    /// until then, and an input device's driver makes no more available.
    const USES_IN_ORDER: bool = false;

    /// Feature bits of the device type (virtio 1.2, 2.2 and section 5). [`TRANSPORT_FEATURES`] are offered in
    /// addition.
    ///
    /// [`TRANSPORT_FEATURES`]: crate::backend::TRANSPORT_FEATURES
    fn features(&self) -> u64 {
        0
    }

    /// The driver accepted `features`, among them the transport's.
    fn acked_features(&mut self, features: u64) {
        let _ = features;
    }

    /// Returns `size` bytes of the configuration space from byte `offset` on (virtio 1.2, 2.5), or none if these do
    /// not exist: the front-end then gets an error. The default has no configuration space.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let _ = (offset, size);
        Vec::new()
    }

    /// The driver writes `data` to the configuration space from byte `offset` on. The default ignores it.
    ///
    /// # Errors
    /// Any error ends the connection. Return one only for what a front-end can cause, and no driver.
    fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let _ = (offset, data);
        Ok(())
    }

    /// The front-end changed the memory that it shares. [`DeviceContext::memory`] is the new memory already; a
    /// device that kept host addresses of the old memory looks them up again.
    fn memory_changed(&mut self) {}

    /// The front-end sent the socket for a GPU's display (`VHOST_USER_GPU_SET_SOCKET`).
    ///
    /// # Errors
    /// Any error ends the connection. The default is `Unsupported`: a front-end that takes the device for a GPU
    /// fails early.
    fn set_gpu_socket(&mut self, socket: DisplaySocket) -> io::Result<()> {
        drop(socket);
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this device is not a GPU and has no display",
        ))
    }

    /// The front-end stopped or disabled the virtqueue `index`. When it starts the virtqueue again, an event
    /// follows, as for a kick.
    ///
    /// # Errors
    /// Any error ends the program.
    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        let _ = index;
        Ok(())
    }

    /// The front-end resets the device (`VHOST_USER_RESET_DEVICE`).
    fn reset_device(&mut self) {}

    /// The driver kicked the virtqueue with the index `event`, or the descriptor that is watched with the token
    /// `event` is ready for `ready`. `vrings` are all virtqueues, by index.
    ///
    /// # Errors
    /// Any error ends the program. Nothing that a guest does may lead to one.
    fn handle_event(&mut self, event: u16, ready: EventSet, vrings: &[Vring]) -> io::Result<()>;

    /// The program is about to end. The device gives back to the host what would outlast the program, within half
    /// a second. Only messages that are under way may lead to further calls.
    fn end(&mut self) {}
}

/// Everything a device is made of. [`Program::open`] makes the builder on the main thread, with all files and
/// privileges, so that a program fails early; the worker thread builds the device, in the sandbox.
///
/// [`Program::open`]: crate::backend::Program::open
pub trait DeviceBuilder: Send + 'static {
    /// The device.
    type Device: Device;
    /// Why the device cannot be built; its message is the last that the program logs.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The files and system calls that [`DeviceBuilder::build`] and the device need. The default is none
    /// beyond those for serving a front-end. Descriptors that are open stay open.
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }

    /// Builds the device, on the worker thread, before the program is ready and accepts a front-end. The device keeps
    /// `context`, and watches its file descriptors through it.
    ///
    /// # Errors
    /// Whatever keeps the device from working. The program then ends with status 1.
    fn build(self, context: DeviceContext) -> Result<Self::Device, Self::Error>;
}

/// The worker's event loop, whatever device it serves.
pub(crate) trait EventLoop: Send + Sync {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()>;
    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
}

/// The program around a device: memory, event loop, status and the ways to end. Clones are the same.
#[derive(Clone)]
pub struct DeviceContext {
    event_loop: Arc<dyn EventLoop>,
    memory: GuestMemory,
    listeners: DeviceListeners,
    requests: RequestLinks,
    main_thread: MainThreadHandle,
    continuity: Continuity,
}

impl DeviceContext {
    pub(crate) fn new(
        event_loop: Arc<dyn EventLoop>,
        memory: GuestMemory,
        listeners: DeviceListeners,
        requests: RequestLinks,
        main_thread: MainThreadHandle,
        continuity: Continuity,
    ) -> Self {
        Self {
            event_loop,
            memory,
            listeners,
            requests,
            main_thread,
            continuity,
        }
    }

    /// What is kept for a successor of this process, and what a predecessor left.
    pub(crate) fn continuity(&self) -> &Continuity {
        &self.continuity
    }

    /// The index of the first available request of the virtqueue `index` that a predecessor has not done, if there was
    /// one.
    pub(crate) fn kept_position(&self, index: u16) -> Option<u16> {
        let positions = Positions::new(self.continuity.ledger(Owner::Device));
        let position = positions.get(index.into()).ok().flatten();
        position.map(|position| position.next_avail)
    }

    /// The guest's memory, always as the front-end shares it now. It is empty until a front-end shares some.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Watches `fd`: the worker calls [`Device::handle_event`] with `token` while it is ready for `interest`
    /// (level-triggered).
    ///
    /// # Errors
    /// As `epoll_ctl(2)`; `EINVAL` for a token below [`FIRST_TOKEN`].
    pub fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        if token < FIRST_TOKEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.event_loop.watch(fd, interest, token)
    }

    /// Stops watching `fd`. An event that is under way may still arrive. To change what a descriptor is watched for,
    /// unwatch and watch it.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.event_loop.unwatch(fd)
    }

    /// Makes an event by which the device wakes itself: the worker then calls [`Device::handle_event`] with `token`.
    ///
    /// # Errors
    /// As `eventfd(2)` and [`DeviceContext::watch`].
    pub fn wake_event(&self, token: u16) -> io::Result<WakeEvent> {
        let event = WakeEvent::new()?;
        self.watch(event.as_fd(), EventSet::IN, token)?;
        Ok(event)
    }

    /// Accepts clients on the program's further listening socket `name` ([`Program::listeners`]), up to `max` at the
    /// same time: [`Device::handle_event`] gets `token` while some wait, and calls [`ClientListener::accept`]. None if
    /// the program has no such socket, or the device took it already.
    ///
    /// # Errors
    /// As `fcntl(2)` and [`DeviceContext::watch`].
    ///
    /// [`Program::listeners`]: crate::backend::Program::listeners
    pub fn listen(&self, name: &str, token: u16, max: usize) -> io::Result<Option<ClientListener>> {
        match self.listeners.take(name) {
            Some((name, listener)) => {
                ClientListener::watch(self.clone(), name, listener, token, max).map(Some)
            }
            None => Ok(None),
        }
    }

    /// Lets the device have the driver told that its configuration space changed. The front-end is offered a channel
    /// for that (`VHOST_USER_PROTOCOL_F_BACKEND_REQ`), and [`Device::handle_event`] gets `token` when the
    /// [state](ConfigChange::state) is another one.
    ///
    /// # Errors
    /// As [`DeviceContext::wake_event`].
    pub fn config_change(&self, token: u16) -> io::Result<ConfigChange> {
        let wake = self.wake_event(token)?;
        let link = &self.requests.config_changes;
        Ok(link.offer(self.main_thread.clone(), wake))
    }

    /// Gives the device a shared memory region, into which the front-end maps files. The front-end is offered what that
    /// needs (`VHOST_USER_PROTOCOL_F_SHMEM`), and [`Device::handle_event`] gets `token` when a request has an
    /// [outcome](SharedMemory::take_outcome). A device has one region at most, and one call.
    ///
    /// # Errors
    /// As [`DeviceContext::wake_event`]; `Unsupported` if the device is one that outlives its process: no successor would
    /// know what is mapped.
    pub fn shared_memory(
        &self,
        region: SharedMemoryRegion,
        token: u16,
    ) -> io::Result<SharedMemory> {
        if self.continuity.is_kept() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "what the front-end has mapped is not kept for another process",
            ));
        }
        let wake = self.wake_event(token)?;
        let link = &self.requests.shared_memory;
        Ok(link.offer(region, self.main_thread.clone(), wake))
    }

    /// A client of a further listening socket came.
    fn client_came(&self) {
        self.main_thread.client_came();
    }

    /// A client of a further listening socket left.
    fn client_left(&self) {
        self.main_thread.client_left();
    }

    /// Sets the text about the device in the service's status (`STATUS=`), as `systemctl status` shows it. The
    /// program sends at most one text per second, the newest; this never waits for the service manager.
    pub fn status(&self, text: impl Display) {
        self.main_thread.status(text);
    }

    /// Reports that the hardware is gone, with `message` for the log. The program goes on if the device waits for it
    /// (`is_awaited`), and with a front-end: a VMM may exit when it loses its backend (QEMU does while no
    /// driver runs the device). Otherwise it ends with `message` and status 1. The device says in its
    /// [status](Self::status) what it waits for.
    pub fn lose_hardware(&self, message: impl Display, is_awaited: bool) {
        let message = message.to_string();
        self.main_thread.tell(MainThreadEvent::HardwareLost {
            message,
            is_awaited,
        });
    }

    /// Ends the program with `message` and status 1: the device cannot go on.
    pub fn fail(&self, message: impl Display) {
        self.main_thread
            .tell(MainThreadEvent::Failed(message.to_string()));
    }
}
