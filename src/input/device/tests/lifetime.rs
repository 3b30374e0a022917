//! How a guest gets the device, how it is lost, and what the program's end leaves.

use evdev::KeyCode;

use super::super::super::wire::code::{EV_REP, EV_SND};
use super::*;

impl Bench {
    /// A device that repeats its keys, as keyboards do, and no guest that runs.
    fn keyboard() -> Self {
        let mut bench = Self::new(64, true);
        let codes = &mut bench.input.source.description.codes;
        codes.insert(EV_REP, [0, 1].into_iter().collect());
        bench.offer(64);
        bench
    }

    fn unplug(&mut self) {
        self.hardware().unplugged = true;
        self.handle(DEVICE_READY);
    }

    fn says_unplugged(&self) -> bool {
        let lost = self.program.lost_hardware();
        lost.is_some_and(|lost| lost.starts_with("/dev/input/event0 (Fake) was unplugged: "))
    }

    /// Has the driver ask for `event` by the status queue; whether it was given its buffer back.
    fn asks(&mut self, event: Event) -> bool {
        let head = self.status.offer(&[(8, false)]);
        self.status
            .write(self.status.buffer(head), &event.to_bytes());
        self.kick(STATUS_QUEUE);
        self.status.take_used() == [(u32::from(head), 0)]
    }

    fn stop(&mut self) {
        self.events.vring.set_queue_ready(false);
        self.input.stop_vring(0).expect("a queue can be stopped");
    }

    fn resume(&mut self) {
        self.events.vring.set_queue_ready(true);
        self.kick(EVENT_QUEUE);
    }
}

#[test]
fn a_key_held_for_the_host_is_released_for_the_host() {
    let mut bench = Bench::keyboard();
    // A switch of a joystick stays on, and the guest is told.
    let switch = KeyCode::BTN_TRIGGER_HAPPY5.0;
    bench.hardware().state.keys = [28, switch].into_iter().collect();
    bench.kick(EVENT_QUEUE);
    bench.report(&[key(29, 1), Event::REPORT]);
    assert!(!bench.hardware().grabbed);
    assert_eq!(bench.received(), []);
    bench.hardware().state.keys = [switch].into_iter().collect();
    bench.report(&[key(28, 0), Event::REPORT]);
    assert!(bench.hardware().grabbed);
    assert_eq!(bench.received(), presses(switch..switch + 1));
    bench.report(&presses(30..31));
    assert_eq!(bench.received(), presses(30..31));
}

#[test]
fn a_key_held_for_long_is_noticed_once() {
    let mut bench = Bench::keyboard();
    bench.hardware().state.keys = [28].into_iter().collect();
    bench.kick(EVENT_QUEUE);
    bench.report(&[key(29, 1), Event::REPORT]);
    let ready = bench.program.ready(60_000).expect("cannot wait");
    assert_eq!(ready.first().map(|ready| ready.0), Some(LONG_WAIT));
    bench.handle(LONG_WAIT);
    bench.report(&[key(29, 1), Event::REPORT]);
    assert!(bench.program.ready(0).expect("cannot wait").is_empty());
    bench.hardware().state.keys = Bits::default();
    bench.report(&[key(28, 0), Event::REPORT]);
    assert!(bench.hardware().grabbed);
}

#[test]
fn an_unplugged_device_leaves_no_key_down() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(30..33));
    assert_eq!(bench.received(), presses(30..33));
    bench.unplug();
    let released = [key(30, 0), key(31, 0), key(32, 0), Event::REPORT];
    assert_eq!(bench.received(), released);
    assert!(bench.says_unplugged());
    bench.handle(DEVICE_READY);
    bench.kick(EVENT_QUEUE);
    assert_eq!(bench.received(), []);
}

#[test]
fn a_device_that_hangs_up_is_unplugged() {
    let mut bench = Bench::running(64);
    bench
        .input
        .handle_event(DEVICE_READY, EventSet::HANG_UP, &bench.vrings)
        .expect("nothing ends the worker");
    assert!(bench.says_unplugged());
}

#[test]
fn an_unplugged_device_is_served_on() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.unplug();
    assert!(bench.says_unplugged());
    let told = bench.program.take_status();
    assert_eq!(bench.program.watched(DEVICE_READY).ok(), Some(0));
    assert!(bench.asks(Event::new(EV_LED, 1, 1)));
    assert_eq!(bench.hardware().written, []);
    // Its configuration is there for another driver, which gets a device that reports nothing.
    bench.stop();
    bench.input.set_config(0, &[1]).expect("never an error");
    assert_eq!(bench.input.get_config(8, 4), b"Fake");
    bench.resume();
    assert!(bench.asks(Event::new(EV_LED, 1, 1)));
    assert_eq!(bench.received(), []);
    assert_eq!(bench.hardware().written, []);
    assert_eq!(bench.program.take_status(), None, "after {told:?}");
    assert!(!bench.hardware().grabbed);
    assert_eq!(bench.program.failure(), None);
}

/// The guest is paused, or waits for a key of the host's: it hears of it later.
#[test]
fn a_device_unplugged_without_its_guest_leaves_no_key_down() {
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(30..31));
    assert_eq!(bench.received(), presses(30..31));
    bench.stop();
    bench.unplug();
    assert!(bench.says_unplugged());
    bench.resume();
    assert_eq!(bench.received(), [key(30, 0), Event::REPORT]);

    let mut bench = Bench::keyboard();
    bench.kick(EVENT_QUEUE);
    bench.report(&presses(30..31));
    assert_eq!(bench.received(), presses(30..31));
    bench.stop();
    bench.hardware().state.keys = [28].into_iter().collect();
    bench.resume();
    assert!(!bench.hardware().grabbed);
    bench.unplug();
    assert!(bench.says_unplugged());
    assert_eq!(bench.received(), [key(30, 0), Event::REPORT]);

    // It is found to be gone only as the guest begins.
    let mut bench = Bench::running(64);
    bench.offer(64);
    bench.report(&presses(30..31));
    assert_eq!(bench.received(), presses(30..31));
    bench.stop();
    bench.hardware().unplugged = true;
    bench.resume();
    assert!(bench.says_unplugged());
    assert_eq!(bench.received(), [key(30, 0), Event::REPORT]);
}

#[test]
fn the_end_gives_the_host_its_device_back_for_good() {
    let mut bench = Bench::running(64);
    let sounds = [2].into_iter().collect();
    bench.input.source.description.codes.insert(EV_SND, sounds);
    bench.hardware().leds = [0].into_iter().collect();
    bench.stop();
    bench.resume();
    for event in [(EV_LED, 0, 0), (EV_LED, 1, 1), (EV_SND, 2, 440)] {
        let (kind, code, value) = event;
        assert!(bench.asks(Event::new(kind, code, value)));
    }
    bench.hardware().written.clear();
    bench.input.end();
    let restored = [
        Event::new(EV_LED, 0, 1),
        Event::new(EV_LED, 1, 0),
        Event::new(EV_SND, 2, 0),
        Event::REPORT,
    ];
    assert_eq!(std::mem::take(&mut bench.hardware().written), restored);
    assert!(!bench.hardware().grabbed);
    // Of a guest that goes on nothing is taken any more.
    bench.kick(EVENT_QUEUE);
    assert!(!bench.asks(Event::new(EV_LED, 1, 1)));
    assert!(!bench.hardware().grabbed);
    assert_eq!(bench.hardware().written, []);
}

#[test]
fn a_guest_that_waits_for_the_host_changes_none_of_its_leds() {
    let mut bench = Bench::keyboard();
    bench.hardware().state.keys = [28].into_iter().collect();
    bench.kick(EVENT_QUEUE);
    let lit = Event::new(EV_LED, 1, 1);
    assert!(bench.asks(lit));
    assert_eq!(bench.hardware().written, []);
    // The host goes on to change them meanwhile.
    bench.hardware().leds = [1].into_iter().collect();
    bench.hardware().state.keys = Bits::default();
    bench.report(&[key(28, 0), Event::REPORT]);
    assert!(bench.hardware().grabbed);
    let written = std::mem::take(&mut bench.hardware().written);
    assert_eq!(written, [lit, Event::REPORT]);
    assert!(bench.asks(Event::new(EV_LED, 1, 0)));
    bench.hardware().written.clear();
    bench.input.end();
    assert_eq!(bench.hardware().written, [lit, Event::REPORT]);

    // Nor does one that never gets the device.
    let mut bench = Bench::keyboard();
    bench.hardware().state.keys = [28].into_iter().collect();
    bench.kick(EVENT_QUEUE);
    assert!(bench.asks(lit));
    bench.stop();
    assert_eq!(bench.hardware().written, []);
}
