//! What the common part of the programs asks of a device, and what it gives it.

use std::fmt::Display;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost_user_backend::{VhostUserBackendMut, VringMutex};
use vmm_sys_util::epoll::EventSet;

/// The first number a device may use as the token of a file descriptor it watches. Those below are
/// the queues' own and the common part's.
pub const FIRST_TOKEN: u16 = 0x100;

/// A virtio device, as the common part serves it: `vhost-user-backend`'s trait and a beginning.
///
/// Everything a device does runs on one thread, the worker, apart from what the vhost-user messages
/// ask of it (configuration, features, memory, the stop of a ring); those run on the protocol
/// thread, under the same lock. So nothing in here may block: a queue, the watchdog and the
/// protocol wait for it.
pub trait Device: VhostUserBackendMut<Bitmap = (), Vring = VringMutex> + Send + 'static {
    /// Begins, on the worker thread, before the program says that it is ready and before a
    /// front-end is served. A device keeps `host` and watches its file descriptors through it.
    ///
    /// # Errors
    /// Whatever keeps the device from working; the program then ends early, with the message.
    fn start(&mut self, host: Host) -> io::Result<()>;
}

/// The worker's event loop, whatever device it serves.
pub(super) trait EventLoop: Send + Sync {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()>;
    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()>;
}

/// What a device may ask of the program around it.
#[derive(Clone)]
pub struct Host {
    pub(super) event_loop: Arc<dyn EventLoop>,
    pub(super) gpu_socket: GpuSocketSlot,
    pub(super) failure: Failure,
}

impl Host {
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

    /// Ends what [`Host::watch`] began. An event already on its way may still arrive. Watching the same descriptor
    /// for something else is: unwatch, watch.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.event_loop.unwatch(fd)
    }

    /// Says in words what is served, for `systemctl status` (`STATUS=`, sd_notify(3)).
    pub fn status(&self, text: impl Display) {
        super::notify::status(text);
    }

    /// The display socket the front-end sent last with `VHOST_USER_GPU_SET_SOCKET`, once. To be
    /// called from `set_gpu_socket`: the crate's own `GpuBackend` blocks on replies and hides its
    /// descriptor, so the relay keeps a duplicate of it here.
    pub fn take_gpu_socket(&self) -> Option<UnixStream> {
        self.gpu_socket.take()
    }

    /// Ends the program with `message` and a status that is not 0: the device cannot go on.
    pub fn fail(&self, message: impl Display) {
        self.failure.set(message.to_string());
    }
}

/// Where the relay leaves the newest display socket for the device.
#[derive(Clone, Default)]
pub(super) struct GpuSocketSlot(Arc<Mutex<Option<UnixStream>>>);

impl GpuSocketSlot {
    pub(super) fn put(&self, socket: UnixStream) {
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(socket);
    }

    fn take(&self) -> Option<UnixStream> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}

/// The first reason for which the program cannot go on, and the event that tells the main thread.
#[derive(Clone)]
pub(super) struct Failure {
    message: Arc<Mutex<Option<String>>>,
    wake: Arc<UnixStream>,
}

impl Failure {
    /// A failure not yet set, and the end that becomes readable once it is.
    pub(super) fn new() -> io::Result<(Self, UnixStream)> {
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let failure = Self {
            message: Arc::default(),
            wake: Arc::new(wake),
        };
        Ok((failure, woken))
    }

    pub(super) fn set(&self, message: String) {
        let mut slot = self.message.lock().unwrap_or_else(|e| e.into_inner());
        slot.get_or_insert(message);
        // One byte is enough; a full socket has woken the main thread already.
        let _ = io::Write::write(&mut &*self.wake, &[1]);
    }

    pub(super) fn take(&self) -> Option<String> {
        self.message
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .take()
    }
}
