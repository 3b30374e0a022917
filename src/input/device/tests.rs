use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard};

use vhost_user_backend::VringT;

use crate::backend::FakeContext;
use crate::backend::testing::driver::{Driver, guest_memory};

use super::super::queue::MAX_REPORTS;
use super::super::source::Description;
use super::super::wire::Bits;
use super::super::wire::code::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_LED, EV_MSC, EV_SYN, SYN_DROPPED,
};
use super::*;

mod lifetime;

const NONE: EventSet = EventSet::empty();

/// The host's side of a device that there is not.
#[derive(Default)]
struct Hardware {
    events: VecDeque<Event>,
    state: State,
    leds: Bits,
    written: Vec<Event>,
    grabbed: bool,
    taken_by_another: bool,
    unplugged: bool,
}

struct Fake {
    hardware: Arc<Mutex<Hardware>>,
    description: Description,
    fd: OwnedFd,
}

impl Fake {
    fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().expect("no test panics with it")
    }
}

impl Source for Fake {
    fn description(&self) -> &Description {
        &self.description
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> io::Result<bool> {
        let mut hardware = self.hardware();
        if hardware.unplugged {
            return Err(io::Error::from_raw_os_error(
                rustix::io::Errno::NODEV.raw_os_error(),
            ));
        }
        // Reads end wherever they do.
        let room = 7;
        let count = hardware.events.len().min(room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        events.extend(hardware.events.drain(..count));
        Ok(count == room)
    }

    fn state(&self) -> io::Result<State> {
        Ok(self.hardware().state.clone())
    }

    fn leds(&self) -> io::Result<Bits> {
        Ok(self.hardware().leds)
    }

    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        self.hardware().written.extend(events);
        Ok(())
    }

    fn grab(&mut self) -> io::Result<()> {
        let mut hardware = self.hardware();
        if hardware.taken_by_another {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        hardware.grabbed = true;
        Ok(())
    }

    fn release(&mut self) -> io::Result<()> {
        self.hardware().grabbed = false;
        Ok(())
    }
}

/// A device, the driver's two queues, and the host's hardware.
struct Bench {
    input: Input<Fake>,
    program: FakeContext,
    hardware: Arc<Mutex<Hardware>>,
    events: Driver,
    status: Driver,
    vrings: Vec<Vring>,
}

impl Bench {
    fn new(queue: u16, grab: bool) -> Self {
        let mut description = Description {
            name: "Fake".into(),
            ..Description::default()
        };
        let codes = &mut description.codes;
        codes.insert(EV_KEY, (0..0x300).collect());
        codes.insert(EV_MSC, [4].into_iter().collect());
        codes.insert(EV_LED, [0, 1, 2].into_iter().collect());
        codes.insert(
            EV_ABS,
            [ABS_MT_SLOT, ABS_MT_TRACKING_ID].into_iter().collect(),
        );
        let slots = super::super::wire::Axis {
            max: 4,
            ..Default::default()
        };
        description.axes.insert(ABS_MT_SLOT, slots);
        let hardware = Arc::new(Mutex::new(Hardware {
            state: State::new(5),
            ..Hardware::default()
        }));
        let fake = Fake {
            hardware: hardware.clone(),
            description,
            fd: rustix::event::eventfd(0, EventfdFlags::CLOEXEC).expect("cannot make an eventfd"),
        };
        let options = Options {
            evdev_path: "/dev/input/event0".into(),
            grab,
        };
        let memory = guest_memory();
        let program = FakeContext::new(memory.clone()).expect("cannot make an event loop");
        let builder = InputBuilder::new(fake, options);
        let input = builder
            .build(program.context())
            .expect("cannot build a device");
        let events = Driver::new(&memory, 0x1_0000, queue);
        let status = Driver::new(&memory, 0x3_0000, queue);
        let vrings = vec![events.vring.clone(), status.vring.clone()];
        Self {
            input,
            program,
            hardware,
            events,
            status,
            vrings,
        }
    }

    /// A device whose guest runs.
    fn running(queue: u16) -> Self {
        let mut bench = Self::new(queue, true);
        bench.kick(EVENT_QUEUE);
        assert!(bench.hardware().grabbed);
        bench
    }

    fn hardware(&self) -> MutexGuard<'_, Hardware> {
        self.hardware.lock().expect("no test panics with it")
    }

    fn handle(&mut self, event: u16) {
        self.input
            .handle_event(event, NONE, &self.vrings)
            .expect("nothing ends the worker");
    }

    fn kick(&mut self, queue: usize) {
        self.handle(queue as u16);
    }

    /// Has the hardware report `events`.
    fn report(&mut self, events: &[Event]) {
        self.hardware().events.extend(events);
        while !self.hardware().events.is_empty() {
            self.handle(DEVICE_READY);
        }
    }

    /// Gives the device `count` buffers for an event each.
    fn offer(&mut self, count: usize) {
        for _ in 0..count {
            self.events.offer(&[(8, true)]);
        }
    }

    /// The events in the buffers that were used since, all of them for an event each.
    fn received(&mut self) -> Vec<Event> {
        let used = self.events.take_used();
        used.into_iter()
            .map(|(head, length)| {
                assert_eq!(length, 8);
                let at = self.events.buffer(head as u16);
                Event::from_bytes(self.events.read(at))
            })
            .collect()
    }

    fn goes_on(&self) -> bool {
        let ready = self.program.ready(0).expect("cannot wait");
        ready.iter().any(|(event, _)| *event == GO_ON)
    }
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

fn presses(keys: std::ops::Range<u16>) -> Vec<Event> {
    let mut report: Vec<_> = keys.map(|code| key(code, 1)).collect();
    report.push(Event::REPORT);
    report
}

#[test]
fn a_report_is_one_update_and_one_notification() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(1..6));
    assert_eq!(bench.received(), presses(1..6));
    assert_eq!(bench.events.calls(), 1);
    // Several that were read at once share both.
    let mut reports = presses(6..8);
    reports.extend(presses(8..9));
    bench.report(&reports);
    assert_eq!(bench.received(), reports);
    assert_eq!(bench.events.calls(), 1);
}

#[test]
fn a_report_longer_than_the_queue_is_sent_over_refills_with_none_in_between() {
    let mut bench = Bench::running(4);
    bench.offer(4);
    bench.kick(EVENT_QUEUE);
    let mut all = presses(1..20);
    bench.report(&all);
    bench.report(&presses(30..31));
    all.extend(presses(30..31));
    let mut received = bench.received();
    assert_eq!(received.len(), 4);
    while received.len() < all.len() {
        assert!(bench.events.kicks_wanted());
        bench.offer(4);
        bench.kick(EVENT_QUEUE);
        let part = bench.received();
        assert!(!part.is_empty());
        received.extend(part);
    }
    assert_eq!(received, all);
    bench.kick(EVENT_QUEUE);
    assert!(!bench.events.kicks_wanted());
}

#[test]
fn a_report_that_fits_waits_for_all_its_buffers() {
    for event_idx in [false, true] {
        let mut bench = Bench::running(4);
        bench.events.vring.set_queue_event_idx(event_idx);
        bench.offer(4);
        bench.report(&presses(1..3));
        assert_eq!(bench.received(), presses(1..3));
        // One buffer is left, which is less than the next report needs.
        bench.report(&presses(3..5));
        assert_eq!(bench.received(), []);
        bench.offer(1);
        bench.kick(EVENT_QUEUE);
        assert_eq!(bench.received(), []);
        if event_idx {
            assert_eq!(bench.events.kick_wanted_at(), 5);
        }
        bench.offer(1);
        bench.kick(EVENT_QUEUE);
        assert_eq!(bench.received(), presses(3..5));
    }
}

#[test]
fn a_driver_that_never_fills_its_queue_gets_its_reports() {
    let mut bench = Bench::running(64);
    bench.offer(2);
    let all = presses(1..6);
    bench.report(&all);
    let mut received = bench.received();
    for _ in 0..2 {
        assert_eq!(received.len() % 2, 0);
        bench.offer(2);
        bench.kick(EVENT_QUEUE);
        received.extend(bench.received());
    }
    assert_eq!(received, all);
}

#[test]
fn buffers_of_any_shape_are_used_and_useless_ones_given_back() {
    let mut bench = Bench::running(64);
    let sevenfold = bench.events.offer(&[
        (1, true),
        (0, true),
        (1, true),
        (2, false),
        (1, true),
        (1, true),
        (1, true),
        (1, true),
        (500, true),
    ]);
    bench.events.offer(&[(7, true)]);
    bench.events.offer(&[(8, false)]);
    bench.events.offer(&[(0, true)]);
    bench.events.offer_indirect(&[(4, true), (4, true)]);
    let wild = bench.events.offer(&[(8, true)]);
    bench
        .events
        .write(0x1_0000 + u64::from(wild) * 16, &u64::MAX.to_le_bytes());
    bench.events.make_available(999);
    bench.offer(1);
    bench.report(&presses(1..3));
    let used = bench.events.take_used();
    assert_eq!(used.first(), Some(&(u32::from(sevenfold), 8)));
    let bytes: Vec<u8> = [0, 2, 4, 5, 6, 7]
        .into_iter()
        .flat_map(|part| {
            bench
                .events
                .read::<1>(bench.events.buffer(sevenfold + part))
        })
        .collect();
    assert_eq!(bytes, key(1, 1).to_bytes()[..6]);
    let lengths: Vec<u32> = used.iter().map(|used| used.1).collect();
    assert_eq!(lengths, [8, 0, 0, 0, 8, 0, 8]);
    for (used, event) in used.into_iter().skip(4).step_by(2).zip(&presses(1..3)[1..]) {
        let at = bench.events.buffer(used.0 as u16);
        assert_eq!(bench.events.read(at), event.to_bytes());
    }
}

#[test]
fn a_driver_too_slow_finds_the_state_true_in_the_end() {
    let mut bench = Bench::running(4);
    bench.offer(4);
    bench.report(&[key(30, 1), Event::REPORT]);
    for n in 0..3000 {
        bench.report(&[key(31, n % 2), Event::REPORT]);
    }
    let touch = Event::new(EV_ABS, ABS_MT_TRACKING_ID, 5);
    let slot = Event::new(EV_ABS, ABS_MT_SLOT, 3);
    bench.report(&[key(30, 0), slot, touch, Event::REPORT]);
    let mut guest = State::new(5);
    let mut last = Vec::new();
    loop {
        let received = bench.received();
        if received.is_empty() {
            break;
        }
        for event in &received {
            guest.apply(event);
        }
        bench.offer(received.len());
        last.extend(received);
        bench.kick(EVENT_QUEUE);
    }
    let mut truth = State::new(5);
    for event in [key(31, 1), slot, touch] {
        truth.apply(&event);
    }
    assert_eq!(guest, truth);
    assert!(last.ends_with(&[Event::REPORT]));
    assert!(last.len() < 1100);
}

#[test]
fn what_the_kernel_lost_is_read_from_the_device() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(1..3));
    assert_eq!(bench.received(), presses(1..3));
    bench.hardware().state.keys = [2, 9].into_iter().collect();
    let mut lost = vec![key(7, 1), Event::new(EV_SYN, SYN_DROPPED, 0)];
    lost.extend(presses(100..150));
    bench.report(&lost);
    assert_eq!(bench.received(), [key(1, 0), key(9, 1), Event::REPORT]);
}

fn slot(slot: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_SLOT, slot)
}

fn contact(id: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_TRACKING_ID, id)
}

/// A device with a guest, which has a contact in slot 0.
fn touched() -> Bench {
    let mut bench = Bench::new(64, true);
    for event in [slot(0), contact(7)] {
        bench.hardware().state.apply(&event);
    }
    bench.offer(64);
    bench.kick(EVENT_QUEUE);
    assert_eq!(bench.received(), [slot(0), contact(7), Event::REPORT]);
    bench
}

#[test]
fn a_slot_that_was_read_in_the_middle_of_a_report_is_read_again() {
    let mut bench = touched();
    // The state is read when this was reported, and before it was the report's end.
    let report = [contact(-1), slot(1), contact(8)];
    for event in &report {
        bench.hardware().state.apply(event);
    }
    bench.report(&[Event::new(EV_SYN, SYN_DROPPED, 0), Event::REPORT]);
    let corrected = [contact(-1), slot(1), contact(8), Event::REPORT];
    assert_eq!(bench.received(), corrected);
    // In slot 1 this would end the contact that has just begun.
    bench.report(&report);
    bench.report(&[Event::REPORT]);
    assert_eq!(bench.received(), []);
    let next = [contact(-1), Event::REPORT];
    bench.report(&next);
    assert_eq!(bench.received(), next);
}

#[test]
fn a_slot_that_contacts_come_back_to_is_not_read_again() {
    // Reads that are full and not full tell in different ways that nothing more is queued.
    let mut full: Vec<_> = (0..6).map(|id| contact(20 + id)).collect();
    full.push(Event::REPORT);
    for queued in [&[contact(20), Event::REPORT][..], &full] {
        let mut bench = touched();
        bench.report(queued);
        assert_eq!(bench.received(), queued);
        let back = [contact(10), slot(1), contact(8), slot(0), contact(11)];
        for report in [&[contact(9)][..], &back] {
            let report = [report, &[Event::REPORT]].concat();
            bench.report(&report);
            assert_eq!(bench.received(), report);
        }
    }
}

#[test]
fn the_device_is_grabbed_while_a_guest_runs() {
    let mut bench = Bench::new(64, true);
    bench.offer(64);
    bench.events.vring.set_enabled(false);
    bench.report(&presses(1..2));
    assert!(!bench.hardware().grabbed);
    bench.events.vring.set_enabled(true);
    bench.kick(EVENT_QUEUE);
    assert!(bench.hardware().grabbed);
    // What was typed before was not for the guest.
    assert_eq!(bench.received(), []);
    bench.events.vring.set_queue_ready(false);
    bench.input.stop_vring(1).expect("a queue can be stopped");
    assert!(bench.hardware().grabbed);
    bench.input.stop_vring(0).expect("a queue can be stopped");
    assert!(!bench.hardware().grabbed);
    bench.report(&presses(1..2));
    bench.events.vring.set_queue_ready(true);
    bench.kick(EVENT_QUEUE);
    assert!(bench.hardware().grabbed);
    assert_eq!(bench.received(), []);
    // A front-end that only disables the queue.
    bench.events.vring.set_enabled(false);
    bench.report(&presses(1..2));
    assert!(!bench.hardware().grabbed);
}

#[test]
fn without_grab_host_and_guest_share_the_device() {
    let mut bench = Bench::new(64, false);
    bench.offer(64);
    bench.hardware().state.keys = [28].into_iter().collect();
    bench.kick(EVENT_QUEUE);
    assert!(!bench.hardware().grabbed);
    assert_eq!(bench.received(), presses(28..29));
}

#[test]
fn a_guest_stopped_with_a_key_down_goes_on_with_it_up() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(30..31));
    assert_eq!(bench.received(), presses(30..31));
    bench.events.vring.set_queue_ready(false);
    bench.input.stop_vring(0).expect("a queue can be stopped");
    bench.events.vring.set_queue_ready(true);
    bench.kick(EVENT_QUEUE);
    assert_eq!(bench.received(), [key(30, 0), Event::REPORT]);
}

#[test]
fn leds_are_set_and_nothing_else() {
    let mut bench = Bench::running(64);
    bench.hardware().leds = [2].into_iter().collect();
    let sent = [
        Event::new(EV_LED, 1, 1),
        Event::new(EV_MSC, 4, 30),
        key(30, 1),
        Event::new(EV_LED, 9, 1),
        Event::new(EV_LED, 0, 1),
    ];
    let mut heads = Vec::new();
    for event in sent {
        let head = bench.status.offer(&[(3, false), (5, false)]);
        let [a, b, c, rest @ ..] = event.to_bytes();
        bench.status.write(bench.status.buffer(head), &[a, b, c]);
        bench.status.write(bench.status.buffer(head + 1), &rest);
        heads.push((u32::from(head), 0));
    }
    for useless in [(7, false), (8, true)] {
        heads.push((u32::from(bench.status.offer(&[useless])), 0));
    }
    bench.kick(STATUS_QUEUE);
    assert_eq!(bench.status.take_used(), heads);
    assert_eq!(bench.status.calls(), 1);
    let expected = [sent[0], sent[4], Event::REPORT];
    assert_eq!(std::mem::take(&mut bench.hardware().written), expected);
    // The guest is gone: so are its LEDs.
    bench.input.stop_vring(0).expect("a queue can be stopped");
    let expected = [
        Event::new(EV_LED, 0, 0),
        Event::new(EV_LED, 1, 0),
        Event::REPORT,
    ];
    assert_eq!(bench.hardware().written, expected);
}

#[test]
fn a_guest_without_the_device_sets_no_leds() {
    let mut bench = Bench::running(64);
    bench.events.vring.set_queue_ready(false);
    bench.input.stop_vring(0).expect("a queue can be stopped");
    let lit = Event::new(EV_LED, 1, 1);
    let head = bench.status.offer(&[(8, false)]);
    bench
        .status
        .write(bench.status.buffer(head), &lit.to_bytes());
    bench.kick(STATUS_QUEUE);
    assert_eq!(bench.hardware().written, []);
    assert_eq!(bench.status.take_used(), []);
    // It waits until the guest has the device again.
    bench.events.vring.set_queue_ready(true);
    bench.kick(EVENT_QUEUE);
    assert_eq!(bench.hardware().written, [lit, Event::REPORT]);
    assert_eq!(bench.status.take_used(), [(u32::from(head), 0)]);
}

#[test]
fn a_device_that_another_has_is_not_given() {
    let mut bench = Bench::new(64, true);
    bench.hardware().taken_by_another = true;
    bench.offer(64);
    bench.kick(EVENT_QUEUE);
    assert_ne!(bench.input.owner, Owner::Guest);
    bench.report(&presses(1..2));
    assert_eq!(bench.received(), []);
}

#[test]
fn a_pass_is_bounded_and_goes_on_later() {
    let mut bench = Bench::running(256);
    bench.offer(256);
    let mut all = Vec::new();
    for _ in 0..100 {
        all.extend(presses(1..2));
    }
    bench.hardware().events.extend(&all);
    bench.handle(DEVICE_READY);
    assert_eq!(bench.received().len(), 2 * MAX_REPORTS);
    assert!(bench.goes_on());
    bench.handle(GO_ON);
    assert_eq!(bench.received().len(), 200 - 2 * MAX_REPORTS);
    assert!(!bench.goes_on());
    for _ in 0..256 {
        bench.status.offer(&[(8, false)]);
    }
    bench.kick(STATUS_QUEUE);
    assert_eq!(bench.status.take_used().len(), 256);
    assert!(bench.goes_on());
    bench.handle(GO_ON);
    assert!(!bench.goes_on());
}

#[test]
fn a_broken_queue_does_no_harm() {
    let mut bench = Bench::running(4);
    bench.events.set_available(100);
    bench.status.set_available(100);
    for _ in 0..10 {
        bench.report(&presses(1..2));
        bench.kick(EVENT_QUEUE);
        bench.kick(STATUS_QUEUE);
    }
    assert!(!bench.goes_on());
    assert_eq!(bench.events.take_used(), []);
    // Queues that the device does not have.
    bench.vrings.clear();
    bench.kick(STATUS_QUEUE);
    bench.handle(DEVICE_READY);
}
