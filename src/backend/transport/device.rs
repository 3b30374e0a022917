//! What the common part of the programs asks of a device, and what it gives it.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vmm_sys_util::epoll::EventSet;

use super::wake_event::WakeEvent;
use crate::backend::lock::lock;
use crate::backend::sandbox::SandboxPolicy;
use crate::backend::service::main_thread::{MainThreadEvent, MainThreadHandle};
use crate::backend::virtqueue::{GuestMemory, Vring};

/// The first number a device may use as the token of a file descriptor it watches. Those below are
/// the queues' own and the common part's.
pub const FIRST_TOKEN: u16 = 0x100;

/// A virtio device, from the moment when it works: [`DeviceBuilder::build`] makes it.
///
/// The device lives on one thread, the worker: there it is built, there [`Device::handle_event`] and
/// [`Device::end`] are called. The other methods answer vhost-user messages; the protocol thread calls
/// them while the worker does not have the device. No method may block: the queues, the watchdog and
/// the front-end, with its whole machine, wait for it.
pub trait Device: Send + 'static {
    /// How many virtqueues the device has.
    const QUEUES: usize;

    /// The feature bits of the device type (virtio 1.2, section 5), 0 to 23. [`TRANSPORT_FEATURES`]
    /// are offered beside them.
    ///
    /// [`TRANSPORT_FEATURES`]: crate::backend::TRANSPORT_FEATURES
    fn features(&self) -> u64 {
        0
    }

    /// The driver accepted these of all features that were offered.
    fn acked_features(&mut self, features: u64) {
        let _ = features;
    }

    /// `size` bytes of the configuration space from byte `offset` on. Where there are none, no bytes:
    /// the front-end is answered with an error. By default the device has no configuration.
    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let _ = (offset, size);
        Vec::new()
    }

    /// The driver writes `data` into the configuration space from byte `offset` on. By default it is
    /// ignored.
    ///
    /// # Errors
    /// Any error ends the connection: it is for what no driver can cause, only a front-end.
    fn set_config(&mut self, offset: u32, data: &[u8]) -> io::Result<()> {
        let _ = (offset, data);
        Ok(())
    }

    /// The front-end shares other memory than before: what [`DeviceContext::memory`] gave is that from
    /// now on. Addresses that were kept have to be looked up again.
    fn memory_changed(&mut self) {}

    /// The front-end sent a socket to display on (`VHOST_USER_GPU_SET_SOCKET`), for a GPU.
    fn set_gpu_socket(&mut self, socket: UnixStream) {
        drop(socket);
    }

    /// The front-end stopped or disabled the virtqueue `index`. Nothing of it may be touched until it
    /// is started again, which brings an event.
    ///
    /// # Errors
    /// Any error ends the program.
    fn stop_vring(&mut self, index: u32) -> io::Result<()> {
        let _ = index;
        Ok(())
    }

    /// The front-end resets the device (`VHOST_USER_RESET_DEVICE`).
    fn reset_device(&mut self) {}

    /// The driver kicked the virtqueue `event`, or the descriptor that is watched with the token
    /// `event` is ready for `ready`. `vrings` are the virtqueues by their numbers.
    ///
    /// # Errors
    /// Any error ends the program: nothing that a guest does may be one.
    fn handle_event(&mut self, event: u16, ready: EventSet, vrings: &[Vring]) -> io::Result<()>;

    /// The program is about to end, however the front-end left. No other call follows but those of
    /// messages that are under way. The device gives back to the host what would outlast the program.
    fn end(&mut self) {}
}

/// What a device is made of. The main thread makes the builder, so that a program fails early, with the
/// files and privileges that the sandbox takes away later; the worker builds the device.
pub trait DeviceBuilder: Send + 'static {
    /// The device.
    type Device: Device;
    /// Why there is none.
    type Error: std::error::Error + Send + Sync + 'static;

    /// What the device needs of the system from now on. The program gives up all else before
    /// [`DeviceBuilder::build`]; by default all but what serving a front-end takes.
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }

    /// Makes the device, on the worker thread, before the program says that it is ready and before a
    /// front-end is served. A device keeps `context` and watches its file descriptors through it.
    ///
    /// # Errors
    /// Whatever keeps the device from working; the program then ends with the message.
    fn build(self, context: DeviceContext) -> Result<Self::Device, Self::Error>;
}

/// The worker's event loop, whatever device it serves.
pub(crate) trait EventLoop: Send + Sync {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()>;
    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
}

/// What a device may ask of the program around it.
#[derive(Clone)]
pub struct DeviceContext {
    pub(crate) event_loop: Arc<dyn EventLoop>,
    pub(crate) memory: GuestMemory,
    pub(crate) main_thread: MainThreadHandle,
}

impl DeviceContext {
    /// The guest's memory as the front-end shares it, now and after each change. It is empty until a
    /// front-end is connected.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Has `handle_event` called on the worker thread with `token` as its `device_event` while
    /// `fd` is ready for `interest` (level-triggered).
    ///
    /// # Errors
    /// As `epoll_ctl(2)`; `EINVAL` for a token below [`FIRST_TOKEN`].
    pub fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        if token < FIRST_TOKEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.event_loop.watch(fd, interest, token)
    }

    /// Ends what [`DeviceContext::watch`] began. An event already on its way may still arrive. Watching the
    /// same descriptor for something else is: unwatch, watch.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.event_loop.unwatch(fd)
    }

    /// Makes an event that the device sends itself, with `token` as its `device_event`.
    ///
    /// # Errors
    /// As `eventfd(2)` and [`DeviceContext::watch`].
    pub fn wake_event(&self, token: u16) -> io::Result<WakeEvent> {
        let event = WakeEvent::new()?;
        self.watch(event.as_fd(), EventSet::IN, token)?;
        Ok(event)
    }

    /// Says in words what the front-end is served, for `systemctl status`: the detail of a
    /// [`FrontEndStatus`](conventions::FrontEndStatus). Of texts that come fast the newest is told; none waits
    /// for the service manager.
    pub fn status(&self, text: impl Display) {
        self.main_thread.status(text);
    }

    /// Says by `message` that the hardware is gone. Without a front-end the program ends, with a
    /// status that is not 0. With one it goes on until that leaves: a VMM that loses its backend may
    /// end with it (QEMU does while no driver runs the device).
    pub fn lose_hardware(&self, message: impl Display) {
        self.main_thread
            .tell(MainThreadEvent::HardwareLost(message.to_string()));
    }

    /// Ends the program with `message` and a status that is not 0: the device cannot go on.
    pub fn fail(&self, message: impl Display) {
        self.main_thread
            .tell(MainThreadEvent::Failed(message.to_string()));
    }
}

/// Where the proxy leaves the newest display socket for the device. `vhost-user-backend` gives a device
/// only a `GpuBackend`, which blocks on replies and hides its descriptor, so the proxy keeps a duplicate.
#[derive(Clone, Default)]
pub(crate) struct GpuSocketMailbox(Arc<Mutex<Option<UnixStream>>>);

impl GpuSocketMailbox {
    pub(crate) fn put(&self, socket: UnixStream) {
        *lock(&self.0) = Some(socket);
    }

    pub(crate) fn take(&self) -> Option<UnixStream> {
        lock(&self.0).take()
    }
}
