use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

/// Counts its events, and takes its time for each.
struct Busy(Arc<AtomicU32>);

impl Device for Busy {
    const QUEUES: usize = 1;

    fn set_gpu_socket(&mut self, _socket: UnixStream) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn handle_event(&mut self, _event: u16, _ready: EventSet, _vrings: &[Vring]) -> io::Result<()> {
        thread::sleep(Duration::from_millis(1));
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl DeviceBuilder for Busy {
    type Device = Self;
    type Error = io::Error;

    fn build(self, _context: DeviceContext) -> io::Result<Self> {
        Ok(self)
    }
}

fn handler(events: &Arc<AtomicU32>) -> DeviceHandler<Busy> {
    let (main_thread, _receiver) = MainThreadHandle::new().unwrap();
    let handler = DeviceHandler {
        parts: Mutex::new(None),
        device: BuiltDevice::default(),
        display_socket: DisplaySocketMailbox::default(),
        config_changes: ConfigChangeLink::default(),
        main_thread,
        begin: EventFd::new(EFD_CLOEXEC).unwrap(),
        end: EventFd::new(EFD_CLOEXEC).unwrap(),
        watchdog: None,
    };
    handler.device.set(Busy(events.clone()));
    handler
}

#[test]
fn newest_display_socket_reaches_the_device_once() {
    let taken = Arc::new(AtomicU32::new(0));
    let handler = handler(&taken);
    let (_peer, socket) = UnixStream::pair().unwrap();
    let set = || {
        let blocking = GpuBackend::from_stream(socket.try_clone().unwrap());
        handler.set_gpu_socket(blocking).unwrap();
        taken.load(Ordering::Relaxed)
    };
    handler.display_socket.put(socket.try_clone().unwrap());
    assert_eq!(set(), 1);
    // Two messages so close to each other that the first was given the socket of the second.
    assert_eq!(set(), 1);
}

#[test]
fn caller_waits_until_the_device_is_built() {
    let built = BuiltDevice::default();
    thread::scope(|scope| {
        let early = scope.spawn(|| *built.get());
        thread::sleep(Duration::from_millis(20));
        assert!(!early.is_finished());
        built.set(7);
        assert_eq!(early.join().unwrap(), 7);
    });
}

#[test]
fn busy_worker_does_not_starve_the_protocol_thread() {
    const QUESTIONS: u32 = 50;
    let events = Arc::new(AtomicU32::new(0));
    let served = handler(&events);
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
