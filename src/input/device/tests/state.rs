// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest reaches the state that the device is in.

use super::*;

#[test]
fn state_is_read_after_the_kernel_dropped_events() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(1..3));
    assert_eq!(device.received(), presses(1..3));
    device.hardware().state.keys = [2, 9].into_iter().collect();
    let mut lost = vec![key(7, 1), Event::new(EV_SYN, SYN_DROPPED, 0)];
    lost.extend(presses(100..150));
    device.report(&lost);
    assert_eq!(device.received(), [key(1, 0), key(9, 1), Event::REPORT]);
}

/// A device with a guest, which has a contact in slot 0.
fn touched() -> TestDevice {
    let mut device = TestDevice::idle(64);
    for event in [slot(0), contact(7)] {
        device.hardware().state.apply(&event);
    }
    device.offer(64);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), [slot(0), contact(7), Event::REPORT]);
    device
}

#[test]
fn slot_read_in_the_middle_of_a_report_is_read_again() {
    let mut device = touched();
    // The state is read when this was reported, and before it was the report's end.
    let report = [contact(-1), slot(1), contact(8)];
    for event in &report {
        device.hardware().state.apply(event);
    }
    device.report(&[Event::new(EV_SYN, SYN_DROPPED, 0), Event::REPORT]);
    let corrected = [contact(-1), slot(1), contact(8), Event::REPORT];
    assert_eq!(device.received(), corrected);
    // In slot 1 this would end the contact that has just begun.
    device.report(&report);
    device.report(&[Event::REPORT]);
    assert_eq!(device.received(), []);
    let next = [contact(-1), Event::REPORT];
    device.report(&next);
    assert_eq!(device.received(), next);
}

#[test]
fn slot_that_contacts_return_to_is_not_read_again() {
    // Reads that are full and not full tell in different ways that nothing more is queued.
    let mut full: Vec<_> = (0..6).map(|id| contact(20 + id)).collect();
    full.push(Event::REPORT);
    for queued in [&[contact(20), Event::REPORT][..], &full] {
        let mut device = touched();
        device.report(queued);
        assert_eq!(device.received(), queued);
        let back = [contact(10), slot(1), contact(8), slot(0), contact(11)];
        for report in [&[contact(9)][..], &back] {
            let report = [report, &[Event::REPORT]].concat();
            device.report(&report);
            assert_eq!(device.received(), report);
        }
    }
}

#[test]
fn guest_stopped_with_a_key_pressed_resumes_with_it_released() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(30..31));
    assert_eq!(device.received(), presses(30..31));
    device.events.vring.set_queue_ready(false);
    device.input.stop_vring(0).expect("a queue can be stopped");
    device.events.vring.set_queue_ready(true);
    device.kick(EVENT_QUEUE);
    assert_eq!(device.received(), [key(30, 0), Event::REPORT]);
}
