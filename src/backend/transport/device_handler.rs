// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Passes calls of the crate `vhost-user-backend` on to the device, which the worker builds.
//!
//! `vhost-user-backend` ends the worker silently when `handle_event` fails or panics, and the process goes on without
//! serving. [`DeviceHandler`] ends the process instead, with a message. After the first request it gives back the memory that
//! only the start needed.

use std::cell::RefCell;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, OnceLock, PoisonError};

use vhost::vhost_user::GpuBackend;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig};
use vhost_user_backend::{VhostUserBackend, VringEpollHandler};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::display_socket::DisplaySocketMailbox;
use super::succession::Succession;
use super::watchdog::Watchdog;
use crate::backend::continuity::{Ledger, Work};
use crate::backend::device::request_links::RequestLinks;
use crate::backend::device::{Device, DeviceBuilder, DeviceContext, EventLoop, FIRST_TOKEN};
use crate::backend::lock::lock;
use crate::backend::service::main_thread_channel::{BuildError, MainThreadEvent, MainThreadHandle};
use crate::backend::startup_memory;
use crate::backend::virtqueue::{
    GuestMemory, MAX_QUEUE_SIZE, TRANSPORT_FEATURES, Vring, VringObserver,
};

/// The handler's own tokens, between those of virtqueues and devices.
const END: u16 = FIRST_TOKEN - 3;
pub(crate) const BEGIN: u16 = FIRST_TOKEN - 2;
const WATCHDOG: u16 = FIRST_TOKEN - 1;

/// Protocol features of every device; those that make requests have `BACKEND_REQ` too, and those with a shared memory
/// region `SHMEM`.
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
    ledger: Ledger,
    display_socket: DisplaySocketMailbox,
    requests: RequestLinks,
    main_thread: MainThreadHandle,
    begin: EventFd,
    end: EventFd,
    watchdog: Option<Watchdog>,
    succession: Succession,
    /// The first event of a virtqueue was handled: the start is over.
    has_served: Once,
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

/// The device, for one event or message. Afterwards what it put into its ledger is valid, and this is the only place that
/// sees to it, apart from requests that are done ([`QueuePass::add_used`]).
///
/// [`QueuePass::add_used`]: crate::backend::QueuePass::add_used
struct LockedDevice<'a, D> {
    device: MutexGuard<'a, D>,
    ledger: &'a Ledger,
}

impl<D> Deref for LockedDevice<'_, D> {
    type Target = D;

    fn deref(&self) -> &D {
        &self.device
    }
}

impl<D> DerefMut for LockedDevice<'_, D> {
    fn deref_mut(&mut self) -> &mut D {
        &mut self.device
    }
}

impl<D> Drop for LockedDevice<'_, D> {
    fn drop(&mut self) {
        // After a panic the device is in no state to go on from.
        if !std::thread::panicking() {
            self.ledger.commit();
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
        requests: RequestLinks,
        main_thread: MainThreadHandle,
        succession: Succession,
    ) -> io::Result<Self> {
        let ledger = succession.device_ledger();
        Ok(Self {
            parts: Mutex::new(None),
            device: BuiltDevice::default(),
            ledger,
            display_socket,
            requests,
            main_thread,
            begin: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            end: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
            watchdog: Watchdog::of_unit()?,
            succession,
            has_served: Once::new(),
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

    fn device(&self) -> LockedDevice<'_, B::Device> {
        LockedDevice {
            device: self.device.get(),
            ledger: &self.ledger,
        }
    }

    /// Makes valid what was put into the device's ledger, while the device does nothing.
    pub(super) fn commit(&self) {
        drop(self.device());
    }

    /// Builds the device.
    fn begin(&self, vrings: &[Vring]) {
        let _ = self.begin.read();
        WORKER_EXIT_GUARD.set(Some(WorkerExitGuard(self.main_thread.clone())));
        let Some(parts) = lock(&self.parts).take() else {
            return;
        };
        let mut kept = Ok(());
        for (index, vring) in (0..).zip(vrings) {
            vring.observe(index, parts.observer.clone());
            if B::Device::USES_IN_ORDER {
                vring.start_at_used();
            }
            kept = kept.and(vring.keep(index, self.succession.positions()));
        }
        let built = match kept {
            Ok(()) => self.build(parts),
            Err(e) => Err(e.into()),
        };
        self.main_thread.tell(MainThreadEvent::DeviceBuilt(built));
    }

    fn build(&self, parts: Parts<B>) -> Result<(), BuildError> {
        self.device.set(parts.builder.build(parts.context)?);
        self.commit();
        if let Some(watchdog) = &self.watchdog {
            parts
                .event_loop
                .watch(watchdog.timer(), EventSet::IN, WATCHDOG)?;
        }
        Ok(())
    }

    fn handle_device_event(
        &self,
        token: u16,
        events: EventSet,
        vrings: &[Vring],
    ) -> io::Result<()> {
        let (continuity, work) = (self.succession.continuity(), Work::Event(token));
        let mut device = self.device();
        continuity.begin_work(work);
        let handled = device.handle_event(token, events, vrings);
        // With what it put into its ledger.
        drop(device);
        continuity.work_done(work);
        handled
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
        let mut features = PROTOCOL_FEATURES;
        // The proxy takes the channel.
        let makes_requests = self.requests.are_offered();
        features.set(VhostUserProtocolFeatures::BACKEND_REQ, makes_requests);
        let has_region = self.requests.shared_memory.region().is_some();
        features.set(VhostUserProtocolFeatures::SHMEM, has_region);
        features
    }

    /// The sizes of the regions by their number; 0 is no region.
    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let region = self.requests.shared_memory.region();
        let mut sizes = vec![0; usize::from(u8::MAX) + 1];
        if let Some(region) = region {
            if let Some(size) = sizes.get_mut(usize::from(region.id())) {
                *size = region.len();
            }
        }
        let count = u32::from(region.is_some());
        Ok(VhostUserShMemConfig::new(count, &sizes))
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
                if let Err(e) = self.handle_device_event(device_event, evset, vrings) {
                    let message = format!("the device failed: {e}");
                    self.main_thread.tell(MainThreadEvent::Failed(message));
                }
                if usize::from(device_event) < B::Device::QUEUES {
                    self.has_served.call_once(startup_memory::give_back);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
