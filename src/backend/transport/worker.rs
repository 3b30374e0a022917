//! The worker: the one thread on which a device lives, kept honest.
//!
//! `vhost-user-backend` ends a worker silently when a device's `handle_event` fails or panics, and
//! the process lives on deaf. Here that ends the process, with a message.

use std::cell::RefCell;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost::vhost_user::{Backend, GpuBackend};
use vhost_user_backend::{VhostUserBackend, VhostUserDaemon, VringEpollHandler};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::device::{Device, DeviceContext, EventLoop, FIRST_TOKEN, GpuSocketMailbox};
use crate::backend::lock::lock;
use crate::backend::service::main_thread::{MainThreadEvent, MainThreadHandle};
use crate::backend::service::notify;
use crate::backend::virtqueue::{GuestMemory, Vring, VringObserver};

/// Tokens of the common part, between the queues' numbers and the devices' own.
const END: u16 = FIRST_TOKEN - 3;
pub(crate) const BEGIN: u16 = FIRST_TOKEN - 2;
const WATCHDOG: u16 = FIRST_TOKEN - 1;

/// Never dropped: that would wait for the worker. Its threads end with the process, and nothing they
/// do is allowed to hold that up.
pub(crate) type Daemon<D> = ManuallyDrop<VhostUserDaemon<Arc<DeviceHandler<D>>>>;

/// A device, as the vhost-user daemon sees it.
pub(crate) struct DeviceHandler<D> {
    device: Mutex<D>,
    /// Held by who is next to have the device, see [`DeviceHandler::device`].
    turn: Mutex<()>,
    main_thread: MainThreadHandle,
    begin: EventFd,
    end: EventFd,
    watchdog: Option<Watchdog>,
    host: Mutex<Option<DeviceContext>>,
    observer: Mutex<Option<Arc<dyn VringObserver>>>,
}

/// Has the worker end the device.
pub(crate) struct DeviceEnd(EventFd);

impl DeviceEnd {
    /// Asks for it; [`MainThreadEvent::Ended`] tells that it is done.
    pub(crate) fn request(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Makes the daemon and its worker, and has the device begin there. The main thread hears of it.
pub(crate) fn spawn<D: Device>(
    name: &str,
    device: D,
    gpu_socket: GpuSocketMailbox,
    main_thread: MainThreadHandle,
) -> io::Result<(Daemon<D>, DeviceEnd)> {
    let served = Arc::new(DeviceHandler {
        device: Mutex::new(device),
        turn: Mutex::new(()),
        main_thread: main_thread.clone(),
        begin: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        end: EventFd::new(EFD_CLOEXEC | EFD_NONBLOCK)?,
        watchdog: notify::watchdog_interval().map(Watchdog::new).transpose()?,
        host: Mutex::new(None),
        observer: Mutex::new(None),
    });
    let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
    let daemon = VhostUserDaemon::new(name.to_owned(), served.clone(), memory)
        .map(ManuallyDrop::new)
        .map_err(|e| io::Error::other(e.to_string()))?;
    let event_loop = daemon
        .get_epoll_handlers()
        .into_iter()
        .next()
        .ok_or_else(|| io::Error::other("the vhost-user daemon has no worker"))?;
    // The device is a part of it.
    let weak_loop = Arc::downgrade(&event_loop);
    *lock(&served.observer) = Some(Arc::new(Observer {
        served: Arc::downgrade(&served),
        event_loop: weak_loop.clone(),
    }));
    let host = DeviceContext {
        event_loop: Arc::new(weak_loop),
        gpu_socket,
        main_thread,
    };
    *lock(&served.host) = Some(host);
    if let Some(watchdog) = &served.watchdog {
        let timer = watchdog.timer.as_raw_fd();
        event_loop.register_listener(timer, EventSet::IN, WATCHDOG.into())?;
    }
    event_loop.register_listener(served.begin.as_raw_fd(), EventSet::IN, BEGIN.into())?;
    event_loop.register_listener(served.end.as_raw_fd(), EventSet::IN, END.into())?;
    served.begin.write(1)?;
    let end = DeviceEnd(served.end.try_clone()?);
    Ok((daemon, end))
}

/// A timer for `WATCHDOG=1`, where the unit asks for it.
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

    /// Is due after `first`, and from then on every interval.
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
    /// Tells the main thread when the worker ends, however it ends.
    static WORKER_EXIT_GUARD: RefCell<Option<WorkerExitGuard>> = const { RefCell::new(None) };
}

struct WorkerExitGuard(MainThreadHandle);

impl Drop for WorkerExitGuard {
    fn drop(&mut self) {
        let message = "the thread that serves the queues ended; the program cannot go on";
        self.0.tell(MainThreadEvent::Failed(message.to_owned()));
    }
}

impl<D: Device> DeviceHandler<D> {
    /// The device, for one of the two threads in turn. A mutex alone goes to whoever is there when
    /// it is free, which is mostly a worker that a guest keeps busy: how long the front-end, with
    /// its whole machine, waits for an answer of the protocol thread would be a matter of chance.
    fn device(&self) -> MutexGuard<'_, D> {
        let _turn = lock(&self.turn);
        lock(&self.device)
    }

    fn begin(&self, vrings: &[Vring]) {
        let _ = self.begin.read();
        WORKER_EXIT_GUARD.set(Some(WorkerExitGuard(self.main_thread.clone())));
        if let Some(observer) = lock(&self.observer).take() {
            for (index, vring) in (0..).zip(vrings) {
                vring.observe(index, observer.clone());
            }
        }
        if let Some(host) = lock(&self.host).take() {
            let started = self.device().start(host);
            self.main_thread.tell(MainThreadEvent::Started(started));
        }
    }

    fn end(&self) {
        let _ = self.end.read();
        self.device().end();
        self.main_thread.tell(MainThreadEvent::Ended);
    }

    fn feed_watchdog(&self) -> io::Result<()> {
        let Some(watchdog) = &self.watchdog else {
            return Ok(());
        };
        let mut expirations = [0; 8];
        if rustix::io::read(&watchdog.timer, &mut expirations).is_ok() {
            // A protocol thread that hangs with the device in its hands is a hang too.
            drop(self.device());
            if !notify::watchdog() {
                watchdog.due_in(notify::watchdog_retry(watchdog.interval))?;
            }
        }
        Ok(())
    }
}

impl<D: Device> EventLoop for Weak<VringEpollHandler<Arc<DeviceHandler<D>>>> {
    fn watch(&self, fd: BorrowedFd<'_>, interest: EventSet, token: u16) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        event_loop.register_listener(fd.as_raw_fd(), interest, token.into())
    }

    fn unwatch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        let event_loop = self.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        // epoll finds it by the descriptor alone.
        event_loop.unregister_listener(fd.as_raw_fd(), EventSet::empty(), FIRST_TOKEN.into())
    }
}

/// Tells the device what the front-end does to its virtqueues.
struct Observer<D: Device> {
    served: Weak<DeviceHandler<D>>,
    event_loop: Weak<VringEpollHandler<Arc<DeviceHandler<D>>>>,
}

impl<D: Device> VringObserver for Observer<D> {
    /// To a device it is the same as the end of the virtqueue: some front-ends (libkrun) reset a
    /// device without a `GET_VRING_BASE`.
    fn disabled(&self, index: u32) {
        let Some(served) = self.served.upgrade() else {
            return;
        };
        if let Err(e) = served.stop_vring(index) {
            let message = format!("the device cannot stop virtqueue {index}: {e}");
            served.main_thread.tell(MainThreadEvent::Failed(message));
        }
    }

    fn forget_kick(&self, kick: RawFd) {
        if let Some(event_loop) = self.event_loop.upgrade() {
            // One that is not enabled is not waited for.
            let _ = event_loop.unregister_listener(kick, EventSet::empty(), FIRST_TOKEN.into());
        }
    }
}

impl<D: Device> VhostUserBackend for DeviceHandler<D> {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.device().num_queues()
    }

    fn max_queue_size(&self) -> usize {
        self.device().max_queue_size()
    }

    fn features(&self) -> u64 {
        self.device().features()
    }

    fn acked_features(&self, features: u64) {
        self.device().acked_features(features);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        self.device().protocol_features()
    }

    fn reset_device(&self) {
        self.device().reset_device();
    }

    fn set_event_idx(&self, enabled: bool) {
        self.device().set_event_idx(enabled);
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        self.device().get_config(offset, size)
    }

    fn set_config(&self, offset: u32, buf: &[u8]) -> io::Result<()> {
        self.device().set_config(offset, buf)
    }

    fn update_memory(&self, mem: GuestMemory) -> io::Result<()> {
        self.device().update_memory(mem)
    }

    fn set_backend_req_fd(&self, backend: Backend) {
        self.device().set_backend_req_fd(backend);
    }

    fn set_gpu_socket(&self, gpu_backend: GpuBackend) -> io::Result<()> {
        self.device().set_gpu_socket(gpu_backend)
    }

    fn stop_vring(&self, queue_index: u32) -> io::Result<()> {
        self.device().stop_vring(queue_index)
    }

    fn handle_event(
        &self,
        device_event: u16,
        evset: EventSet,
        vrings: &[Vring],
        thread_id: usize,
    ) -> io::Result<()> {
        match device_event {
            // Begun already: this is how a fuzzed worker is told to end.
            #[cfg(feature = "fuzzing")]
            BEGIN if lock(&self.host).is_none() => return Err(io::ErrorKind::Interrupted.into()),
            BEGIN => self.begin(vrings),
            END => self.end(),
            WATCHDOG => {
                if let Err(e) = self.feed_watchdog() {
                    let message = format!("the watchdog's timer failed: {e}");
                    self.main_thread.tell(MainThreadEvent::Failed(message));
                }
            }
            _ => {
                let handled = self
                    .device()
                    .handle_event(device_event, evset, vrings, thread_id);
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
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    use vhost_user_backend::VhostUserBackendMut;

    use super::*;

    /// Counts its events, and takes its time for each.
    struct Busy(Arc<AtomicU32>);

    impl VhostUserBackendMut for Busy {
        type Bitmap = ();
        type Vring = Vring;

        fn num_queues(&self) -> usize {
            1
        }

        fn max_queue_size(&self) -> usize {
            1
        }

        fn features(&self) -> u64 {
            0
        }

        fn protocol_features(&self) -> VhostUserProtocolFeatures {
            VhostUserProtocolFeatures::empty()
        }

        fn set_event_idx(&mut self, _enabled: bool) {}

        fn update_memory(&mut self, _memory: GuestMemory) -> io::Result<()> {
            Ok(())
        }

        fn handle_event(
            &mut self,
            _event: u16,
            _events: EventSet,
            _vrings: &[Vring],
            _thread: usize,
        ) -> io::Result<()> {
            thread::sleep(Duration::from_millis(1));
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    impl Device for Busy {
        fn start(&mut self, _host: DeviceContext) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_busy_worker_does_not_keep_the_device_from_the_protocol() {
        const QUESTIONS: u32 = 50;
        let events = Arc::new(AtomicU32::new(0));
        let (main_thread, _receiver) = MainThreadHandle::new().unwrap();
        let served = DeviceHandler {
            device: Mutex::new(Busy(events.clone())),
            turn: Mutex::new(()),
            main_thread,
            begin: EventFd::new(EFD_CLOEXEC).unwrap(),
            end: EventFd::new(EFD_CLOEXEC).unwrap(),
            watchdog: None,
            host: Mutex::new(None),
            observer: Mutex::new(None),
        };
        let over = AtomicBool::new(false);
        let meanwhile = thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    served.handle_event(0, EventSet::IN, &[], 0).unwrap();
                }
            });
            let mut meanwhile = 0;
            for _ in 0..QUESTIONS {
                // The worker has taken up the device again.
                thread::sleep(Duration::from_millis(2));
                let before = events.load(Ordering::Relaxed);
                served.features();
                meanwhile += events.load(Ordering::Relaxed) - before;
            }
            over.store(true, Ordering::Relaxed);
            meanwhile
        });
        // The end of one event for each question, and room for a machine that is busy otherwise.
        assert!(meanwhile < 2 * QUESTIONS, "{meanwhile} events");
    }
}
