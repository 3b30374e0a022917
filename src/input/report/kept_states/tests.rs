// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::backend::continuity::value::testing::assert_version;
use crate::input::device_state::NO_CONTACT;
use crate::input::protocol::event_codes::{
    ABS_MT_SLOT, ABS_MT_TRACKING_ID, EV_ABS, EV_KEY, EV_MSC, EV_REL, EV_SW,
};
use crate::input::records::testing::KeptRecords;

const SLOTS: usize = 3;

/// What changes a state, and what does not.
fn event(number: u64) -> Event {
    let small = (number / 9 % 50) as u16;
    let value = number as i32;
    match number % 9 {
        0 => Event::new(EV_KEY, small * 15, value / 9 % 2),
        1 => Event::new(EV_SW, small % 16, value / 9 % 2),
        2 => Event::new(EV_ABS, small % 0x18, value),
        3 => Event::new(EV_ABS, ABS_MT_SLOT, value % 4),
        4 => Event::new(EV_ABS, ABS_MT_TRACKING_ID, value % 5 - 1),
        5 => Event::new(EV_ABS, 0x35, value),
        6 => Event::new(EV_REL, 0, value),
        7 => Event::new(EV_MSC, 4, value),
        _ => Event::new(EV_ABS, 0x36, -value),
    }
}

fn load(kept: &KeptRecords) -> KeptStates {
    KeptStates::load(SLOTS, kept.ledger()).unwrap()
}

/// Both states are those that a successor of a process that records, commits and dies now has.
#[track_caller]
fn outlive(states: &mut KeptStates, kept: &mut KeptRecords) {
    states.record();
    kept.ledger().commit();
    let left = KeptStates::load(SLOTS, kept.successor()).unwrap();
    assert_eq!(left.device(), states.device());
    assert_eq!(left.guest(), states.guest());
    *states = left;
}

#[test]
fn successor_has_both_states_whoever_is_ahead() {
    let mut kept = KeptRecords::new();
    let mut states = load(&kept);
    let mut expected = [DeviceState::new(SLOTS), DeviceState::new(SLOTS)];
    let mut sent = 0;
    for step in 0..1000u64 {
        let from = step * 7;
        for number in from..from + 7 {
            states.device_reports(&[event(number)]);
            expected[0].apply(&event(number));
        }
        // The guest takes all at once, is some events late, or takes nothing for long.
        let until = match step % 100 {
            0..=40 => from + 7,
            41..=60 => from + 7 - step % 5,
            61..=90 => sent,
            _ => (sent + 31).min(from + 7),
        };
        for number in sent..until {
            states.guest_gets(&[event(number)]);
            expected[1].apply(&event(number));
        }
        sent = sent.max(until);
        // A process records more often than it dies.
        match step % 3 {
            0 => outlive(&mut states, &mut kept),
            _ => states.record(),
        }
        assert_eq!([states.device(), states.guest()], expected.each_ref());
    }
    assert!(states.next > 10 * MAX_CHANGES);
}

#[test]
fn what_is_not_recorded_yet_is_no_state() {
    let mut kept = KeptRecords::new();
    let mut states = load(&kept);
    for number in 0..90 {
        states.device_reports(&[event(number)]);
        states.guest_gets(&[event(number)]);
        outlive(&mut states, &mut kept);
    }
    let committed = states.device().clone();
    states.device_reports(&[Event::new(EV_KEY, 30, 1)]);
    states.record();
    let left = KeptStates::load(SLOTS, kept.successor()).unwrap();
    assert_eq!(left.device(), &committed);
    assert!(!left.device().keys.contains(30));
}

#[test]
fn successor_has_a_state_that_was_set_or_released() {
    let mut kept = KeptRecords::new();
    let mut states = load(&kept);
    let mut set = DeviceState::new(SLOTS);
    set.keys.set(31, true);
    set.axes.insert(1, 5);
    for round in 0..100 {
        let from = round * 40;
        for number in from..from + 40 {
            states.device_reports(&[event(number)]);
            if round % 3 == 0 {
                states.guest_gets(&[event(number)]);
            }
        }
        match round % 4 {
            0 => states.set_device(set.clone()),
            1 => states.release_device(),
            _ => {}
        }
        states.device_reports(&[event(from)]);
        outlive(&mut states, &mut kept);
    }
    states.device_reports(&[Event::new(EV_ABS, ABS_MT_SLOT, 0)]);
    states.device_reports(&[Event::new(EV_ABS, ABS_MT_TRACKING_ID, 9)]);
    states.release_device();
    outlive(&mut states, &mut kept);
    assert_eq!(states.device().touch.contacts[0].id, NO_CONTACT);
}

#[test]
fn more_events_than_a_record_has_are_recorded_as_parts() {
    let mut kept = KeptRecords::new();
    let mut states = load(&kept);
    for count in [MAX_EVENTS, MAX_EVENTS + 1, 3 * MAX_EVENTS] {
        for value in 0..count {
            states.device_reports(&[Event::new(EV_ABS, 0, value as i32)]);
        }
        outlive(&mut states, &mut kept);
        assert_eq!(states.device().axes[&0], count as i32 - 1);
    }
    let of_events = kept.ledger().table(tables::STATE_CHANGES);
    assert_eq!(of_events.len(), 1);
}

/// A report that is sent at once costs one record of it.
#[test]
fn report_has_one_record_for_both_states() {
    let kept = KeptRecords::new();
    let mut states = load(&kept);
    let before = kept.ledger().written();
    for code in [0x35, 0x36] {
        let event = Event::new(EV_ABS, code, 7);
        states.device_reports(&[Event::new(EV_ABS, ABS_MT_SLOT, 1)]);
        states.guest_gets(&[Event::new(EV_ABS, ABS_MT_SLOT, 1)]);
        states.device_reports(&[event]);
        states.guest_gets(&[event]);
    }
    states.record();
    let header = 16;
    let value = 8 + 1 + 4 * Event::SIZE as u64;
    let entry = (header + value).next_multiple_of(8);
    assert_eq!(kept.ledger().written() - before, entry);
    // What changes nothing has none.
    states.device_reports(&[Event::new(EV_REL, 0, 1)]);
    states.record();
    assert_eq!(kept.ledger().written() - before, entry);
}

#[test]
fn changes_that_no_process_wrote_are_refused() {
    let change = |number: u64, whose: u8, events: &[u8]| {
        [&number.to_le_bytes()[..], &[whose], events].concat()
    };
    let event = Event::new(EV_ABS, 0, 7).to_bytes();
    let first = |kept: &KeptRecords, first: u64| {
        kept.ledger().put(PARTS, &first.to_le_bytes());
    };
    let put = |kept: &KeptRecords, id: u64, value: &[u8]| {
        let key = RecordKey::new(tables::STATE_CHANGES, id);
        kept.ledger().put(key, value);
    };
    for (id, value) in [
        (0, change(0, 0, &event)),
        (0, change(0, 4, &event)),
        (0, change(0, 1, &event[1..])),
        (1, change(0, 1, &event)),
        // The one before is missing.
        (1, change(1, 1, &event)),
        (64, change(64, 1, &event)),
        (0, vec![0; 8]),
    ] {
        let kept = KeptRecords::new();
        put(&kept, id, &value);
        let left = KeptStates::load(SLOTS, kept.ledger());
        assert!(left.is_err(), "{id} {value:?}");
    }
    // Those that are in the parts do not count, and numbers do not end.
    let kept = KeptRecords::new();
    first(&kept, u64::MAX);
    put(&kept, 62, &change(u64::MAX - 1, 1, &event));
    put(&kept, 63, &change(u64::MAX, 2, &event));
    put(
        &kept,
        0,
        &change(0, 3, &Event::new(EV_ABS, 1, 8).to_bytes()),
    );
    let mut left = KeptStates::load(SLOTS, kept.ledger()).unwrap();
    assert_eq!(left.next, 1);
    assert_eq!(left.device().axes, [(1, 8)].into());
    assert_eq!(left.guest().axes, [(0, 7), (1, 8)].into());
    left.device_reports(&[Event::new(EV_ABS, 2, 9)]);
    left.record();
    let left = KeptStates::load(SLOTS, kept.ledger()).unwrap();
    assert_eq!(left.device().axes, [(1, 8), (2, 9)].into());
}

#[test]
fn records_are_written_as_this_version_does() {
    let kept = KeptRecords::new();
    let mut states = load(&kept);
    for number in 0..5 * MAX_CHANGES {
        states.device_reports(&[event(number)]);
        if number % 2 == 0 {
            states.guest_gets(&[event(number)]);
        }
        states.record();
    }
    let records = kept.ledger().table(tables::STATE_CHANGES).into_iter();
    let bytes = records.flat_map(|(id, value)| [id.to_le_bytes().to_vec(), value].concat());
    let parts = kept.ledger().get(PARTS).unwrap();
    let bytes = bytes.chain(parts).collect::<Vec<u8>>();
    assert_version(&bytes, (3, 0x9518_31af_f5aa_f305));
}
