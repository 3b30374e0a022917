//! The worker: the thread that builds the device and handles its events.
//!
//! `vhost-user-backend` ends the worker silently when `handle_event` fails or panics, and the process goes on without
//! serving. [`DeviceHandler`] ends the process instead, with a message.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vhost::vhost_user::GpuBackend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringEpollHandler};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::{Device, DeviceBuilder, DeviceContext, EventLoop, FIRST_TOKEN};
use super::display_socket::DisplaySocketMailbox;
use crate::backend::lock::lock;
use crate::backend::service::main_thread::{BuildError, MainThreadEvent, MainThreadHandle};
use crate::backend::service::notify;
use crate::backend::virtqueue::{
    GuestMemory, MAX_QUEUE_SIZE, TRANSPORT_FEATURES, Vring, VringObserver,
};

/// The handler's own tokens, between those of virtqueues and devices.
const END: u16 = FIRST_TOKEN - 3;
pub(crate) const BEGIN: u16 = FIRST_TOKEN - 2;
const WATCHDOG: u16 = FIRST_TOKEN - 1;

/// Never dropped, which would wait for the worker: its threads end with the process, and must not delay that.
pub(crate) type Daemon<B> = ManuallyDrop<VhostUserDaemon<Arc<DeviceHandler<B>>>>;

/// Protocol features of every device.
const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::CONFIG
    .union(VhostUserProtocolFeatures::MQ)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Passes the daemon's calls on to the device, and handles the program's own events on the worker.
pub(crate) struct DeviceHandler<B: DeviceBuilder> {
    /// What the worker builds the device of, until then.
    parts: Mutex<Option<Parts<B>>>,
    device: BuiltDevice<B::Device>,
    display_socket: DisplaySocketMailbox,
    main_thread: MainThreadHandle,
    begin: EventFd,
    end: EventFd,
    watchdog: Option<Watchdog>,
}

struct Parts<B> {
    builder: B,
    context: DeviceContext,
    event_loop: Arc<dyn EventLoop>,
    observer: Arc<dyn VringObserver>,
}

/// Asks the worker to call [`Device::end`].
pub(crate) struct DeviceEnd(EventFd);

impl DeviceEnd {
    /// [`MainThreadEvent::DeviceEnded`] follows.
    pub(crate) fn request(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Makes the daemon with its worker, which builds the device: [`MainThreadEvent::DeviceBuilt`] follows.
pub(crate) fn spawn<B: DeviceBuilder>(
    name: &str,
    builder: B,
    display_socket: DisplaySocketMailbox,
    main_thread: MainThreadHandle,
) -> io::Result<(Daemon<B>, DeviceEnd)> {
    let handler = Arc::new(DeviceHandler {
        parts: Mutex::new(None),
        device: BuiltDevice::default(),
        display_socket,
        main_thread: main_thread.clone(),
        begin: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        end: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        watchdog: notify::watchdog_interval().map(Watchdog::new).transpose()?,
    });
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new(name.to_owned(), handler.clone(), memory.clone())
        .map(ManuallyDrop::new)
        .map_err(|e| io::Error::other(e.to_string()))?;
    let event_loop = daemon
        .get_epoll_handlers()
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("the vhost-user daemon has no worker"))?;
    // Weak, as the event loop has the handler, which has the device.
    let weak_loop = Arc::downgrade(&event_loop);
    let device_loop: Arc<dyn EventLoop> = Arc::new(weak_loop.clone());
    *lock(&handler.parts) = Some(Parts {
        builder,
        context: DeviceContext::new(device_loop.clone(), memory, main_thread),
        event_loop: device_loop,
        observer: Arc::new(Observer {
            handler: Arc::downgrade(&handler),
            event_loop: weak_loop,
        }),
    });
    event_loop.register_listener(handler.begin.as_raw_fd(), EventSet::IN, BEGIN.into())?;
    event_loop.register_listener(handler.end.as_raw_fd(), EventSet::IN, END.into())?;
    handler.begin.write(1)?;
    let end = DeviceEnd(handler.end.try_clone()?);
    Ok((daemon, end))
}

/// The device, once it is built, for worker and protocol thread in turn.
struct BuiltDevice<D> {
    device: OnceLock<Mutex<D>>,
    /// Held while waiting for the device, which makes its lock fair; see [`BuiltDevice::get`].
    fairness: Mutex<()>,
    built: Condvar,
}

impl<D> Default for BuiltDevice<D> {
    fn default() -> Self {
        Self {
            device: OnceLock::new(),
            fairness: Mutex::new(()),
            built: Condvar::new(),
        }
    }
}

impl<D> BuiltDevice<D> {
    fn set(&self, device: D) {
        let _fairness = lock(&self.fairness);
        // Only a second call could fail, and there is none.
        let _ = self.device.set(Mutex::new(device));
        self.built.notify_all();
    }

    #[cfg(feature = "fuzzing")]
    fn is_built(&self) -> bool {
        self.device.get().is_some()
    }

    /// Locks the device. The second lock makes this fair: with one, a worker that a guest keeps busy would win
    /// most of the time, and the front-end, with its whole machine, would wait for the protocol thread.
    ///
    /// The protocol thread starts after the device is built. An earlier call would wait for that.
    fn get(&self) -> MutexGuard<'_, D> {
        let mut fairness = lock(&self.fairness);
        loop {
            match self.device.get() {
                Some(device) => return lock(device),
                None => {
                    let waited = self.built.wait(fairness);
                    fairness = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

/// A timer for `WATCHDOG=1`, if the unit has a watchdog.
struct Watchdog {
    timer: OwnedFd,
    interval: Duration,
}

impl Watchdog {
    fn new(interval: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let watchdog = Self { timer, interval };
        watchdog.due_in(interval)?;
        Ok(watchdog)
    }

    /// Sets the timer: once after `first`, then at each interval.
    fn due_in(&self, first: Duration) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: Timespec::try_from(self.interval).map_err(io::Error::other)?,
            it_value: Timespec::try_from(first).map_err(io::Error::other)?,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}

thread_local! {
    /// Reports the end of the worker, whatever its reason.
    static WORKER_EXIT_GUARD: RefCell<Option<WorkerExitGuard>> = const { RefCell::new(None) };
}

struct WorkerExitGuard(MainThreadHandle);

impl Drop for WorkerExitGuard {
    fn drop(&mut self) {
        let message = "the thread that serves the queues ended; the program cannot go on";
        self.0.tell(MainThreadEvent::Failed(message.to_owned()));
    }
}

impl<B: DeviceBuilder> DeviceHandler<B> {
    fn device(&self) -> MutexGuard<'_, B::Device> {
        self.device.get()
    }

    /// Builds the device.
    fn begin(&self, vrings: &[Vring]) {
        let _ = self.begin.read();
        WORKER_EXIT_GUARD.set(Some(WorkerExitGuard(self.main_thread.clone())));
        let Some(parts) = lock(&self.parts).take() else {
            return;
        };
        for (index, vring) in (0..).zip(vrings) {
            vring.observe(index, parts.observer.clone());
        }
        let built = self.build(parts);
        self.main_thread.tell(MainThreadEvent::DeviceBuilt(built));
    }

    fn build(&self, parts: Parts<B>) -> Result<(), BuildError> {
        self.device.set(parts.builder.build(parts.context)?);
        if let Some(watchdog) = &self.watchdog {
            parts
                .event_loop
                .watch(watchdog.timer.as_fd(), EventSet::IN, WATCHDOG)?;
        }
        Ok(())
    }

    fn end(&self) {
        let _ = self.end.read();
        self.device().end();
        self.main_thread.tell(MainThreadEvent::DeviceEnded);
    }

    fn feed_watchdog(&self) -> io::Result<()> {
        let Some(watchdog) = &self.watchdog else {
            return Ok(());
        };
        let mut expirations = [0; 8];
        if rustix::io::read(&watchdog.timer, &mut expirations).is_ok() {
            // Also notices a protocol thread that hangs while it holds the device.
            drop(self.device());
            if !notify::watchdog() {
                watchdog.due_in(notify::watchdog_retry(watchdog.interval))?;
            }
        }
        Ok(())
    }
}

impl<B: DeviceBuilder> EventLoop for Weak<VringEpollHandler<Arc<DeviceHandler<B>>>> {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        event_loop.register_listener(fd.as_raw_fd(), interest, token.into())
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        // epoll finds the entry by its descriptor.
        event_loop.unregister_listener(fd.as_raw_fd(), EventSet::empty(), FIRST_TOKEN.into())
    }
}

/// Passes changes of the virtqueues on to the device and the event loop.
struct Observer<B: DeviceBuilder> {
    handler: Weak<DeviceHandler<B>>,
    event_loop: Weak<VringEpollHandler<Arc<DeviceHandler<B>>>>,
}

impl<B: DeviceBuilder> VringObserver for Observer<B> {
    /// The same as a stop for the device: some front-ends (libkrun) reset a device without `GET_VRING_BASE`.
    fn disabled(&self, index: u32) {
        let Some(handler) = self.handler.upgrade() else {
            return;
        };
        if let Err(e) = handler.stop_vring(index) {
            let message = format!("the device cannot stop virtqueue {index}: {e}");
            handler.main_thread.tell(MainThreadEvent::Failed(message));
        }
    }

    fn forget_kick(&self, kick: RawFd) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            // Fails if the virtqueue is not enabled, and so not watched.
            let _ = event_loop.unregister_listener(kick, EventSet::empty(), FIRST_TOKEN.into());
        }
    }
}

impl<B: DeviceBuilder> VhostUserBackend for DeviceHandler<B> {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        B::Device::QUEUES
    }

    fn max_queue_size(&self) -> usize {
        MAX_QUEUE_SIZE
    }

    fn features(&self) -> u64 {
        TRANSPORT_FEATURES | self.device().features()
    }

    fn acked_features(&self, features: u64) {
        self.device().acked_features(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        PROTOCOL_FEATURES
    }

    fn reset_device(&self) {
        self.device().reset_device();
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Each virtqueue has it.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.device().get_config(offset, size)
    }

    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        self.device().set_config(offset, buf)
    }

    /// `memory` is what the device has in its context.
    fn update_memory(&self, _memory: GuestMemory) -> io::Result<()> {
        self.device().memory_changed();
        Ok(())
    }

    fn set_gpu_socket(&self, _blocking: GpuBackend) -> io::Result<()> {
        let mut device = self.device();
        // None if the proxy has seen the next message already: the first call got the newer socket. An
        // error would end the connection.
        if let Some(socket) = self.display_socket.take() {
            device.set_gpu_socket(socket);
        }
        Ok(())
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        self.device().stop_vring(queue_index)
    }

    fn handle_event(
        &self,
        device_event: u16,
        evset: EventSet,
        vrings: &[Vring],
        _thread_id: usize,
    ) -> io::Result<()> {
        match device_event {
            // The second BEGIN ends a worker after a fuzzed connection.
            #[cfg(feature = "fuzzing")]
            BEGIN if self.device.is_built() => return Err(io::ErrorKind::Interrupted.into()),
            BEGIN => self.begin(vrings),
            END => self.end(),
            WATCHDOG => {
                if let Err(e) = self.feed_watchdog() {
                    let message = format!("the watchdog's timer failed: {e}");
                    self.main_thread.tell(MainThreadEvent::Failed(message));
                }
            }
            _ => {
                let handled = self.device().handle_event(device_event, evset, vrings);
                if let Err(e) = handled {
                    let message = format!("the device failed: {e}");
                    self.main_thread.tell(MainThreadEvent::Failed(message));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
