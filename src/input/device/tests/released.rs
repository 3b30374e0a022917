// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The host takes the device from a guest that runs, and gives it again.

use evdev::KeyCode;

use super::*;

use crate::input::device::release::{GrabRequest, ReleasedBy};
use crate::input::source::SourceReturn;

const LEFT: u16 = KeyCode::KEY_LEFTCTRL.0;
const RIGHT: u16 = KeyCode::KEY_RIGHTCTRL.0;
const SCROLL_LOCK: u16 = KeyCode::KEY_SCROLLLOCK.0;
const BY_COMMAND: GrabRequest = GrabRequest::Release(ReleasedBy::Command);
const RELEASED: &str = "released to the host: /dev/input/event0 (Fake)";
const UNPLUGGED: &str = "released to the host: /dev/input/event0 (Fake), which was unplugged";
const WAITING: &str = "waiting for /dev/input/event0 (Fake)";

/// A keyboard with the chord `toggle` that a guest has.
fn with_chord(toggle: GrabToggle) -> TestDevice {
    let mut device = TestDevice::keyboard_with(GrabControl::of_chord(toggle));
    device.kick(EVENT_QUEUE);
    assert!(device.hardware().grabbed);
    device
}

impl TestDevice {
    fn ask(&mut self, request: GrabRequest) {
        let Input {
            ownership,
            virtio_input,
            ..
        } = &mut self.input;
        changing_hands::obey(ownership, request, virtio_input);
        self.handle(WAKE);
    }

    /// A key changes on the hardware.
    fn press(&mut self, code: u16, value: i32) {
        self.hardware().state.keys.set(code, value != 0);
        self.report(&[key(code, value), Event::REPORT]);
    }

    /// Both Ctrl keys are pressed and released.
    fn strike(&mut self) {
        for (code, value) in [(LEFT, 1), (RIGHT, 1), (LEFT, 0), (RIGHT, 0)] {
            self.press(code, value);
        }
    }

    /// The next of what is found out about its return.
    fn returns(&mut self, answer: SourceReturn) {
        self.hardware().returns.push_back(answer);
        self.handle(RETURN);
    }

    fn status(&self) -> String {
        self.context.take_status().unwrap_or_default()
    }
}

#[test]
fn chord_releases_and_grabs_once_its_keys_are_up() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    for _ in 0..20 {
        device.press(30, 1);
        assert_eq!(device.received(), presses(30..31));
        device.press(LEFT, 1);
        device.press(RIGHT, 1);
        let seen = [
            vec![key(LEFT, 1), Event::REPORT],
            // All at once. The second key of the chord is not seen.
            vec![key(LEFT, 0), key(30, 0), Event::REPORT],
        ]
        .concat();
        let mut received = device.received();
        // A report's order is that of the codes.
        if let Some(report) = received.get_mut(2..4) {
            report.sort_by_key(|event| event.code != LEFT);
        }
        assert_eq!(received, seen);
        // Nobody sees the end of the chord.
        for (code, value) in [(RIGHT, 0), (LEFT, 0), (30, 2)] {
            assert!(device.hardware().grabbed);
            device.press(code, value);
        }
        assert!(device.hardware().grabbed);
        device.press(30, 0);
        assert!(!device.hardware().grabbed);
        assert_eq!(device.status(), RELEASED);
        device.press(31, 1);
        device.press(31, 0);
        assert_eq!(device.received(), []);

        device.press(LEFT, 1);
        device.press(RIGHT, 1);
        device.press(LEFT, 0);
        assert!(!device.hardware().grabbed);
        device.press(RIGHT, 0);
        assert!(device.hardware().grabbed);
        assert_eq!(device.status(), "the guest has /dev/input/event0 (Fake)");
        assert_eq!(device.received(), []);
        device.offer(7);
    }
    assert_eq!(device.context.failure(), None);
}

#[test]
fn touches_are_lifted_and_leds_are_those_of_the_host() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    let lit = Event::new(EV_LED, 1, 1);
    assert!(device.sets(lit));
    device.report(&[slot(1), contact(7), key(30, 1), Event::REPORT]);
    device.received();
    device.ask(BY_COMMAND);
    let released = [contact(-1), key(30, 0), Event::REPORT];
    let mut received = device.received();
    received.sort_by_key(|event| released.iter().position(|known| known == event));
    assert_eq!(received, released);
    assert!(!device.hardware().grabbed && device.hardware().leds.is_empty());
    // What the guest sets meanwhile takes effect once it has the device again.
    assert!(device.sets(Event::new(EV_LED, 2, 1)));
    assert!(device.hardware().leds.is_empty());
    device.hardware().state.keys = [31].into_iter().collect();
    device.ask(GrabRequest::Grab);
    assert!(device.hardware().grabbed);
    assert_eq!(device.hardware().leds, [1, 2].into_iter().collect());
    assert_eq!(device.received(), presses(31..32));
}

/// The chord is seen by the program, not by the guest.
#[test]
fn guest_that_takes_no_events_cannot_keep_the_device() {
    let mut info = info();
    info.codes.insert(EV_REP, [0, 1].into_iter().collect());
    let control = GrabControl::of_chord(GrabToggle::CtrlCtrl);
    let mut device = TestDevice::controlled(64, info, HostAccess::UntilGrab, control);
    device.kick(EVENT_QUEUE);
    for _ in 0..2000 {
        device.press(30, 1);
        device.press(30, 0);
    }
    device.strike();
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), []);
}

#[test]
fn scroll_lock_of_a_chord_is_not_the_guests() {
    let mut device = with_chord(GrabToggle::Scrolllock);
    device.press(SCROLL_LOCK, 1);
    assert!(device.hardware().grabbed);
    device.press(SCROLL_LOCK, 0);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), []);
    let mut device = with_chord(GrabToggle::CtrlScrolllock);
    device.press(SCROLL_LOCK, 1);
    device.press(SCROLL_LOCK, 0);
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), []);
}

/// The guest would never see it released.
#[test]
fn guest_is_not_told_that_the_scroll_lock_of_a_chord_is_held() {
    let mut device = with_chord(GrabToggle::Scrolllock);
    device.press(SCROLL_LOCK, 1);
    device.ask(GrabRequest::Grab);
    assert_eq!(device.input.ownership.owner(), Owner::Guest);
    device.press(SCROLL_LOCK, 0);
    assert_eq!(device.received(), []);
    let mut device = with_chord(GrabToggle::CtrlScrolllock);
    device.press(SCROLL_LOCK, 1);
    device.hardware().state.keys.set(30, true);
    device.report(&[Event::new(EV_SYN, SYN_DROPPED, 0), Event::REPORT]);
    assert_eq!(device.received(), presses(30..31));
}

/// The keys of others do not matter without autorepeat.
#[test]
fn chord_of_a_device_without_autorepeat_is_seen_by_nobody_in_part() {
    let control = GrabControl::of_chord(GrabToggle::CtrlCtrl);
    let mut device = TestDevice::controlled(64, info(), HostAccess::UntilGrab, control);
    device.kick(EVENT_QUEUE);
    device.press(30, 1);
    for (code, value) in [(LEFT, 1), (RIGHT, 1), (LEFT, 0)] {
        device.press(code, value);
        assert!(device.hardware().grabbed);
    }
    device.press(RIGHT, 0);
    assert!(!device.hardware().grabbed);
}

#[test]
fn without_a_chord_its_keys_are_only_keys() {
    let mut device = TestDevice::keyboard();
    device.kick(EVENT_QUEUE);
    device.strike();
    assert!(device.hardware().grabbed);
    assert_eq!(device.received().len(), 8);
}

/// So that of two guests with the same device, only the last one gets it.
#[test]
fn chord_does_not_undo_a_command() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.ask(BY_COMMAND);
    assert!(!device.hardware().grabbed);
    device.strike();
    assert!(!device.hardware().grabbed);
    device.ask(GrabRequest::Grab);
    device.strike();
    assert!(!device.hardware().grabbed);
    device.ask(BY_COMMAND);
    device.strike();
    assert!(!device.hardware().grabbed);
}

#[test]
fn device_is_not_released_while_a_key_is_held_that_the_host_would_repeat() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.press(30, 1);
    device.ask(BY_COMMAND);
    let told = [key(30, 1), Event::REPORT, key(30, 0), Event::REPORT];
    assert_eq!(device.received(), told);
    assert!(device.hardware().grabbed);
    let waits = "the host gets /dev/input/event0 (Fake) once KEY_A is released";
    assert_eq!(device.status(), waits);
    let ready = device.context.ready(60_000).expect("cannot wait");
    assert_eq!(ready.first().map(|ready| ready.0), Some(TIMER));
    device.handle(TIMER);
    // It is given again before.
    device.ask(GrabRequest::Grab);
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), presses(30..31));
    device.ask(BY_COMMAND);
    device.press(30, 0);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), [key(30, 0), Event::REPORT]);
}

#[test]
fn host_keeps_the_device_over_a_reset_of_the_guest() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.press(30, 1);
    device.press(30, 0);
    device.received();
    device.strike();
    assert!(!device.hardware().grabbed);
    device.received();
    device.stop();
    device.strike();
    device.resume();
    assert!(!device.hardware().grabbed);
    assert_eq!(device.status(), RELEASED);
    assert_eq!(device.input.ownership.owner(), Owner::Released);
    device.strike();
    assert!(device.hardware().grabbed);
    // While no guest runs, too.
    device.stop();
    device.ask(BY_COMMAND);
    device.resume();
    assert!(!device.hardware().grabbed);
    device.ask(GrabRequest::Grab);
    assert!(device.hardware().grabbed);
}

#[test]
fn guest_that_stops_in_the_middle_gives_the_device_back() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.press(30, 1);
    device.ask(BY_COMMAND);
    assert!(device.hardware().grabbed);
    device.stop();
    assert!(!device.hardware().grabbed);
    device.input.end();
    device.ask(GrabRequest::Grab);
    device.resume();
    assert!(!device.hardware().grabbed);
}

#[test]
fn device_that_waits_for_a_key_of_the_host_is_left_to_it() {
    let mut device = TestDevice::keyboard();
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    device.ask(BY_COMMAND);
    device.press(28, 0);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.status(), RELEASED);
    assert!(device.context.ready(0).expect("cannot wait").is_empty());
}

#[test]
fn released_device_may_be_unplugged() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.strike();
    device.received();
    device.unplug();
    // Nobody waits for it.
    assert_eq!(device.status(), UNPLUGGED);
    device.returns(SourceReturn::Refused("it is another device".to_owned()));
    assert_eq!(device.status(), format!("{RELEASED}, it is another device"));
    device.returns(SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.status(), RELEASED);
    device.strike();
    assert!(device.hardware().grabbed);
    // Asked for while it is not there, and with keys down.
    device.press(LEFT, 1);
    device.press(30, 1);
    device.ask(BY_COMMAND);
    device.unplug();
    assert_eq!(device.status(), UNPLUGGED);
    device.ask(GrabRequest::Grab);
    assert_eq!(device.status(), WAITING);
    device.ask(BY_COMMAND);
    assert_eq!(device.status(), UNPLUGGED);
    device.hardware().state.keys = Bitmap::default();
    device.returns(SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    device.unplug();
    device.ask(GrabRequest::Grab);
    assert_eq!(device.status(), WAITING);
    device.returns(SourceReturn::Back);
    assert!(device.hardware().grabbed);
    assert_eq!(device.context.failure(), None);
}

/// It is grabbed, to try whether that works, only for a guest that is to get it at once: another VM may have it.
#[test]
fn device_that_comes_back_is_left_to_others_unless_a_guest_wants_it() {
    let mut device = TestDevice::keyboard();
    let wanted = |device: &mut TestDevice| {
        device.unplug();
        device.returns(SourceReturn::Back);
        device.hardware().wanted
    };
    device.kick(EVENT_QUEUE);
    assert!(wanted(&mut device), "a guest has it");
    device.ask(BY_COMMAND);
    device.hardware().grabbed_by_another = true;
    assert!(!wanted(&mut device), "another guest has it");
    assert_eq!(device.status(), RELEASED);
    device.unplug();
    device.ask(GrabRequest::Grab);
    device.hardware().grabbed_by_another = false;
    device.returns(SourceReturn::Back);
    assert!(device.hardware().wanted, "it is asked for");
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.stop();
    assert!(!wanted(&mut device), "no guest runs");
    assert_eq!(device.context.failure(), None);
}

/// Two guests use it by turns: the other one has it.
#[test]
fn device_grabbed_by_another_process_is_waited_for_once_it_is_asked_for() {
    let mut device = TestDevice::keyboard();
    device.hardware().grabbed_by_another = true;
    device.kick(EVENT_QUEUE);
    let status = device.status();
    assert_eq!(
        status,
        format!("{RELEASED}, which another process has grabbed")
    );
    device.hardware().grabbed_by_another = false;
    // Released to the host, not to this guest.
    device.report(&presses(30..31));
    assert!(!device.hardware().grabbed);
    assert!(device.context.ready(0).expect("cannot wait").is_empty());

    device.hardware().grabbed_by_another = true;
    device.ask(GrabRequest::Grab);
    for _ in 0..2 {
        let waits = "waiting for /dev/input/event0 (Fake): another process has grabbed it";
        assert_eq!(device.status(), waits);
        let ready = device.context.ready(60_000).expect("cannot wait");
        assert_eq!(ready.first().map(|ready| ready.0), Some(TIMER));
        device.handle(TIMER);
    }
    device.hardware().grabbed_by_another = false;
    let ready = device.context.ready(60_000).expect("cannot wait");
    assert_eq!(ready.first().map(|ready| ready.0), Some(TIMER));
    device.handle(TIMER);
    assert!(device.hardware().grabbed);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    assert_eq!(device.context.failure(), None);
}

/// As after a reboot. A guest that was only paused is the same one.
#[test]
fn device_grabbed_by_another_process_is_tried_once_by_each_new_driver() {
    let mut device = TestDevice::keyboard();
    let by_other = format!("{RELEASED}, which another process has grabbed");
    device.kick(EVENT_QUEUE);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.stop();
    device.hardware().grabbed_by_another = true;
    device.resume();
    assert_eq!(device.status(), by_other);
    device.hardware().grabbed_by_another = false;
    device.stop();
    device.resume();
    assert!(!device.hardware().grabbed, "the driver is the same");
    assert_eq!(device.status(), by_other);

    let reboot = |device: &mut TestDevice| {
        device.stop();
        device.events.vring.set_queue_next_avail(0);
        device.resume();
    };
    device.hardware().grabbed_by_another = true;
    reboot(&mut device);
    assert_eq!(device.status(), by_other);
    device.hardware().grabbed_by_another = false;
    // Once: the guest goes on without it.
    assert!(device.context.ready(0).expect("cannot wait").is_empty());
    device.report(&presses(30..31));
    assert!(!device.hardware().grabbed);
    reboot(&mut device);
    assert!(device.hardware().grabbed, "it is free now");
    assert_eq!(device.status(), "the guest has /dev/input/event0 (Fake)");
    // What somebody released stays so.
    device.ask(BY_COMMAND);
    reboot(&mut device);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.status(), RELEASED);
    assert_eq!(device.context.failure(), None);
}

#[test]
fn host_keeps_a_device_that_comes_back_to_a_guest_that_began_without_it() {
    let mut device = TestDevice::keyboard();
    device.ask(BY_COMMAND);
    device.unplug();
    device.kick(EVENT_QUEUE);
    assert_eq!(device.status(), UNPLUGGED);
    device.returns(SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.status(), RELEASED);
}

/// The kernel takes back events that the state, which is read meanwhile, says already.
#[test]
fn chord_is_found_again_although_its_releases_were_never_read() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.hardware().state_takes_keys = true;
    let strike = |device: &mut TestDevice| {
        // A read ends with the second key of the chord, which is up already.
        let typed = [
            (30, 1),
            (30, 0),
            (LEFT, 1),
            (RIGHT, 1),
            (LEFT, 0),
            (RIGHT, 0),
        ];
        let events = typed.map(|(code, value)| [key(code, value), Event::REPORT]);
        device.report(&events.concat());
    };
    for _ in 0..3 {
        strike(&mut device);
        assert!(!device.hardware().grabbed);
        strike(&mut device);
        assert!(device.hardware().grabbed);
    }
}

#[test]
fn wait_ends_although_the_release_was_never_read() {
    let mut device = with_chord(GrabToggle::CtrlCtrl);
    device.press(30, 1);
    device.ask(BY_COMMAND);
    assert!(device.hardware().grabbed);
    device.hardware().state.keys = Bitmap::default();
    let rings = |device: &mut TestDevice| {
        let ready = device.context.ready(60_000).expect("cannot wait");
        assert_eq!(ready.first().map(|ready| ready.0), Some(TIMER));
        device.handle(TIMER);
    };
    rings(&mut device);
    assert!(!device.hardware().grabbed);
    device.hardware().state.keys = [30].into_iter().collect();
    device.ask(GrabRequest::Grab);
    assert!(!device.hardware().grabbed);
    device.hardware().state.keys = Bitmap::default();
    rings(&mut device);
    assert!(device.hardware().grabbed);
}
