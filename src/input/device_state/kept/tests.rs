// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::backend::continuity::value::testing::assert_version;
use crate::input::device_state::{Contact, NO_CONTACT};
use crate::input::protocol::event_codes::ABS_MT_SLOT;
use crate::input::records::tables;
use crate::input::records::testing::KeptRecords;

const TABLE: u16 = tables::GUEST_STATE;
const SLOTS: usize = 3;

fn events() -> Vec<Event> {
    vec![
        Event::new(EV_KEY, 30, 1),
        Event::new(EV_KEY, 0x2ff, 1),
        Event::new(EV_KEY, 30, 0),
        Event::new(EV_SW, 5, 1),
        Event::new(EV_ABS, 0, -7),
        Event::new(EV_ABS, ABS_MT_SLOT, 2),
        Event::new(EV_ABS, ABS_MT_TRACKING_ID, 40),
        Event::new(EV_ABS, 0x35, 100),
        Event::new(EV_ABS, ABS_MT_SLOT, 1),
        Event::new(EV_ABS, 0x36, 200),
        Event::new(EV_ABS, ABS_MT_TRACKING_ID, 41),
        Event::new(EV_ABS, ABS_MT_TRACKING_ID, NO_CONTACT),
        // Of slots that the device does not have.
        Event::new(EV_ABS, ABS_MT_SLOT, 0x1_0002),
        Event::new(EV_ABS, ABS_MT_TRACKING_ID, 42),
        Event::new(EV_KEY, u16::MAX, 1),
        Event::new(EV_ABS, ABS_MT_SLOT, -1),
        Event::new(EV_ABS, ABS_MT_TRACKING_ID, 43),
        Event::REPORT,
    ]
}

#[test]
fn successor_has_the_state_after_each_event() {
    let mut kept = KeptRecords::new();
    let mut state = KeptState::load(SLOTS, &kept.ledger(), TABLE).unwrap();
    for event in events() {
        state.apply_changed(&event);
        state.record(&kept.ledger());
        kept.ledger().commit();
        let loaded = KeptState::load(SLOTS, &kept.successor(), TABLE).unwrap();
        assert_eq!(*loaded, *state, "{event:?}");
        state = loaded;
    }
    assert!(state.keys.contains(0x2ff) && state.touch.contacts[2].is_present());
    let records = kept.ledger().table(TABLE).into_iter();
    let bytes = records.flat_map(|(id, value)| [id.to_le_bytes().to_vec(), value].concat());
    assert_version(&bytes.collect::<Vec<u8>>(), (3, 0x0cd2_a63a_8e0c_c90d));
}

#[test]
fn successor_has_what_was_set_as_a_whole() {
    let mut kept = KeptRecords::new();
    let mut state = KeptState::load(SLOTS, &kept.ledger(), TABLE).unwrap();
    for event in events() {
        state.apply_changed(&event);
    }
    state.record(&kept.ledger());
    let mut other = DeviceState::new(SLOTS);
    other.axes.insert(1, 5);
    other.keys.set(30, true);
    other.touch.contacts[0] = Contact::new(9);
    state.set(other.clone());
    state.record(&kept.ledger());
    kept.ledger().commit();
    let mut state = KeptState::load(SLOTS, &kept.successor(), TABLE).unwrap();
    assert_eq!(*state, other);
    state.release_all();
    state.record(&kept.ledger());
    kept.ledger().commit();
    other.release_all();
    let state = KeptState::load(SLOTS, &kept.successor(), TABLE).unwrap();
    assert_eq!(*state, other);
}

#[test]
fn records_of_no_such_device_are_refused() {
    // The slot and three contacts without values.
    let touch =
        |last: &[u8]| [&[0xff; 4][..], &[0xff, 0xff, 0xff, 0xff, 0].repeat(2), last].concat();
    let bad: [(u64, &[u8]); 12] = [
        (Part::Keys(Bitmap::WORDS).id(), &[0; 8]),
        (Part::Keys(0).id(), &[0; 7]),
        (Part::Switches(0).id(), &[0; 9]),
        (Part::Axis(ABS_MAX + 1).id(), &[0; 4]),
        (Part::Axis(0).id(), &[0; 5]),
        (Part::Touch.id(), &[0xff, 0xff, 0xff, 0xfe]),
        (Part::Touch.id(), &touch(&[0; 4])),
        (Part::Touch.id(), &touch(&[0; 6])),
        (Part::Touch.id(), &touch(&[1, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0])),
        (
            Part::Touch.id(),
            &touch(&[1, 0, 0, 0, 1, 0x39, 0, 1, 0, 0, 0]),
        ),
        (Part::Touch.id() + 1, &touch(&[0; 5])),
        (4 << 32, &[0; 4]),
    ];
    let good = KeptRecords::new();
    let key = RecordKey::new(TABLE, Part::Touch.id());
    good.ledger()
        .put(key, &touch(&[1, 0, 0, 0, 1, 0x35, 0, 1, 0, 0, 0]));
    let good = KeptState::load(SLOTS, &good.ledger(), TABLE).unwrap();
    assert_eq!(good.touch.contacts[2].values[&0x35], 1);
    for (id, value) in bad {
        let kept = KeptRecords::new();
        kept.ledger().put(RecordKey::new(TABLE, id), value);
        assert!(
            KeptState::load(SLOTS, &kept.ledger(), TABLE).is_err(),
            "{id:#x}"
        );
    }
}
