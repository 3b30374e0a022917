// SPDX-License-Identifier: Apache-2.0 OR MIT

use vm_memory::{Bytes, GuestMemoryAtomic, GuestMemoryMmap};

use super::*;
use crate::backend::testing::driver::{Driver, guest_memory};

const BASE: u64 = 0x1_0000;

fn begin<'a>(driver: &'a Driver, memory: &GuestMemory) -> QueuePass<'a> {
    QueuePass::begin(&driver.vring, memory).expect("the queue is started and enabled")
}

/// Takes `count` requests and completes them with their number in the pass.
fn add_used(ring: &mut QueuePass<'_>, count: u32) {
    for n in 0..count {
        let chain = ring.pop().unwrap().expect("there is a request");
        ring.add_used(chain.head_index(), n);
    }
}

#[test]
fn pass_begins_only_on_a_started_and_enabled_queue() {
    let memory = guest_memory();
    let driver = Driver::new(&memory, BASE, 4);
    driver.vring.set_enabled(false);
    assert!(QueuePass::begin(&driver.vring, &memory).is_none());
    driver.vring.set_enabled(true);
    assert!(QueuePass::begin(&driver.vring, &memory).is_some());
    driver.vring.set_queue_ready(false);
    assert!(QueuePass::begin(&driver.vring, &memory).is_none());
}

#[test]
fn used_buffers_are_published_at_once_with_one_notification() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    let heads: Vec<u16> = (0..3).map(|_| driver.offer(&[(8, true)])).collect();
    let vring = driver.vring.clone();
    let mut ring = QueuePass::begin(&vring, &memory).expect("the queue is usable");
    assert_eq!(ring.available().ok(), Some(3));
    add_used(&mut ring, 3);
    assert_eq!(ring.available().ok(), Some(0));
    assert!(ring.pop().unwrap().is_none());
    assert_eq!((driver.take_used(), driver.calls()), (vec![], 0));
    ring.flush_used().expect("the ring is sound");
    let used = (0..).zip(heads).map(|(n, head)| (u32::from(head), n));
    assert_eq!(driver.take_used(), used.collect::<Vec<_>>());
    assert_eq!(driver.calls(), 1);
    // Nothing more to show.
    ring.flush_used().expect("the ring is sound");
    assert_eq!((driver.take_used(), driver.calls()), (vec![], 0));
}

#[test]
fn indices_wrap() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    driver.about_to_wrap();
    for _ in 0..3 {
        driver.offer(&[(8, true)]);
    }
    let vring = driver.vring.clone();
    let mut ring = QueuePass::begin(&vring, &memory).expect("the queue is usable");
    assert_eq!(ring.available().ok(), Some(3));
    add_used(&mut ring, 3);
    ring.flush_used().expect("the ring is sound");
    assert_eq!(driver.take_used(), [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(driver.calls(), 1);
}

/// Each of two drivers offers the same, and one device takes many at once.
#[test]
fn requests_served_many_at_once_are_given_back_as_one_by_one() {
    let memory = guest_memory();
    for size in [4_u16, 128] {
        let mut drivers = [BASE, 2 * BASE].map(|base| Driver::new(&memory, base, size));
        drivers.iter_mut().for_each(Driver::about_to_wrap);
        for round in 0..u32::from(size) * 3 {
            let offered = 1 + round as u16 % size;
            let mut seen = Vec::new();
            for (driver, many) in drivers.iter_mut().zip([true, false]) {
                for n in 0..offered {
                    match n % 7 {
                        // No request has this head. It takes a place in the ring of those that are available.
                        5 => driver.make_available(size),
                        _ => drop(driver.offer(&[(8, true)])),
                    }
                }
                let vring = driver.vring.clone();
                let mut pass = QueuePass::begin(&vring, &memory).expect("the queue is usable");
                let wanted = offered.saturating_sub(round as u16 % 3);
                let mut n = 0;
                if many {
                    let served = pass.serve_next(wanted, |chain, _| {
                        n += 1;
                        n * 2 + u32::from(chain.head_index() >= size)
                    });
                    assert_eq!(served.ok(), Some(wanted));
                } else {
                    for _ in 0..wanted {
                        let chain = pass.pop().unwrap().expect("there is a request");
                        n += 1;
                        pass.add_used(chain.head_index(), n * 2);
                    }
                }
                // The rest of them.
                while let Some(chain) = pass.pop().unwrap() {
                    pass.add_used(chain.head_index(), 1);
                }
                pass.flush_used().expect("the ring is sound");
                assert_eq!(n, u32::from(wanted));
                seen.push((
                    driver.take_used(),
                    driver.calls(),
                    driver.vring.next_available(),
                ));
            }
            assert_eq!(seen[0], seen[1], "round {round} of a queue of {size}");
        }
    }
}

#[test]
fn fewer_requests_than_wanted_are_served() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 8);
    let serve = |driver: &Driver, count| {
        let mut n = 0;
        let served = begin(driver, &memory).serve_next(count, |_, _| {
            n += 1;
            8
        });
        (served.ok(), n)
    };
    assert_eq!(serve(&driver, 5), (Some(0), 0));
    for _ in 0..3 {
        driver.offer(&[(8, true)]);
    }
    assert_eq!(serve(&driver, 5), (Some(3), 3));
    // The front-end is stopping it.
    driver.offer(&[(8, true)]);
    let vring = driver.vring.clone();
    let mut pass = QueuePass::begin(&vring, &memory).expect("the queue is usable");
    vring.set_queue_ready(false);
    assert_eq!(pass.serve_next(1, |_, _| 8).ok(), Some(0));
    vring.set_queue_ready(true);
    // The driver takes requests back that the pass has seen.
    for _ in 0..3 {
        driver.offer(&[(8, true)]);
    }
    let mut pass = QueuePass::begin(&vring, &memory).expect("the queue is usable");
    assert_eq!(pass.available().ok(), Some(4));
    driver.set_available(5);
    let mut n = 0;
    let served = pass.serve_next(4, |_, _| {
        n += 1;
        8
    });
    assert!(served.is_err() && n == 2, "{served:?} {n}");
    pass.flush_used().expect("the ring is sound");
    assert_eq!(driver.take_used().len(), 5);
}

#[test]
fn driver_without_interrupts_gets_no_notification() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    driver.refuse_calls();
    driver.offer(&[(8, true)]);
    let mut ring = begin(&driver, &memory);
    add_used(&mut ring, 1);
    ring.flush_used().expect("the ring is sound");
    assert_eq!(driver.calls(), 0);
}

#[test]
fn event_idx_notifies_once_used_event_is_passed() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 8);
    driver.vring.set_queue_event_idx(true);
    // Refused by flag, which has no meaning with EVENT_IDX.
    driver.refuse_calls();
    driver.want_call_after(2);
    for (count, calls) in [(2, 0), (2, 1), (1, 0)] {
        for _ in 0..count {
            driver.offer(&[(8, true)]);
        }
        let mut ring = begin(&driver, &memory);
        add_used(&mut ring, count);
        ring.flush_used().expect("the ring is sound");
        assert_eq!(driver.calls(), calls);
    }
}

#[test]
fn undone_pop_is_taken_again() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    let head = driver.offer(&[(8, true)]);
    let mut ring = begin(&driver, &memory);
    assert_eq!(driver.vring.next_available(), 0);
    assert!(ring.pop().unwrap().is_some());
    assert_eq!(driver.vring.next_available(), 1);
    ring.undo_pop();
    drop(ring);
    let mut ring = begin(&driver, &memory);
    let again = ring.pop().unwrap().map(|chain| chain.head_index());
    assert_eq!(again, Some(head));
}

#[test]
fn requests_that_cannot_be_taken_are_an_error() {
    // At address 0 `virtio-queue` takes a ring for one that was never set up. Were there nothing
    // to do instead, the requests would still be announced, and looked for without an end.
    let low = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x9_0000)]);
    let memory = GuestMemoryAtomic::new(low.expect("cannot map memory"));
    let driver = Driver::new(&memory, BASE, 4);
    let used = BASE + 0x2000;
    let at_zero = driver.vring.set_queue_info(BASE, 0, used);
    at_zero.expect("the addresses are aligned");
    let one = memory.memory().write_obj(1_u16.to_le(), GuestAddress(2));
    one.expect("the ring lies in memory");
    let mut ring = begin(&driver, &memory);
    assert_eq!(ring.available().ok(), Some(1));
    assert!(ring.pop().is_err());
}

#[test]
fn queue_stopped_during_a_pass_has_no_more_requests() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    driver.offer(&[(8, true)]);
    let mut ring = begin(&driver, &memory);
    driver.vring.set_queue_ready(false);
    assert!(ring.pop().is_ok_and(|chain| chain.is_none()));
}

#[test]
fn kicks_are_enabled_and_disabled() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    begin(&driver, &memory)
        .disable_notification()
        .expect("the ring is sound");
    assert!(!driver.kicks_wanted());
    let more = begin(&driver, &memory).enable_notification();
    assert_eq!((more.ok(), driver.kicks_wanted()), (Some(false), true));
    driver.offer(&[(8, true)]);
    let mut ring = begin(&driver, &memory);
    ring.disable_notification().expect("the ring is sound");
    assert_eq!(ring.enable_notification().ok(), Some(true));
    // One request is there, but two are needed.
    assert_eq!(ring.enable_notification_for_more(1).ok(), Some(false));
    assert_eq!(ring.enable_notification_for_more(0).ok(), Some(true));
    assert_eq!(ring.available().ok(), Some(1));
}

#[test]
fn event_idx_asks_for_the_kick_after_the_requests_seen() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    driver.vring.set_queue_event_idx(true);
    driver.offer(&[(8, true)]);
    driver.offer(&[(8, true)]);
    let mut ring = begin(&driver, &memory);
    assert_eq!(ring.enable_notification_for_more(2).ok(), Some(false));
    assert_eq!(driver.kick_wanted_at(), 2);
    assert!(ring.pop().unwrap().is_some());
    assert_eq!(ring.enable_notification_for_more(1).ok(), Some(false));
    assert_eq!(driver.kick_wanted_at(), 2);
}

#[test]
fn broken_ring_is_an_error() {
    let memory = guest_memory();
    let mut driver = Driver::new(&memory, BASE, 4);
    driver.set_available(5);
    let mut ring = begin(&driver, &memory);
    assert!(ring.available().is_err());
    assert!(ring.pop().is_err());
    drop(ring);
    // A head that the queue does not have.
    driver.set_available(0);
    driver.make_available(4);
    let mut ring = begin(&driver, &memory);
    let mut chain = ring.pop().unwrap().expect("the head is not looked at yet");
    assert!(chain.next().is_none());
    ring.add_used(chain.head_index(), 0);
    ring.add_used(1, 0);
    ring.flush_used().expect("the other request is sound");
    drop(ring);
    assert_eq!(driver.take_used(), [(1, 0)]);
    // Rings that do not lie in memory as a whole.
    let end = 0x9_0000;
    let at = |avail, used| driver.vring.set_queue_info(BASE, avail, used);
    at(end - 6, BASE + 0x2000).expect("the addresses are aligned");
    assert!(begin(&driver, &memory).available().is_err());
    at(BASE + 0x1000, end - 8).expect("the addresses are aligned");
    let mut ring = begin(&driver, &memory);
    ring.add_used(0, 0);
    assert!(ring.flush_used().is_err());
    at(BASE + 0x1000, u64::MAX - 3).expect("the addresses are aligned");
    let mut ring = begin(&driver, &memory);
    ring.add_used(0, 0);
    ring.add_used(1, 0);
    assert!(ring.flush_used().is_err());
    assert!(ring.enable_notification().is_err());
}
