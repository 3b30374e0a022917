// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reports in the event queue: buffers, notifications, bounds.

use crate::input::device::event_queue::MAX_REPORTS;

use super::*;

#[test]
fn report_is_one_update_and_one_notification() {
    let mut device = TestDevice::running(64);
    device.offer(64);
    device.report(&presses(1..6));
    assert_eq!(device.received(), presses(1..6));
    assert_eq!(device.events.calls(), 1);
    // Several that were read at once share both.
    let mut reports = presses(6..8);
    reports.extend(presses(8..9));
    device.report(&reports);
    assert_eq!(device.received(), reports);
    assert_eq!(device.events.calls(), 1);
}

#[test]
fn report_longer_than_the_queue_is_sent_in_parts() {
    let mut device = TestDevice::running(4);
    device.offer(4);
    device.kick(EVENT_QUEUE);
    let mut all = presses(1..20);
    device.report(&all);
    device.report(&presses(30..31));
    all.extend(presses(30..31));
    let mut received = device.received();
    assert_eq!(received.len(), 4);
    while received.len() < all.len() {
        assert!(device.events.kicks_wanted());
        device.offer(4);
        device.kick(EVENT_QUEUE);
        let part = device.received();
        assert!(!part.is_empty());
        received.extend(part);
    }
    assert_eq!(received, all);
    device.kick(EVENT_QUEUE);
    assert!(!device.events.kicks_wanted());
}

#[test]
fn report_that_fits_waits_for_all_its_buffers() {
    for event_idx in [false, true] {
        let mut device = TestDevice::running(4);
        device.events.vring.set_queue_event_idx(event_idx);
        device.offer(4);
        device.report(&presses(1..3));
        assert_eq!(device.received(), presses(1..3));
        // One buffer is left, which is less than the next report needs.
        device.report(&presses(3..5));
        assert_eq!(device.received(), []);
        device.offer(1);
        device.kick(EVENT_QUEUE);
        assert_eq!(device.received(), []);
        if event_idx {
            assert_eq!(device.events.kick_wanted_at(), 5);
        }
        device.offer(1);
        device.kick(EVENT_QUEUE);
        assert_eq!(device.received(), presses(3..5));
    }
}

#[test]
fn driver_that_never_fills_its_queue_gets_its_reports() {
    let mut device = TestDevice::running(64);
    device.offer(2);
    let all = presses(1..6);
    device.report(&all);
    let mut received = device.received();
    for _ in 0..2 {
        assert_eq!(received.len() % 2, 0);
        device.offer(2);
        device.kick(EVENT_QUEUE);
        received.extend(device.received());
    }
    assert_eq!(received, all);
}

#[test]
fn buffers_of_any_shape_are_used_and_useless_ones_returned() {
    let mut device = TestDevice::running(64);
    let sevenfold = device.events.offer(&[
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
    device.events.offer(&[(7, true)]);
    device.events.offer(&[(8, false)]);
    device.events.offer(&[(0, true)]);
    device.events.offer_indirect(&[(4, true), (4, true)]);
    let wild = device.events.offer(&[(8, true)]);
    device
        .events
        .write(0x1_0000 + u64::from(wild) * 16, &u64::MAX.to_le_bytes());
    device.events.make_available(999);
    device.offer(1);
    device.report(&presses(1..3));
    let used = device.events.take_used();
    assert_eq!(used.first(), Some(&(u32::from(sevenfold), 8)));
    let bytes: Vec<u8> = [0, 2, 4, 5, 6, 7]
        .into_iter()
        .flat_map(|part| {
            device
                .events
                .read::<1>(device.events.buffer(sevenfold + part))
        })
        .collect();
    assert_eq!(bytes, key(1, 1).to_bytes()[..6]);
    let lengths: Vec<u32> = used.iter().map(|used| used.1).collect();
    assert_eq!(lengths, [8, 0, 0, 0, 8, 0, 8]);
    for (used, event) in used.into_iter().skip(4).step_by(2).zip(&presses(1..3)[1..]) {
        let at = device.events.buffer(used.0 as u16);
        assert_eq!(device.events.read(at), event.to_bytes());
    }
}

#[test]
fn slow_driver_reaches_the_devices_state() {
    let mut device = TestDevice::running(4);
    device.offer(4);
    device.report(&[key(30, 1), Event::REPORT]);
    for n in 0..3000 {
        device.report(&[key(31, n % 2), Event::REPORT]);
    }
    let touch = Event::new(EV_ABS, ABS_MT_TRACKING_ID, 5);
    let slot = Event::new(EV_ABS, ABS_MT_SLOT, 3);
    device.report(&[key(30, 0), slot, touch, Event::REPORT]);
    let mut guest = DeviceState::new(5);
    let mut last = Vec::new();
    loop {
        let received = device.received();
        if received.is_empty() {
            break;
        }
        for event in &received {
            guest.apply(event);
        }
        device.offer(received.len());
        last.extend(received);
        device.kick(EVENT_QUEUE);
    }
    let mut truth = DeviceState::new(5);
    for event in [key(31, 1), slot, touch] {
        truth.apply(&event);
    }
    assert_eq!(guest, truth);
    assert!(last.ends_with(&[Event::REPORT]));
    assert!(last.len() < 1100);
}

#[test]
fn pass_is_bounded_and_continues_later() {
    let mut device = TestDevice::running(256);
    device.offer(256);
    let mut all = Vec::new();
    for _ in 0..100 {
        all.extend(presses(1..2));
    }
    device.hardware().readable.extend(&all);
    device.handle(SOURCE);
    assert_eq!(device.received().len(), 2 * MAX_REPORTS);
    assert!(device.continues());
    device.handle(WAKE);
    assert_eq!(device.received().len(), 200 - 2 * MAX_REPORTS);
    assert!(!device.continues());
    for _ in 0..256 {
        device.status.offer(&[(8, false)]);
    }
    device.kick(STATUS_QUEUE);
    assert_eq!(device.status.take_used().len(), 256);
    assert!(device.continues());
    device.handle(WAKE);
    assert!(!device.continues());
}

#[test]
fn broken_queue_does_no_harm() {
    let mut device = TestDevice::running(4);
    device.events.set_available(100);
    device.status.set_available(100);
    for _ in 0..10 {
        device.report(&presses(1..2));
        device.kick(EVENT_QUEUE);
        device.kick(STATUS_QUEUE);
    }
    assert!(!device.continues());
    assert_eq!(device.events.take_used(), []);
    // Queues that the device does not have.
    device.vrings.clear();
    device.kick(STATUS_QUEUE);
    device.handle(SOURCE);
}
