// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hardware that comes back.

use super::*;
use crate::input::source::SourceReturn;

/// The next of what is found out about the return.
fn answers(device: &mut TestDevice, answer: SourceReturn) {
    device.hardware().returns.push_back(answer);
    device.handle(RETURN);
}

/// A keyboard that a guest has, unplugged with the key 30 pressed, of which the guest knows.
fn unplugged() -> TestDevice {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(30..31));
    device.unplug();
    let told = [presses(30..31), vec![key(30, 0), Event::REPORT]].concat();
    assert_eq!(device.received(), told);
    assert!(device.hardware().awaited && device.says_unplugged());
    let status = device.context.take_status();
    assert_eq!(
        status.as_deref(),
        Some("waiting for /dev/input/event0 (Fake)")
    );
    device.hardware().state.keys = Bitmap::default();
    device
}

#[test]
fn device_that_comes_back_is_the_guests_again() {
    let mut device = unplugged();
    for _ in 0..100 {
        device.hardware().state.keys = [31].into_iter().collect();
        answers(&mut device, SourceReturn::Back);
        assert!(device.hardware().grabbed);
        assert_eq!(device.received(), [key(31, 1), Event::REPORT]);
        let status = device.context.take_status();
        assert_eq!(
            status.as_deref(),
            Some("the guest has /dev/input/event0 (Fake)")
        );
        device.report(&[key(32, 1), Event::REPORT]);
        assert_eq!(device.received(), [key(32, 1), Event::REPORT]);
        device.unplug();
        let released = [key(31, 0), key(32, 0), Event::REPORT];
        assert_eq!(device.received(), released);
        assert!(device.says_unplugged() && !device.hardware().grabbed);
        assert_eq!(device.context.watched(SOURCE).ok(), Some(0));
        device.offer(7);
    }
    assert_eq!(device.context.failure(), None);
}

#[test]
fn nothing_is_said_of_keys_that_are_up_again() {
    let mut device = unplugged();
    answers(&mut device, SourceReturn::NotYet);
    assert!(!device.hardware().grabbed);
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), []);
}

#[test]
fn touches_that_outlast_the_plug_are_new_contacts() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&[slot(1), contact(7), Event::REPORT]);
    assert_eq!(device.received(), [slot(1), contact(7), Event::REPORT]);
    device.unplug();
    assert_eq!(device.received(), [contact(-1), Event::REPORT]);
    let mut state = DeviceState::new(5);
    state.touch.slot = Some(1);
    state.touch.contacts[1].id = 0;
    device.hardware().state = state;
    answers(&mut device, SourceReturn::Back);
    assert_eq!(device.received(), [contact(0), Event::REPORT]);
}

#[test]
fn leds_are_as_the_guest_set_them_last() {
    let mut device = unplugged();
    assert!(device.sets(Event::new(EV_LED, 1, 1)));
    assert!(device.sets(Event::new(EV_LED, 2, 1)));
    assert!(device.sets(Event::new(EV_LED, 2, 0)));
    assert_eq!(device.hardware().sent, []);
    device.hardware().leds = [0].into_iter().collect();
    answers(&mut device, SourceReturn::Back);
    let lit: Vec<_> = device.hardware().leds.iter().collect();
    assert_eq!(lit, [0, 1]);
    // And the host's own after the guest.
    device.stop();
    let lit: Vec<_> = device.hardware().leds.iter().collect();
    assert_eq!(lit, [0]);
}

/// The rest of a report that the guest has begun to read comes first.
#[test]
fn report_in_progress_is_ended_before_the_state_is_told() {
    let mut device = TestDevice::running(4);
    device.offer(4);
    device.report(&presses(30..36));
    assert_eq!(device.received(), presses(30..36)[..4]);
    device.unplug();
    device.hardware().state.keys = [40].into_iter().collect();
    answers(&mut device, SourceReturn::Back);
    let mut rest = Vec::new();
    let mut free = 4;
    for _ in 0..4 {
        device.offer(free);
        device.kick(EVENT_QUEUE);
        let received = device.received();
        free = received.len();
        rest.extend(received);
    }
    let released = (30..36).map(|code| key(code, 0));
    let state = released.chain([key(40, 1), Event::REPORT]);
    let expected: Vec<_> = presses(30..36)[4..].iter().copied().chain(state).collect();
    assert_eq!(rest, expected);
}

#[test]
fn key_that_the_host_saw_pressed_is_waited_for() {
    let mut device = TestDevice::keyboard();
    device.kick(EVENT_QUEUE);
    device.unplug();
    device.hardware().state.keys = [28].into_iter().collect();
    answers(&mut device, SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    device.hardware().state.keys = Bitmap::default();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
    device.report(&[key(29, 1), Event::REPORT]);
    assert_eq!(device.received(), [key(29, 1), Event::REPORT]);
}

/// The guest is paused, or has no driver yet.
#[test]
fn device_that_comes_back_without_its_guest_is_the_hosts() {
    let mut device = unplugged();
    device.stop();
    answers(&mut device, SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    let status = device.context.take_status();
    assert_eq!(
        status.as_deref(),
        Some("no guest uses /dev/input/event0 (Fake)")
    );
    device.hardware().state.keys = [31].into_iter().collect();
    device.resume();
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), [key(31, 1), Event::REPORT]);
}

#[test]
fn what_cannot_be_used_is_said_and_waited_on() {
    let mut device = unplugged();
    answers(&mut device, SourceReturn::Refused("it is a mouse".into()));
    assert!(!device.hardware().grabbed);
    let status = device.context.take_status();
    assert_eq!(
        status.as_deref(),
        Some("waiting for /dev/input/event0 (Fake): it is a mouse")
    );
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().grabbed);
    assert_eq!(device.context.failure(), None);
}

#[test]
fn device_that_cannot_come_back_is_served_on() {
    let mut device = unplugged();
    assert_eq!(device.context.watched(RETURN).ok(), Some(1));
    answers(&mut device, SourceReturn::Never("it ended".into()));
    assert_eq!(device.context.watched(RETURN).ok(), Some(0));
    let status = device.context.take_status();
    assert!(status.is_some_and(|status| status.contains("will not come back")));

    // It is known before the device is gone.
    let mut device = TestDevice::running(64);
    answers(&mut device, SourceReturn::Never("it ended".into()));
    device.unplug();
    assert!(!device.hardware().awaited);
    let status = device.context.take_status();
    assert!(status.is_some_and(|status| status.contains("will not come back")));
    assert!(device.sets(Event::new(EV_LED, 1, 1)));
    assert_eq!(device.context.failure(), None);
}

/// A loose plug.
#[test]
fn device_that_is_gone_again_at_once_is_waited_for() {
    let mut device = unplugged();
    device.hardware().vanishes_at_grab = true;
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().awaited && device.says_unplugged());
    assert_eq!(device.context.watched(SOURCE).ok(), Some(0));
    device.hardware().vanishes_at_grab = false;
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().grabbed);
}

#[test]
fn device_that_another_process_grabbed_first_is_waited_for() {
    let mut device = unplugged();
    device.hardware().grabbed_by_another = true;
    answers(&mut device, SourceReturn::Back);
    assert_eq!(device.context.failure(), None);
    assert!(device.hardware().awaited);
    let status = device.context.take_status();
    assert_eq!(
        status.as_deref(),
        Some("waiting for /dev/input/event0 (Fake): another process has grabbed it")
    );
    // As it stays.
    for _ in 0..3 {
        answers(&mut device, SourceReturn::Refused("grabbed".into()));
    }
    device.hardware().grabbed_by_another = false;
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().grabbed);
    device.report(&[key(32, 1), Event::REPORT]);
    assert_eq!(device.received(), [key(32, 1), Event::REPORT]);
}

/// A guest with the driver's first 4 buffers used for a part of a report, unplugged; a key is pressed as it comes back.
fn waiting() -> TestDevice {
    let mut info = info();
    info.codes.insert(EV_REP, [0, 1].into_iter().collect());
    let mut device = TestDevice::new(64, info, HostAccess::UntilGrab);
    device.kick(EVENT_QUEUE);
    device.offer(4);
    device.report(&presses(30..36));
    assert_eq!(device.received(), presses(30..36)[..4]);
    device.unplug();
    device.hardware().state.keys = [28].into_iter().collect();
    answers(&mut device, SourceReturn::Back);
    assert!(!device.hardware().grabbed);
    device
}

/// The rest of the report, and the release of its keys.
fn rest() -> Vec<Event> {
    let released = (30..36).map(|code| key(code, 0));
    let rest = presses(30..36).into_iter().skip(4);
    rest.chain(released).chain([Event::REPORT]).collect()
}

#[test]
fn guest_hears_of_releases_while_it_waits_for_a_key() {
    let mut device = waiting();
    device.offer(32);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), rest());
    assert!(!device.hardware().grabbed);
    device.hardware().state.keys = Bitmap::default();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
    device.report(&[key(29, 1), Event::REPORT]);
    assert_eq!(device.received(), [key(29, 1), Event::REPORT]);
}

#[test]
fn report_in_progress_outlasts_the_wait_for_a_key() {
    let mut device = waiting();
    device.hardware().state.keys = Bitmap::default();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
    device.offer(32);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), rest());

    // And another unplug.
    let mut device = waiting();
    device.unplug();
    device.offer(32);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), rest());
}

#[test]
fn guest_that_stops_while_it_waits_hears_nothing_more() {
    let mut device = waiting();
    device.stop();
    device.hardware().state.keys = Bitmap::default();
    device.resume();
    assert!(device.hardware().grabbed);
}

#[test]
fn leds_of_an_earlier_driver_do_not_come_back() {
    let mut device = TestDevice::running(64);
    assert!(device.sets(Event::new(EV_LED, 1, 1)));
    device.stop();
    device.unplug();
    // Nothing was taken from the queue: it is a new driver's.
    device.resume();
    device.hardware().leds = Bitmap::default();
    answers(&mut device, SourceReturn::Back);
    assert!(device.hardware().grabbed);
    assert_eq!(device.hardware().leds.iter().count(), 0);
}
