//! Passes calls of the crate `vhost-user-backend` on to the device, which the worker builds.
//!
//! `vhost-user-backend` ends the worker silently when `handle_event` fails or panics, and the process goes on without
//! serving. [`DeviceHandler`] ends the process instead, with a message.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use vhost::vhost_user::GpuBackend;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackend, VringEpollHandler};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::display_socket::DisplaySocketMailbox;
use super::watchdog::Watchdog;
use crate::backend::device::config_change::ConfigChangeLink;
use crate::backend::device::{Device, DeviceBuilder, DeviceContext, EventLoop, FIRST_TOKEN};
use crate::backend::lock::lock;
use crate::backend::service::main_thread_channel::{BuildError, MainThreadEvent, MainThreadHandle};
use crate::backend::virtqueue::{
    GuestMemory, MAX_QUEUE_SIZE, TRANSPORT_FEATURES, Vring, VringObserver,
};

/// The handler's own tokens, between those of virtqueues and devices.
const END: u16 = FIRST_TOKEN - 3;
pub(crate) const BEGIN: u16 = FIRST_TOKEN - 2;
const WATCHDOG: u16 = FIRST_TOKEN - 1;

/// Protocol features of every device; those with configuration changes have `BACKEND_REQ` too.
const PROTOCOL_FEATURES: VhostUserProtocolFeatures = VhostUserProtocolFeatures::CONFIG
    .union(VhostUserProtocolFeatures::MQ)
    .union(VhostUserProtocolFeatures::REPLY_ACK)
    .union(VhostUserProtocolFeatures::RESET_DEVICE)
    .union(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS);

/// Passes the daemon's calls on to the device, and handles the program's own events on the worker.
pub(crate) struct DeviceHandler<B: DeviceBuilder> {
    /// The builder and its inputs; taken when the worker builds the device.
    parts: Mutex<Option<Parts<B>>>,
    device: BuiltDevice<B::Device>,
    display_socket: DisplaySocketMailbox,
    config_changes: ConfigChangeLink,
    main_thread: MainThreadHandle,
    begin: EventFd,
    end: EventFd,
    watchdog: Option<Watchdog>,
}

/// The builder and its inputs.
pub(super) struct Parts<B> {
    pub(super) builder: B,
    pub(super) context: DeviceContext,
    pub(super) event_loop: Arc<dyn EventLoop>,
    pub(super) observer: Arc<dyn VringObserver>,
}

/// Asks the worker to call [`Device::end`].
pub(crate) struct DeviceEnd(EventFd);

impl DeviceEnd {
    /// [`MainThreadEvent::DeviceEnded`] follows.
    pub(crate) fn request(&self) -> io::Result<()> {
        self.0.write(1)
    }
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
    pub(super) fn new(
        display_socket: DisplaySocketMailbox,
        config_changes: ConfigChangeLink,
        main_thread: MainThreadHandle,
    ) -> io::Result<Self> {
        Ok(Self {
            parts: Mutex::new(None),
            device: BuiltDevice::default(),
            display_socket,
            config_changes,
            main_thread,
            begin: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            end: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            watchdog: Watchdog::of_unit()?,
        })
    }

    /// Makes the worker, which runs `event_loop`, build the device of `parts`.
    pub(super) fn start(
        &self,
        parts: Parts<B>,
        event_loop: &VringEpollHandler<Arc<Self>>,
    ) -> io::Result<DeviceEnd> {
        *lock(&self.parts) = Some(parts);
        event_loop.register_listener(self.begin.as_raw_fd(), EventSet::IN, BEGIN.into())?;
        event_loop.register_listener(self.end.as_raw_fd(), EventSet::IN, END.into())?;
        self.begin.write(1)?;
        Ok(DeviceEnd(self.end.try_clone()?))
    }

    /// Stops the virtqueue `index` of the device, because the front-end disabled it.
    pub(super) fn vring_disabled(&self, index: u32) {
        if let Err(e) = self.stop_vring(index) {
            let message = format!("the device cannot stop virtqueue {index}: {e}");
            self.main_thread.tell(MainThreadEvent::Failed(message));
        }
    }

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
                .watch(watchdog.timer(), EventSet::IN, WATCHDOG)?;
        }
        Ok(())
    }

    fn end(&self) {
        let _ = self.end.read();
        self.device().end();
        self.main_thread.tell(MainThreadEvent::DeviceEnded);
    }

    fn feed_watchdog(&self) -> io::Result<()> {
        match &self.watchdog {
            // Also notices a protocol thread that hangs while it holds the device.
            Some(watchdog) => watchdog.feed(|| drop(self.device())),
            None => Ok(()),
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
        match self.config_changes.is_offered() {
            // The proxy takes the channel.
            true => PROTOCOL_FEATURES | VhostUserProtocolFeatures::BACKEND_REQ,
            false => PROTOCOL_FEATURES,
        }
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
        match self.display_socket.take() {
            Some(socket) => device.set_gpu_socket(socket),
            // The proxy has seen the next message already: the first call got the newer socket. An error would
            // end the connection.
            None => Ok(()),
        }
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
