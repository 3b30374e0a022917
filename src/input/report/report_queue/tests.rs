// SPDX-License-Identifier: Apache-2.0 OR MIT

use crate::input::protocol::AbsInfo;
use crate::input::protocol::event_codes::{ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_LED};

use super::*;

fn keyboard() -> DeviceInfo {
    let mut device = DeviceInfo::default();
    device.codes.insert(EV_KEY, (0..256).collect());
    device.codes.insert(EV_MSC, [4].into_iter().collect());
    device
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

/// All events that the guest is sent now.
fn send_all(reports: &mut ReportQueue) -> Vec<Event> {
    let mut sent = Vec::new();
    while reports.next_report().is_some() {
        sent.extend(reports.next_events(1));
        reports.sent(1);
    }
    assert_eq!(reports.waiting.events(), 0);
    sent
}

#[test]
fn report_is_sent_once_it_is_whole() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.push_events(&[key(30, 1)]);
    assert_eq!(reports.next_report(), None);
    reports.push_events(&[key(31, 1), Event::REPORT, key(30, 0)]);
    assert_eq!(reports.next_report(), Some(3));
    assert_eq!(
        send_all(&mut reports),
        [key(30, 1), key(31, 1), Event::REPORT]
    );
    reports.push_events(&[Event::REPORT]);
    assert_eq!(send_all(&mut reports), [key(30, 0), Event::REPORT]);
}

#[test]
fn events_that_are_not_for_the_guest_are_left_out() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.push_events(&[
        Event::new(EV_LED, 0, 1),
        Event::REPORT,
        Event::new(0x17, 0, 1),
        Event::REPORT,
    ]);
    assert_eq!(reports.next_report(), None);
}

#[test]
fn autorepeat_is_left_to_guests_that_have_it() {
    let repeated = [
        Event::new(EV_MSC, 4, 30),
        key(30, 2),
        Event::new(EV_SYN, 0, 1),
    ];
    let mut device = keyboard();
    let mut reports = ReportQueue::new(&device);
    reports.push_events(&repeated);
    assert_eq!(
        send_all(&mut reports),
        [Event::new(EV_MSC, 4, 30), key(30, 2), Event::REPORT]
    );
    device.codes.insert(EV_REP, [0, 1].into_iter().collect());
    let mut reports = ReportQueue::new(&device);
    reports.push_events(&repeated);
    assert_eq!(send_all(&mut reports), []);
    reports.push_events(&[key(30, 2), key(31, 1), Event::REPORT]);
    assert_eq!(send_all(&mut reports), [key(31, 1), Event::REPORT]);
}

#[test]
fn full_queue_drops_whole_reports_and_corrects_them() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.push_events(&[key(30, 1), Event::REPORT]);
    // Key 29 is pressed and released over and over; then key 30 is released and key 42 pressed.
    for n in 0..5000 {
        reports.push_events(&[key(29, n % 2), Event::REPORT]);
        assert!(reports.waiting.events() <= MAX_WAITING);
    }
    reports.push_events(&[key(30, 0), key(42, 1), Event::REPORT]);
    let sent = send_all(&mut reports);
    assert_eq!(sent.len(), MAX_WAITING + 4);
    assert_eq!(sent[..2], [key(30, 1), Event::REPORT]);
    // The reports before the bound are sent in order.
    for (n, report) in sent[2..MAX_WAITING].chunks(2).enumerate() {
        assert_eq!(report, [key(29, n as i32 % 2), Event::REPORT]);
    }
    // 511 of them: key 29 is up. The correction is one report, and the difference.
    let correction = [key(30, 0), key(29, 1), key(42, 1), Event::REPORT];
    assert_eq!(sent[MAX_WAITING..], correction);
    assert_eq!(reports.take_dropped(), 5002 - MAX_WAITING as u64 / 2);
    assert_eq!(reports.take_dropped(), 0);
    reports.push_events(&[key(42, 0), Event::REPORT]);
    assert_eq!(send_all(&mut reports), [key(42, 0), Event::REPORT]);
}

#[test]
fn dropped_events_are_corrected() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.push_events(&[key(30, 1), Event::REPORT, key(31, 1)]);
    assert_eq!(send_all(&mut reports), [key(30, 1), Event::REPORT]);
    reports.push_events(&[
        Event::new(EV_SYN, SYN_DROPPED, 0),
        key(99, 1),
        Event::REPORT,
        key(98, 1),
        Event::REPORT,
    ]);
    assert!(reports.is_out_of_sync());
    assert_eq!(reports.next_report(), None);
    let mut state = DeviceState::new(0);
    state.apply(&key(98, 1));
    reports.recover(Some(state));
    assert!(!reports.is_out_of_sync());
    assert_eq!(
        send_all(&mut reports),
        [key(30, 0), key(98, 1), Event::REPORT]
    );
}

#[test]
fn endless_report_is_not_kept() {
    let mut reports = ReportQueue::new(&keyboard());
    for n in 0..100_000u32 {
        reports.push_events(&[key((n % 200) as u16, 1)]);
        assert!(reports.partial.len() <= MAX_REPORT);
    }
    reports.push_events(&[Event::REPORT]);
    assert_eq!(send_all(&mut reports).len(), 201);
    assert_eq!(reports.states.guest(), reports.states.device());
    assert_eq!(reports.take_dropped(), 1);
}

#[test]
fn paused_guest_keeps_its_state() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.guest_got_device(DeviceState::new(0));
    reports.push_events(&[key(30, 1), Event::REPORT, key(31, 1), Event::REPORT]);
    assert_eq!(reports.next_events(1), [key(30, 1)]);
    reports.sent(1);
    // Paused in the middle of a report: what was not sent is not kept.
    reports.guest_lost_device();
    assert_eq!(reports.next_report(), None);
    reports.guest_got_device(DeviceState::new(0));
    assert_eq!(send_all(&mut reports), [key(30, 0), Event::REPORT]);
}

/// Random keys, contacts and pauses of the driver: the guest is told whole reports, and
/// when it has kept up it knows the state that the device is in.
#[test]
fn guest_always_reaches_the_devices_state() {
    let mut device = keyboard();
    let slots = AbsInfo {
        max: 4,
        ..Default::default()
    };
    device.axes.insert(ABS_MT_SLOT, slots);
    // xorshift64: the same numbers each time.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    let mut reports = ReportQueue::new(&device);
    let (mut real, mut guest) = (DeviceState::new(5), DeviceState::new(5));
    let (mut dropped, mut reread) = (0, 0);
    for round in 0..20_000 {
        let mut report = Vec::new();
        let middle = random(6);
        let mut read = real.clone();
        for _ in 0..random(6) {
            let value = random(3) as i32 - 1;
            report.push(match random(4) {
                0 => key(random(256) as u16, value & 1),
                1 => Event::new(EV_ABS, ABS_MT_SLOT, random(5) as i32),
                2 => Event::new(EV_ABS, ABS_MT_TRACKING_ID, value * random(9) as i32),
                _ => Event::new(EV_ABS, 0x35, random(1000) as i32),
            });
        }
        // A contact's id is -1 or none of the other negative numbers.
        for (n, event) in (0..).zip(&mut report) {
            if event.code == ABS_MT_TRACKING_ID {
                event.value = event.value.max(-1);
            }
            real.apply(event);
            if n < middle {
                read.apply(event);
            }
        }
        report.push(Event::REPORT);
        match random(500) {
            0 => {
                // The kernel loses this report, and the one before may have been cut.
                reports.push_events(&[key(1, 1), Event::new(EV_SYN, SYN_DROPPED, 0)]);
                reports.push_events(&report);
                reports.recover(Some(real.clone()));
            }
            1 => {
                // In the middle of the report.
                reports.guest_lost_device();
                reports.guest_got_device(read);
                reports.caught_up();
                reports.push_events(&report);
            }
            _ => reports.push_events(&report),
        }
        reports.caught_up();
        if reports.is_out_of_sync() {
            reread += 1;
            reports.recover(Some(real.clone()));
        }
        // For a while the driver takes nothing.
        if round % 4000 < 2000 {
            for _ in 0..random(12) {
                if reports.next_report().is_some() {
                    guest.apply(reports.next_events(1).first().expect("a report has events"));
                    reports.sent(1);
                }
            }
        }
        if round % 4000 == 3999 {
            dropped += reports.take_dropped();
            let sent = send_all(&mut reports);
            assert!(sent.last().is_none_or(Event::ends_report));
            for event in &sent {
                guest.apply(event);
            }
            assert_eq!(guest, real);
        }
    }
    assert!(dropped > 100, "{dropped}");
    assert!(reread > 0);
}

#[test]
fn gone_device_finishes_its_report_and_releases_everything() {
    let mut reports = ReportQueue::new(&keyboard());
    reports.push_events(&[
        key(30, 1),
        Event::REPORT,
        key(31, 1),
        key(32, 1),
        Event::REPORT,
    ]);
    for _ in 0..3 {
        reports.sent(1);
    }
    reports.push_events(&[key(33, 1), Event::REPORT, key(34, 1)]);
    reports.release_all();
    assert_eq!(
        send_all(&mut reports),
        [
            key(32, 1),
            Event::REPORT,
            key(30, 0),
            key(31, 0),
            key(32, 0),
            Event::REPORT
        ]
    );
}

/// A touch screen with `slots` slots.
fn touch_screen(slots: i32) -> DeviceInfo {
    let mut device = DeviceInfo::default();
    let axis = AbsInfo {
        max: slots - 1,
        ..Default::default()
    };
    device.axes.insert(ABS_MT_SLOT, axis);
    device
}

fn slot(slot: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_SLOT, slot)
}

fn contact(id: i32) -> Event {
    Event::new(EV_ABS, ABS_MT_TRACKING_ID, id)
}

fn after(state: &DeviceState, events: &[Event]) -> DeviceState {
    let mut state = state.clone();
    for event in events {
        state.apply(event);
    }
    state
}

/// The report lifts the contact in slot 0 and begins one in slot 1; the state is read when both were
/// reported and the report was not ended.
#[test]
fn slot_read_in_the_middle_of_a_report_is_not_trusted() {
    let touched = after(&DeviceState::new(2), &[slot(0), contact(7)]);
    let report = [contact(-1), slot(1), contact(8)];
    let early = after(&touched, &report);
    for lost in [false, true] {
        let mut reports = ReportQueue::new(&touch_screen(2));
        if lost {
            reports.guest_got_device(touched.clone());
            reports.push_events(&[Event::new(EV_SYN, SYN_DROPPED, 0)]);
            reports.recover(Some(early.clone()));
        } else {
            reports.guest_got_device(early.clone());
        }
        let mut guest = after(&DeviceState::new(2), &send_all(&mut reports));
        reports.caught_up();
        reports.push_events(&report);
        reports.push_events(&[Event::REPORT]);
        assert!(reports.is_out_of_sync());
        reports.recover(Some(early.clone()));
        guest = after(&guest, &send_all(&mut reports));
        assert_eq!(guest, early);
        assert_eq!(reports.take_dropped(), u64::from(lost));
        // What comes now is the guest's again.
        reports.push_events(&[contact(-1), Event::REPORT]);
        assert_eq!(send_all(&mut reports), [contact(-1), Event::REPORT]);
    }
}

/// As above, in a report that was queued as a whole before the state was read.
#[test]
fn slot_read_after_a_queued_report_is_not_trusted() {
    let touched = after(&DeviceState::new(2), &[slot(0), contact(7)]);
    let queued = [
        contact(-1),
        Event::REPORT,
        slot(1),
        contact(8),
        Event::REPORT,
    ];
    let mut reports = ReportQueue::new(&touch_screen(2));
    reports.guest_got_device(after(&touched, &queued));
    // A part of them.
    reports.push_events(&queued[..2]);
    assert!(!reports.is_out_of_sync());
    reports.push_events(&queued[2..]);
    assert!(reports.is_out_of_sync());
}
