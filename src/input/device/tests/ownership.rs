// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How a guest gets the device, and what the program's end leaves.

use evdev::KeyCode;
use vm_memory::GuestMemoryMmap;

use super::*;

#[test]
fn device_is_grabbed_while_a_guest_runs() {
    let mut device = TestDevice::idle(64);
    device.offer(64);
    device.events.vring.set_enabled(false);
    device.report(&presses(1..2));
    assert!(!device.hardware().grabbed);
    device.events.vring.set_enabled(true);
    device.kick(EVENT_QUEUE);
    assert!(device.hardware().grabbed);
    // What was typed before was not for the guest.
    assert_eq!(device.received(), []);
    device.events.vring.set_queue_ready(false);
    device.input.stop_vring(1).expect("a queue can be stopped");
    assert!(device.hardware().grabbed);
    device.input.stop_vring(0).expect("a queue can be stopped");
    assert!(!device.hardware().grabbed);
    device.report(&presses(1..2));
    device.events.vring.set_queue_ready(true);
    device.kick(EVENT_QUEUE);
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), []);
    // A front-end that only disables the queue.
    device.events.vring.set_enabled(false);
    device.report(&presses(1..2));
    assert!(!device.hardware().grabbed);
}

/// QEMU changes a region by removing and adding it; some machines have only one.
#[test]
fn guest_keeps_the_device_while_its_memory_is_replaced() {
    let mut device = TestDevice::running(64);
    let whole = device.replace_memory(GuestMemoryMmap::new());
    device.handle(WAKE);
    assert!(device.hardware().grabbed);
    device.hardware().state.keys = [28].into_iter().collect();
    device.replace_memory(whole);
    device.offer(64);
    device.handle(WAKE);
    assert!(device.hardware().grabbed);
    assert_eq!(device.input.ownership.owner(), Owner::Guest);
}

#[test]
fn host_and_guest_share_the_device_without_grab() {
    let mut device = TestDevice::new(64, info(), HostAccess::Shared);
    device.offer(64);
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), presses(28..29));
}

/// Such as a console's: it is made for the guest, so there is nothing to wait for or to grab.
#[test]
fn source_without_a_host_is_given_at_once_and_hears_of_leds() {
    let mut info = info();
    info.codes.insert(EV_REP, [0, 1].into_iter().collect());
    let mut device = TestDevice::new(64, info, HostAccess::None);
    device.offer(64);
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), presses(28..29));
    let status = device.context.take_status();
    assert_eq!(
        status.as_deref(),
        Some("the guest has /dev/input/event0 (Fake)")
    );
    let lit = Event::new(EV_LED, 1, 1);
    assert!(device.sets(lit));
    assert_eq!(device.hardware().sent, [lit, Event::REPORT]);
    device.stop();
    assert_eq!(device.hardware().leds, Bitmap::default());
}

#[test]
fn device_grabbed_by_another_process_is_not_given() {
    let mut device = TestDevice::idle(64);
    device.hardware().grabbed_by_another = true;
    device.offer(64);
    device.kick(EVENT_QUEUE);
    assert_ne!(device.input.ownership.owner(), Owner::Guest);
    device.report(&presses(1..2));
    assert_eq!(device.received(), []);
}

#[test]
fn key_held_on_the_host_is_released_on_the_host() {
    let mut device = TestDevice::keyboard();
    // A switch of a joystick stays on, and the guest is told.
    let switch = KeyCode::BTN_TRIGGER_HAPPY5.0;
    device.hardware().state.keys = [28, switch].into_iter().collect();
    device.kick(EVENT_QUEUE);
    device.report(&[key(29, 1), Event::REPORT]);
    assert!(!device.hardware().grabbed);
    assert_eq!(device.received(), []);
    device.hardware().state.keys = [switch].into_iter().collect();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
    assert_eq!(device.received(), presses(switch..switch + 1));
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
}

#[test]
fn key_held_for_long_is_noticed_once() {
    let mut device = TestDevice::keyboard();
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    device.report(&[key(29, 1), Event::REPORT]);
    let ready = device.context.ready(60_000).expect("cannot wait");
    assert_eq!(ready.first().map(|ready| ready.0), Some(TIMER));
    device.handle(TIMER);
    device.report(&[key(29, 1), Event::REPORT]);
    assert!(device.context.ready(0).expect("cannot wait").is_empty());
    device.hardware().state.keys = Bitmap::default();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
}

#[test]
fn end_gives_the_host_its_device_back_for_good() {
    let mut device = TestDevice::running(64);
    device.hardware().leds = [0].into_iter().collect();
    device.stop();
    device.resume();
    for event in [(EV_LED, 0, 0), (EV_LED, 1, 1), (EV_SND, 2, 440)] {
        let (kind, code, value) = event;
        assert!(device.sets(Event::new(kind, code, value)));
    }
    device.hardware().sent.clear();
    device.input.end();
    let restored = [
        Event::new(EV_LED, 0, 1),
        Event::new(EV_LED, 1, 0),
        Event::new(EV_SND, 2, 0),
        Event::REPORT,
    ];
    assert_eq!(std::mem::take(&mut device.hardware().sent), restored);
    assert!(!device.hardware().grabbed);
    // Nothing of the guest is accepted any more.
    device.kick(EVENT_QUEUE);
    assert!(!device.sets(Event::new(EV_LED, 1, 1)));
    assert!(!device.hardware().grabbed);
    assert_eq!(device.hardware().sent, []);
}
