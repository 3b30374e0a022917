// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;
use crate::backend::DisplaySocket;
use crate::backend::continuity::RecordKey;
use crate::backend::testing::kept_state::KeptState;

/// Counts its events, and takes its time for each.
struct Busy(Arc<AtomicU32>);

impl Device for Busy {
    const QUEUES: usize = 1;

    fn set_gpu_socket(&mut self, _socket: DisplaySocket) -> io::Result<()> {
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
    handler_of(Busy(events.clone()), Succession::default())
}

fn handler_of<B: DeviceBuilder<Device = B> + Device>(
    device: B,
    succession: Succession,
) -> DeviceHandler<B> {
    let (main_thread, _receiver) = MainThreadHandle::new().unwrap();
    let handler = DeviceHandler {
        parts: Mutex::new(None),
        device: BuiltDevice::default(),
        ledger: succession.device_ledger(),
        display_socket: DisplaySocketMailbox::default(),
        requests: RequestLinks::default(),
        main_thread,
        begin: EventFd::new(EFD_CLOEXEC).unwrap(),
        end: EventFd::new(EFD_CLOEXEC).unwrap(),
        watchdog: None,
        succession,
        has_served: Once::new(),
    };
    handler.device.set(device);
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
    handler
        .display_socket
        .put(socket.try_clone().unwrap().into());
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

/// Dies in each event, which is a panic; perhaps after it has done a request.
struct Mortal {
    ledger: Ledger,
    does_requests: bool,
}

impl Device for Mortal {
    const QUEUES: usize = 2;

    fn set_gpu_socket(&mut self, _socket: DisplaySocket) -> io::Result<()> {
        Ok(())
    }

    fn handle_event(&mut self, event: u16, _ready: EventSet, _vrings: &[Vring]) -> io::Result<()> {
        if self.does_requests {
            self.ledger.commit_work(RecordKey::new(1, 0), |value| {
                value.u16(event);
            });
        }
        match event {
            0 => Ok(()),
            _ => panic!("the process dies"),
        }
    }
}

impl DeviceBuilder for Mortal {
    type Device = Self;
    type Error = io::Error;

    fn build(self, _context: DeviceContext) -> io::Result<Self> {
        Ok(self)
    }
}

/// How many successors of a process take over, at most 40, if each dies while it handles `last`, an event, after another
/// one. They die before they have taken over if they `are_slow`.
fn successors(does_requests: bool, last: u16, are_slow: bool) -> usize {
    let mut kept = KeptState::new().unwrap();
    let mut processes = 0;
    while let Ok(continuity) = kept.successor() {
        if processes > 40 {
            break;
        }
        processes += 1;
        let succession = Succession::new(continuity);
        if !are_slow {
            succession.replayed();
        }
        let device = Mortal {
            ledger: succession.device_ledger(),
            does_requests,
        };
        let handler = handler_of(device, succession);
        let handle = |event| handler.handle_event(event, EventSet::IN, &[], 0);
        let died = catch_unwind(AssertUnwindSafe(|| {
            handle(0).unwrap();
            handle(last).unwrap();
        }));
        assert_eq!(died.is_err(), last != 0);
    }
    processes - 1
}

#[test]
fn event_that_kills_each_process_ends_the_state() {
    assert_eq!(successors(false, 1, false), 18);
    assert_eq!(successors(false, FIRST_TOKEN, false), 18);
}

/// Somebody else kills them: at work of which they did some, or while they waited.
#[test]
fn processes_that_get_something_done_are_followed_by_others() {
    assert_eq!(successors(true, 1, false), 40);
    assert_eq!(successors(false, 0, false), 40);
    // The main thread has not got as far as the worker.
    assert_eq!(successors(true, 1, true), 40);
}

/// Not the first one, which takes nothing over.
#[test]
fn takeover_that_kills_each_process_ends_the_state() {
    assert_eq!(successors(false, 0, true), 19);
}
