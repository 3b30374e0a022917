// SPDX-License-Identifier: Apache-2.0 OR MIT
//! LEDs that the driver sets through the status queue.

use super::*;

#[test]
fn only_leds_are_set() {
    let mut device = TestDevice::running(64);
    device.hardware().leds = [2].into_iter().collect();
    let sent = [
        Event::new(EV_LED, 1, 1),
        Event::new(EV_MSC, 4, 30),
        key(30, 1),
        Event::new(EV_LED, 9, 1),
        Event::new(EV_LED, 0, 1),
    ];
    let mut heads = Vec::new();
    for event in sent {
        let head = device.status.offer(&[(3, false), (5, false)]);
        let [a, b, c, rest @ ..] = event.to_bytes();
        device.status.write(device.status.buffer(head), &[a, b, c]);
        device.status.write(device.status.buffer(head + 1), &rest);
        heads.push((u32::from(head), 0));
    }
    for useless in [(7, false), (8, true)] {
        heads.push((u32::from(device.status.offer(&[useless])), 0));
    }
    device.kick(STATUS_QUEUE);
    assert_eq!(device.status.take_used(), heads);
    assert_eq!(device.status.calls(), 1);
    let expected = [sent[0], sent[4], Event::REPORT];
    assert_eq!(std::mem::take(&mut device.hardware().sent), expected);
    // The guest is gone: so are its LEDs.
    device.input.stop_vring(0).expect("a queue can be stopped");
    let expected = [
        Event::new(EV_LED, 0, 0),
        Event::new(EV_LED, 1, 0),
        Event::REPORT,
    ];
    assert_eq!(device.hardware().sent, expected);
}

#[test]
fn guest_without_the_device_sets_no_leds() {
    let mut device = TestDevice::running(64);
    device.events.vring.set_queue_ready(false);
    device.input.stop_vring(0).expect("a queue can be stopped");
    let lit = Event::new(EV_LED, 1, 1);
    let head = device.status.offer(&[(8, false)]);
    device
        .status
        .write(device.status.buffer(head), &lit.to_bytes());
    device.kick(STATUS_QUEUE);
    assert_eq!(device.hardware().sent, []);
    assert_eq!(device.status.take_used(), []);
    // It waits until the guest has the device again.
    device.events.vring.set_queue_ready(true);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.hardware().sent, [lit, Event::REPORT]);
    assert_eq!(device.status.take_used(), [(u32::from(head), 0)]);
}

#[test]
fn guest_that_waits_for_the_host_changes_none_of_its_leds() {
    let mut device = TestDevice::keyboard();
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    let lit = Event::new(EV_LED, 1, 1);
    assert!(device.sets(lit));
    assert_eq!(device.hardware().sent, []);
    // The host goes on to change them meanwhile.
    device.hardware().leds = [1].into_iter().collect();
    device.hardware().state.keys = Bitmap::default();
    device.report(&[key(28, 0), Event::REPORT]);
    assert!(device.hardware().grabbed);
    let written = std::mem::take(&mut device.hardware().sent);
    assert_eq!(written, [lit, Event::REPORT]);
    assert!(device.sets(Event::new(EV_LED, 1, 0)));
    device.hardware().sent.clear();
    device.input.end();
    assert_eq!(device.hardware().sent, [lit, Event::REPORT]);

    // Nor does one that never gets the device.
    let mut device = TestDevice::keyboard();
    device.hardware().state.keys = [28].into_iter().collect();
    device.kick(EVENT_QUEUE);
    assert!(device.sets(lit));
    device.stop();
    assert_eq!(device.hardware().sent, []);
}
