// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hardware that goes away.

use super::*;

#[test]
fn unplugged_device_leaves_no_key_pressed() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(30..33));
    assert_eq!(device.received(), presses(30..33));
    device.unplug();
    let released = [key(30, 0), key(31, 0), key(32, 0), Event::REPORT];
    assert_eq!(device.received(), released);
    assert!(device.says_unplugged());
    device.handle(SOURCE);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), []);
}

#[test]
fn device_that_hangs_up_is_unplugged() {
    let mut device = TestDevice::running(64);
    device
        .input
        .handle_event(SOURCE, EventSet::HANG_UP, &device.vrings)
        .expect("nothing ends the worker");
    assert!(device.says_unplugged());
}

#[test]
fn unplugged_device_is_served_on() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.unplug();
    assert!(device.says_unplugged());
    let told = device.context.take_status();
    assert_eq!(device.context.watched(SOURCE).ok(), Some(0));
    assert!(device.sets(Event::new(EV_LED, 1, 1)));
    assert_eq!(device.hardware().sent, []);
    // Its configuration is there for another driver, which gets a device that reports nothing.
    device.stop();
    device.input.set_config(0, &[1]).expect("never an error");
    assert_eq!(device.input.get_config(8, 4), b"Fake");
    device.resume();
    assert!(device.sets(Event::new(EV_LED, 1, 1)));
    assert_eq!(device.received(), []);
    assert_eq!(device.hardware().sent, []);
    assert_eq!(device.context.take_status(), told);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.context.failure(), None);
}

/// The guest is paused, or waits for a key of the host's: it hears of it later.
#[test]
fn device_unplugged_without_its_guest_leaves_no_key_pressed() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.stop();
    device.unplug();
    assert!(device.says_unplugged());
    device.resume();
    assert_eq!(device.received(), [key(30, 0), Event::REPORT]);

    let mut device = TestDevice::keyboard();
    device.kick(EVENT_QUEUE);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.stop();
    device.hardware().state.keys = [28].into_iter().collect();
    device.resume();
    assert!(!device.hardware().grabbed);
    device.unplug();
    assert!(device.says_unplugged());
    assert_eq!(device.received(), [key(30, 0), Event::REPORT]);

    // It is found to be gone only as the guest begins.
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.stop();
    device.hardware().unplugged = true;
    device.resume();
    assert!(device.says_unplugged());
    assert_eq!(device.received(), [key(30, 0), Event::REPORT]);
}
