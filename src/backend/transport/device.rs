//! What the common part of the programs asks of a device, and what it gives it.

use std::fmt::Display;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost_user_backend::VhostUserBackendMut;
use vmm_sys_util::epoll::EventSet;

use crate::backend::lock::lock;
use crate::backend::sandbox::SandboxPolicy;
use crate::backend::service::main_thread::{MainThreadEvent, MainThreadHandle};
use crate::backend::virtqueue::Vring;

/// The first number a device may use as the token of a file descriptor it watches. Those below are
/// the queues' own and the common part's.
pub const FIRST_TOKEN: u16 = 0x100;

/// A virtio device, as the common part serves it: `vhost-user-backend`'s trait and a beginning.
///
/// Everything a device does runs on one thread, the worker, apart from what the vhost-user messages
/// ask of it (configuration, features, memory, the stop of a ring); those run on the protocol
/// thread, under the same lock. So nothing in here may block: a queue, the watchdog and the
/// protocol wait for it.
pub trait Device: VhostUserBackendMut<Bitmap = (), Vring = Vring> + Send + 'static {
    /// Begins, on the worker thread, before the program says that it is ready and before a
    /// front-end is served. A device keeps `host` and watches its file descriptors through it.
    ///
    /// # Errors
    /// Whatever keeps the device from working; the program then ends early, with the message.
    fn start(&mut self, host: DeviceContext) -> io::Result<()>;

    /// Ends, on the worker thread: the program is about to end, however the front-end left, and no
    /// other call follows but those of messages that are under way. What would outlast the program
    /// is given back to the host.
    fn end(&mut self) {}

    /// What it needs of the system from now on, when it is open and did not begin yet. The program
    /// gives up all else before it serves.
    fn sandbox_policy(&self) -> SandboxPolicy {
        SandboxPolicy::default()
    }
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
    pub(crate) gpu_socket: GpuSocketMailbox,
    pub(crate) main_thread: MainThreadHandle,
}

impl DeviceContext {
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

    /// Says in words what the front-end is served, for `systemctl status`: the detail of a
    /// [`FrontEndStatus`](conventions::FrontEndStatus). Of texts that come fast the newest is told; none waits
    /// for the service manager.
    pub fn status(&self, text: impl Display) {
        self.main_thread.status(text);
    }

    /// The display socket the front-end sent last with `VHOST_USER_GPU_SET_SOCKET`, once. To be
    /// called from `set_gpu_socket`: the crate's own `GpuBackend` blocks on replies and hides its
    /// descriptor, so the proxy keeps a duplicate of it here.
    pub fn take_gpu_socket(&self) -> Option<UnixStream> {
        self.gpu_socket.take()
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

/// Where the proxy leaves the newest display socket for the device.
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
