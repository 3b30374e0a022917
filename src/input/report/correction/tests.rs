// SPDX-License-Identifier: Apache-2.0 OR MIT

use crate::input::protocol::event_codes::ABS_MT_FIRST;

use super::*;

const ABS_X: u16 = 0;
const ABS_MT_X: u16 = 0x35;

fn abs(code: u16, value: i32) -> Event {
    Event::new(EV_ABS, code, value)
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

fn after(state: &DeviceState, events: &[Event]) -> DeviceState {
    let mut state = state.clone();
    for event in events {
        state.apply(event);
    }
    state
}

/// The reports that bring a guest from `guest` to `device`, checked to do so.
fn checked_correction(guest: &DeviceState, device: &DeviceState) -> Vec<Vec<Event>> {
    let reports = correction(guest, device, false);
    let mut reached = after(guest, &reports.concat());
    for (reached, truth) in reached
        .touch
        .contacts
        .iter_mut()
        .zip(&device.touch.contacts)
    {
        // Values that are not known of the device may stay.
        reached
            .values
            .retain(|axis, _| truth.values.contains_key(axis));
    }
    assert_eq!(&reached, device);
    for report in &reports {
        assert_eq!(report.iter().filter(|event| event.ends_report()).count(), 1);
        assert!(report.last().is_some_and(Event::ends_report));
    }
    reports
}

#[test]
fn equal_states_need_no_report() {
    let state = after(&DeviceState::new(2), &[key(30, 1), abs(ABS_X, 5)]);
    assert_eq!(checked_correction(&state, &state), Vec::<Vec<Event>>::new());
}

#[test]
fn correction_sets_keys_switches_and_axes() {
    let guest = after(
        &DeviceState::new(0),
        &[
            key(30, 1),
            key(31, 1),
            Event::new(EV_SW, 0, 1),
            abs(ABS_X, 5),
        ],
    );
    let device = after(
        &DeviceState::new(0),
        &[
            key(31, 1),
            key(700, 1),
            Event::new(EV_SW, 5, 1),
            abs(ABS_X, -5),
        ],
    );
    let expected = vec![
        key(30, 0),
        key(700, 1),
        Event::new(EV_SW, 0, 0),
        Event::new(EV_SW, 5, 1),
        abs(ABS_X, -5),
        Event::REPORT,
    ];
    assert_eq!(checked_correction(&guest, &device), [expected]);
}

#[test]
fn correction_ends_contacts_and_selects_the_devices_slot() {
    let touched = [
        abs(ABS_MT_SLOT, 0),
        abs(ABS_MT_TRACKING_ID, 7),
        abs(ABS_MT_X, 100),
        abs(ABS_MT_SLOT, 1),
        abs(ABS_MT_TRACKING_ID, 8),
        abs(ABS_MT_X, 200),
    ];
    let guest = after(&DeviceState::new(3), &touched);
    let lifted = [
        abs(ABS_MT_SLOT, 0),
        abs(ABS_MT_TRACKING_ID, -1),
        abs(ABS_MT_SLOT, 1),
        abs(ABS_MT_X, 250),
        abs(ABS_MT_SLOT, 2),
    ];
    let device = after(&guest, &lifted);
    let expected = vec![
        abs(ABS_MT_SLOT, 0),
        abs(ABS_MT_TRACKING_ID, -1),
        abs(ABS_MT_SLOT, 1),
        abs(ABS_MT_X, 250),
        abs(ABS_MT_SLOT, 2),
        Event::REPORT,
    ];
    assert_eq!(checked_correction(&guest, &device), [expected]);
}

#[test]
fn contact_in_anothers_slot_begins_after_the_other_ended() {
    let begin = [abs(ABS_MT_SLOT, 0), abs(ABS_MT_TRACKING_ID, 7)];
    let guest = after(&DeviceState::new(1), &begin);
    let device = after(&guest, &[abs(ABS_MT_TRACKING_ID, 9), abs(ABS_MT_FIRST, 3)]);
    let ended = vec![abs(ABS_MT_TRACKING_ID, -1), Event::REPORT];
    let begun = vec![
        abs(ABS_MT_TRACKING_ID, 9),
        abs(ABS_MT_FIRST, 3),
        Event::REPORT,
    ];
    assert_eq!(checked_correction(&guest, &device), [ended, begun]);
}

#[test]
fn guest_in_doubt_is_told_everything_again() {
    let touched = [
        key(30, 1),
        key(31, 1),
        abs(ABS_X, 5),
        abs(ABS_MT_SLOT, 0),
        abs(ABS_MT_TRACKING_ID, 7),
        abs(ABS_MT_X, 100),
        abs(ABS_MT_SLOT, 1),
        abs(ABS_MT_TRACKING_ID, 8),
    ];
    let guest = after(&DeviceState::new(2), &touched);
    let device = after(&guest, &[key(31, 0), abs(ABS_MT_TRACKING_ID, -1)]);
    let guest = guest.assumed_guest_state(&device);
    let expected = vec![
        key(31, 0),
        key(30, 1),
        abs(ABS_X, 5),
        abs(ABS_MT_SLOT, 0),
        abs(ABS_MT_TRACKING_ID, 7),
        abs(ABS_MT_X, 100),
        abs(ABS_MT_SLOT, 1),
        abs(ABS_MT_TRACKING_ID, -1),
        Event::REPORT,
    ];
    assert_eq!(checked_correction(&guest, &device), [expected]);
}

#[test]
fn correction_of_a_type_a_device_has_no_contacts() {
    let state = DeviceState::new(0);
    let expected = vec![Event::new(EV_SYN, SYN_MT_REPORT, 0), Event::REPORT];
    assert_eq!(correction(&state, &state, true), [expected]);
}
