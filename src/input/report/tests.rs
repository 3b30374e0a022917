use super::super::wire::Axis;
use super::super::wire::code::{ABS_MT_SLOT, ABS_MT_TRACKING_ID};
use super::*;

fn keyboard() -> Description {
    let mut device = Description::default();
    device.codes.insert(EV_KEY, (0..256).collect());
    device.codes.insert(EV_MSC, [4].into_iter().collect());
    device
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

/// All that the guest is told now.
fn told(reports: &mut Reports) -> Vec<Event> {
    let mut told = Vec::new();
    while reports.next_report().is_some() {
        told.extend(reports.next_event());
        reports.sent();
    }
    assert_eq!(reports.waiting_events, 0);
    told
}

#[test]
fn a_report_goes_out_once_it_is_whole() {
    let mut reports = Reports::new(&keyboard());
    reports.take(&[key(30, 1)]);
    assert_eq!(reports.next_report(), None);
    reports.take(&[key(31, 1), Event::REPORT, key(30, 0)]);
    assert_eq!(reports.next_report(), Some(3));
    assert_eq!(told(&mut reports), [key(30, 1), key(31, 1), Event::REPORT]);
    reports.take(&[Event::REPORT]);
    assert_eq!(told(&mut reports), [key(30, 0), Event::REPORT]);
}

#[test]
fn what_is_not_for_the_guest_is_left_out() {
    let mut reports = Reports::new(&keyboard());
    reports.take(&[
        Event::new(super::super::wire::code::EV_LED, 0, 1),
        Event::REPORT,
        Event::new(0x17, 0, 1),
        Event::REPORT,
    ]);
    assert_eq!(reports.next_report(), None);
}

#[test]
fn the_guest_repeats_keys_itself_where_it_knows_how() {
    let repeated = [
        Event::new(EV_MSC, 4, 30),
        key(30, 2),
        Event::new(EV_SYN, 0, 1),
    ];
    let mut device = keyboard();
    let mut reports = Reports::new(&device);
    reports.take(&repeated);
    assert_eq!(
        told(&mut reports),
        [Event::new(EV_MSC, 4, 30), key(30, 2), Event::REPORT]
    );
    device.codes.insert(EV_REP, [0, 1].into_iter().collect());
    let mut reports = Reports::new(&device);
    reports.take(&repeated);
    assert_eq!(told(&mut reports), []);
    reports.take(&[key(30, 2), key(31, 1), Event::REPORT]);
    assert_eq!(told(&mut reports), [key(31, 1), Event::REPORT]);
}

#[test]
fn too_many_reports_are_dropped_whole_and_corrected() {
    let mut reports = Reports::new(&keyboard());
    reports.take(&[key(30, 1), Event::REPORT]);
    // Key 29 goes down and up for ever; then key 30 goes up and key 42 down.
    for n in 0..5000 {
        reports.take(&[key(29, n % 2), Event::REPORT]);
        assert!(reports.waiting_events <= MAX_WAITING);
    }
    reports.take(&[key(30, 0), key(42, 1), Event::REPORT]);
    let told = told(&mut reports);
    assert_eq!(told.len(), MAX_WAITING + 4);
    assert_eq!(told[..2], [key(30, 1), Event::REPORT]);
    // What was told first was every report in its order.
    for (n, report) in told[2..MAX_WAITING].chunks(2).enumerate() {
        assert_eq!(report, [key(29, n as i32 % 2), Event::REPORT]);
    }
    // 511 of them: key 29 is up. The correction is one report, and the difference.
    let correction = [key(30, 0), key(29, 1), key(42, 1), Event::REPORT];
    assert_eq!(told[MAX_WAITING..], correction);
    assert_eq!(reports.take_dropped(), 5002 - MAX_WAITING as u64 / 2);
    assert_eq!(reports.take_dropped(), 0);
    reports.take(&[key(42, 0), Event::REPORT]);
    assert_eq!(
        super::tests::told(&mut reports),
        [key(42, 0), Event::REPORT]
    );
}

#[test]
fn what_the_kernel_lost_is_corrected() {
    let mut reports = Reports::new(&keyboard());
    reports.take(&[key(30, 1), Event::REPORT, key(31, 1)]);
    assert_eq!(told(&mut reports), [key(30, 1), Event::REPORT]);
    reports.take(&[
        Event::new(EV_SYN, SYN_DROPPED, 0),
        key(99, 1),
        Event::REPORT,
        key(98, 1),
        Event::REPORT,
    ]);
    assert!(reports.lost());
    assert_eq!(reports.next_report(), None);
    let mut truth = State::new(0);
    truth.apply(&key(98, 1));
    reports.recover(Some(truth));
    assert!(!reports.lost());
    assert_eq!(told(&mut reports), [key(30, 0), key(98, 1), Event::REPORT]);
}

#[test]
fn a_report_without_end_is_not_kept() {
    let mut reports = Reports::new(&keyboard());
    for n in 0..100_000u32 {
        reports.take(&[key((n % 200) as u16, 1)]);
        assert!(reports.partial.len() <= MAX_REPORT);
    }
    reports.take(&[Event::REPORT]);
    assert_eq!(told(&mut reports).len(), 201);
    assert_eq!(reports.told, reports.truth);
    assert_eq!(reports.take_dropped(), 1);
}

#[test]
fn a_guest_that_is_paused_keeps_its_belief() {
    let mut reports = Reports::new(&keyboard());
    reports.begin(State::new(0));
    reports.take(&[key(30, 1), Event::REPORT, key(31, 1), Event::REPORT]);
    assert_eq!(reports.next_event(), Some(key(30, 1)));
    reports.sent();
    // Paused in the middle of a report: what was not sent is not kept.
    reports.end();
    assert_eq!(reports.next_report(), None);
    reports.begin(State::new(0));
    assert_eq!(told(&mut reports), [key(30, 0), Event::REPORT]);
}

/// Random keys, contacts and pauses of the driver: what the guest is told are whole reports, and
/// when it has kept up it knows the state that the device is in.
#[test]
fn whatever_happens_the_guest_ends_in_the_true_state() {
    let mut device = keyboard();
    let slots = Axis {
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
    let mut reports = Reports::new(&device);
    let (mut real, mut guest) = (State::new(5), State::new(5));
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
                reports.take(&[key(1, 1), Event::new(EV_SYN, SYN_DROPPED, 0)]);
                reports.take(&report);
                reports.recover(Some(real.clone()));
            }
            1 => {
                // In the middle of the report.
                reports.end();
                reports.begin(read);
                reports.caught_up();
                reports.take(&report);
            }
            _ => reports.take(&report),
        }
        reports.caught_up();
        if reports.lost() {
            reread += 1;
            reports.recover(Some(real.clone()));
        }
        // For a while the driver takes nothing.
        if round % 4000 < 2000 {
            for _ in 0..random(12) {
                if reports.next_report().is_some() {
                    guest.apply(&reports.next_event().expect("a report has events"));
                    reports.sent();
                }
            }
        }
        if round % 4000 == 3999 {
            dropped += reports.take_dropped();
            let told = told(&mut reports);
            assert!(told.last().is_none_or(Event::ends_report));
            for event in &told {
                guest.apply(event);
            }
            assert_eq!(guest, real);
        }
    }
    assert!(dropped > 100, "{dropped}");
    assert!(reread > 0);
}

#[test]
fn when_the_device_is_gone_a_report_is_finished_and_all_let_go() {
    let mut reports = Reports::new(&keyboard());
    reports.take(&[
        key(30, 1),
        Event::REPORT,
        key(31, 1),
        key(32, 1),
        Event::REPORT,
    ]);
    for _ in 0..3 {
        reports.sent();
    }
    reports.take(&[key(33, 1), Event::REPORT, key(34, 1)]);
    reports.gone();
    assert_eq!(
        told(&mut reports),
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
fn touch_screen(slots: i32) -> Description {
    let mut device = Description::default();
    let axis = Axis {
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

fn after(state: &State, events: &[Event]) -> State {
    let mut state = state.clone();
    for event in events {
        state.apply(event);
    }
    state
}

/// The report lifts the contact in slot 0 and begins one in slot 1; the state is read when both were
/// reported and the report was not ended.
#[test]
fn a_slot_that_was_read_in_the_middle_of_a_report_is_not_believed() {
    let touched = after(&State::new(2), &[slot(0), contact(7)]);
    let report = [contact(-1), slot(1), contact(8)];
    let early = after(&touched, &report);
    for lost in [false, true] {
        let mut reports = Reports::new(&touch_screen(2));
        if lost {
            reports.begin(touched.clone());
            reports.take(&[Event::new(EV_SYN, SYN_DROPPED, 0)]);
            reports.recover(Some(early.clone()));
        } else {
            reports.begin(early.clone());
        }
        let mut guest = after(&State::new(2), &told(&mut reports));
        reports.caught_up();
        reports.take(&report);
        reports.take(&[Event::REPORT]);
        assert!(reports.lost());
        reports.recover(Some(early.clone()));
        guest = after(&guest, &told(&mut reports));
        assert_eq!(guest, early);
        assert_eq!(reports.take_dropped(), u64::from(lost));
        // What comes now is the guest's again.
        reports.take(&[contact(-1), Event::REPORT]);
        assert_eq!(told(&mut reports), [contact(-1), Event::REPORT]);
    }
}

/// As above, in a report that was queued as a whole before the state was read.
#[test]
fn a_slot_that_was_read_after_a_queued_report_is_not_believed() {
    let touched = after(&State::new(2), &[slot(0), contact(7)]);
    let queued = [
        contact(-1),
        Event::REPORT,
        slot(1),
        contact(8),
        Event::REPORT,
    ];
    let mut reports = Reports::new(&touch_screen(2));
    reports.begin(after(&touched, &queued));
    // A part of them.
    reports.take(&queued[..2]);
    assert!(!reports.lost());
    reports.take(&queued[2..]);
    assert!(reports.lost());
}
