// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtqueues whose device's process dies.

use vhost_user_backend::VringT;
use virtio_queue::QueueT;

use super::*;
use crate::backend::continuity::{InvalidRecord, Ledger, Owner, RecordKey, ValueError, Work};
use crate::backend::testing::driver::{Driver, guest_memory};
use crate::backend::testing::kept_state::KeptState;

const BASE: u64 = 0x1_0000;

fn next_ledger(state: &mut KeptState) -> Ledger {
    state.next_process().unwrap().ledger(Owner::Device)
}

/// A driver of a device whose first process begins.
fn begin(state: &mut KeptState, memory: &GuestMemory) -> (Driver, Ledger) {
    let driver = Driver::new(memory, BASE, 4);
    let ledger = next_ledger(state);
    let positions = Positions::new(ledger.clone());
    driver.vring.keep(0, &positions).unwrap();
    positions.replay_done();
    (driver, ledger)
}

/// The process dies, and the next one begins.
fn kill(state: &mut KeptState, driver: &mut Driver) -> Ledger {
    let ledger = next_ledger(state);
    driver.resume(&Positions::new(ledger.clone()));
    ledger
}

/// Takes a request and gives it back with `len`.
fn give_back(pass: &mut QueuePass<'_>, len: u32) {
    let chain = pass.pop().unwrap().expect("there is a request");
    pass.add_used(chain.head_index(), len);
}

/// Takes a request and does it.
fn serve(pass: &mut QueuePass<'_>, len: u32) {
    give_back(pass, len);
    pass.commit();
}

#[test]
fn request_and_its_records_are_done_at_once() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, ledger) = begin(&mut state, &memory);
    let key = RecordKey::new(16, 1);
    for _ in 0..2 {
        driver.offer(&[(8, true)]);
    }
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    ledger.put(key, b"first");
    give_back(&mut pass, 1);
    pass.commit_changes();
    // The second one is executed, and the process dies before it is given back.
    pass.pop().unwrap().unwrap();
    ledger.put(key, b"second");
    let ledger = kill(&mut state, &mut driver);
    assert_eq!(ledger.get(key).unwrap(), b"first");
    assert_eq!((driver.take_used(), driver.calls()), (vec![(0, 1)], 1));
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    assert_eq!(pass.available().ok(), Some(1));
    serve(&mut pass, 2);
    pass.flush_used().unwrap();
    assert_eq!((driver.take_used(), driver.calls()), (vec![(1, 2)], 1));
}

/// Each process is killed before it publishes the request.
#[test]
fn processes_that_do_a_request_are_followed_by_others() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let mut driver = Driver::new(&memory, BASE, 4);
    for round in 0..40 {
        let continuity = state.successor().unwrap();
        let positions = Positions::new(continuity.ledger(Owner::Device));
        match round {
            0 => driver.vring.keep(0, &positions).unwrap(),
            _ => driver.resume(&positions),
        }
        driver.take_used();
        driver.offer(&[(8, true)]);
        continuity.begin_work(Work::Event(0));
        let vring = driver.vring.clone();
        serve(&mut QueuePass::begin(&vring, &memory).unwrap(), 1);
    }
}

/// They are executed again from the state before the first of them.
#[test]
fn requests_between_two_commits_are_done_together() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, ledger) = begin(&mut state, &memory);
    for _ in 0..4 {
        driver.offer(&[(8, true)]);
    }
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    serve(&mut pass, 1);
    // Neither has a record.
    give_back(&mut pass, 2);
    pass.commit_changes();
    give_back(&mut pass, 3);
    pass.commit_changes();
    let key = RecordKey::new(16, 1);
    ledger.put(key, b"of the fourth");
    let ledger = kill(&mut state, &mut driver);
    assert_eq!((ledger.get(key), driver.take_used()), (None, vec![(0, 1)]));
    assert_eq!(driver.vring.next_available(), 1);
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    for n in 2..=3 {
        give_back(&mut pass, n);
    }
    ledger.put(key, b"of the fourth");
    give_back(&mut pass, 4);
    pass.commit_changes();
    let ledger = kill(&mut state, &mut driver);
    assert_eq!(ledger.get(key).unwrap(), b"of the fourth");
    assert_eq!(driver.take_used(), [(1, 2), (2, 3), (3, 4)]);
}

#[test]
fn every_request_is_done_once_wherever_the_process_dies() {
    let memory = guest_memory();
    for event_idx in [false, true] {
        let mut state = KeptState::new().unwrap();
        let (mut driver, _) = begin(&mut state, &memory);
        driver.about_to_wrap();
        driver.vring.set_queue_event_idx(event_idx);
        let mut expected = Vec::new();
        let mut seen = Vec::new();
        for round in 0..1000_u32 {
            let count = 1 + round % 4;
            for n in 0..count {
                let head = driver.offer(&[(8, true)]);
                expected.push((u32::from(head), round * 8 + n));
            }
            let mut served = 0;
            let mut done = 0;
            let mut dies = round % 7 < 2;
            while served < count {
                let vring = driver.vring.clone();
                let mut pass = QueuePass::begin(&vring, &memory).unwrap();
                while let Some(chain) = pass.pop().unwrap() {
                    // More may be taken than are done, as long as the order stays.
                    let ahead = pass.pop().unwrap();
                    pass.add_used(chain.head_index(), round * 8 + served);
                    served += 1;
                    if round % 2 == 0 {
                        pass.commit();
                        done = served;
                    }
                    if std::mem::take(&mut dies) {
                        break;
                    }
                    if let Some(chain) = ahead {
                        pass.add_used(chain.head_index(), round * 8 + served);
                        served += 1;
                    }
                }
                match served < count {
                    true => {
                        kill(&mut state, &mut driver);
                        served = done;
                    }
                    false => pass.flush_used().unwrap(),
                }
                if round % 5 == 0 {
                    driver.calls();
                    kill(&mut state, &mut driver);
                    assert_eq!(driver.calls(), 1, "round {round}");
                }
            }
            seen.extend(driver.take_used());
            driver.calls();
        }
        assert_eq!(seen, expected, "event_idx {event_idx}");
    }
}

#[test]
fn undone_pop_is_not_recorded() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, _) = begin(&mut state, &memory);
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    for _ in 0..3 {
        pass.pop().unwrap().unwrap();
        pass.undo_pop();
    }
    serve(&mut pass, 3);
    kill(&mut state, &mut driver);
    assert_eq!(driver.take_used(), [(0, 3)]);
    assert_eq!(driver.vring.next_available(), 1);
}

#[test]
fn dropped_head_is_not_taken_again() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, _) = begin(&mut state, &memory);
    driver.make_available(4);
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    serve(&mut pass, 7);
    kill(&mut state, &mut driver);
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).unwrap();
    serve(&mut pass, 8);
    pass.flush_used().unwrap();
    assert_eq!(driver.take_used(), [(0, 8)]);
}

#[test]
fn what_the_front_end_sets_after_the_replay_holds() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, ledger) = begin(&mut state, &memory);
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    serve(&mut QueuePass::begin(&vring, &memory).unwrap(), 0);
    driver.vring.set_queue_ready(false);
    driver.vring.set_queue_next_avail(700);
    driver.vring.set_queue_next_used(600);
    ledger.commit();
    let at = |driver: &Driver| {
        let state = driver.vring.get_ref();
        let queue = state.get_queue();
        (queue.next_avail(), queue.next_used())
    };
    let ledger = kill(&mut state, &mut driver);
    assert_eq!(at(&driver), (700, 600));
    let position = Position {
        next_avail: 700,
        next_used: 600,
    };
    assert_eq!(Positions::new(ledger).get(0), Ok(Some(position)));
    // A new driver.
    driver.vring.set_queue_next_used(0);
    driver.vring.set_queue_next_avail(0);
    assert_eq!(at(&driver), (0, 0));
}

#[test]
fn nothing_is_owed_to_a_new_driver() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, _) = begin(&mut state, &memory);
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    serve(&mut QueuePass::begin(&vring, &memory).unwrap(), 0);
    // The successor is told of a stopped virtqueue, and then of a new driver's.
    let positions = Positions::new(next_ledger(&mut state));
    let vring: Vring = Vring::new(memory.clone(), 256).unwrap();
    vring.keep(0, &positions).unwrap();
    positions.replay_done();
    vring.set_queue_size(4);
    vring
        .set_queue_info(BASE, BASE + 0x1000, BASE + 0x2000)
        .unwrap();
    vring.set_queue_next_used(0);
    vring.set_queue_next_avail(0);
    vring.set_queue_ready(true);
    assert_eq!(driver.take_used(), []);
}

/// The front-end asks where the virtqueue is, and goes on from there with another process.
#[test]
fn virtqueue_that_is_stopped_again_shows_what_was_done() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (mut driver, _) = begin(&mut state, &memory);
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    serve(&mut QueuePass::begin(&vring, &memory).unwrap(), 5);
    for is_stopped_again in [false, true] {
        let positions = Positions::new(next_ledger(&mut state));
        let vring: Vring = Vring::new(memory.clone(), 256).unwrap();
        vring.keep(0, &positions).unwrap();
        vring.set_queue_size(4);
        vring
            .set_queue_info(BASE, BASE + 0x1000, BASE + 0x2000)
            .unwrap();
        if is_stopped_again {
            positions.stops_again(0);
        }
        positions.replay_done();
        vring.set_queue_ready(false);
        // One that was stopped before may have no driver any more.
        let shown = if is_stopped_again {
            vec![(0, 5)]
        } else {
            vec![]
        };
        assert_eq!(driver.take_used(), shown);
        assert_eq!(vring.queue_next_avail(), 1);
    }
}

#[test]
fn positions_that_are_damaged_are_refused() {
    let mut state = KeptState::new().unwrap();
    let ledger = next_ledger(&mut state);
    let vring: Vring = Vring::new(guest_memory(), 256).unwrap();
    for (value, error) in [
        (&[][..], ValueError::TooShort),
        (&[2, 0, 3], ValueError::TooShort),
        (&[2, 0, 3, 0, 0], ValueError::TooLong),
    ] {
        let key = RecordKey::new(1, 0);
        ledger.put(key, value);
        let positions = Positions::new(ledger.clone());
        let error = PositionError::from(InvalidRecord::new(key, error));
        assert_eq!(positions.get(0), Err(error));
        assert_eq!(vring.keep(0, &positions), Err(error));
    }
}

#[test]
fn ring_outside_the_memory_does_not_end_a_successor() {
    let memory = guest_memory();
    let mut state = KeptState::new().unwrap();
    let (driver, _) = begin(&mut state, &memory);
    driver.vring.set_queue_next_used(9);
    let positions = Positions::new(next_ledger(&mut state));
    positions.put(0, Position::default());
    let vring: Vring = Vring::new(memory.clone(), 256).unwrap();
    vring.keep(0, &positions).unwrap();
    for used in [u64::MAX - 3, 0x9_0000, 0] {
        vring.set_queue_info(BASE, BASE + 0x1000, used).unwrap();
        vring.set_queue_ready(true);
        vring.set_queue_ready(false);
    }
}
