// SPDX-License-Identifier: Apache-2.0 OR MIT

use crate::backend::continuity::{Continuity, Descriptors, Owner, RecordKey};

fn begin() -> (Continuity, [std::os::fd::OwnedFd; 4]) {
    let descriptors = Descriptors::create().unwrap();
    let kept = descriptors.named().map(|(_, fd)| fd.try_clone().unwrap());
    (Continuity::begin("test", descriptors).unwrap(), kept)
}

fn resume(kept: &[std::os::fd::OwnedFd; 4]) -> Continuity {
    let kept = kept.each_ref().map(|fd| fd.try_clone().unwrap());
    let next = Continuity::resume("test", Descriptors::from_kept(kept));
    next.unwrap().unwrap()
}

#[test]
fn lists_outlive_the_process_where_they_were_written() {
    let (first, kept) = begin();
    let arena = first.arena(1 << 20).unwrap().unwrap();
    let mut list = arena.list::<u64>(1000).unwrap();
    assert!(list.is_empty());
    assert!((0..1000).all(|n| list.push(n * n)));
    assert!(!list.push(1), "it is full");
    let mut short = arena.list::<u32>(1000).unwrap();
    assert!(short.push(7));
    let at = short.place();
    short.shrink();
    assert!(!short.push(8), "it has given its room back");
    // The next one lies behind what it has.
    let empty = arena.list::<u64>(0).unwrap();
    assert_eq!([list.place(), at, empty.place()], [0, 8000, 8064]);
    std::mem::forget((list, short, empty));
    drop(first);
    let second = resume(&kept);
    let arena = second.arena(1 << 20).unwrap().unwrap();
    let list = arena.adopt_list::<u64>(0, 1000).unwrap();
    assert!(list.iter().copied().eq((0..1000).map(|n| n * n)));
    assert_eq!(*arena.adopt_list::<u32>(at, 1).unwrap(), [7]);
    assert!(arena.adopt_list::<u64>(8064, 0).unwrap().is_empty());
    for (place, len) in [
        (0, 1),
        (1, 1),
        (64 * 8000, usize::MAX),
        (u64::MAX - 63, 1),
        (2 << 30, 1),
        ((2 << 30) - 64, 9),
    ] {
        let list = arena.adopt_list::<u64>(place, len);
        assert!(list.is_none(), "{place} {len}");
    }
    assert!(arena.list::<u64>(1 << 40).is_none());
    // Extents are elsewhere.
    assert_eq!(arena.allocate(1).unwrap().offset(), 0);
}

/// A list that a record which is valid names is not written over.
#[test]
fn place_of_a_list_is_free_after_the_commit() {
    let (first, _kept) = begin();
    let arena = first.arena(1 << 20).unwrap().unwrap();
    let ledger = first.ledger(Owner::Device);
    let place = |count| arena.list::<u64>(count).unwrap().place();
    drop(arena.list::<u64>(8).unwrap());
    assert_eq!(place(8), 64, "a record may name the first");
    ledger.put(RecordKey::new(1, 1), b"x");
    ledger.commit();
    assert_eq!(place(8), 0);
}

/// The memory of large lists goes back to the host, that of small ones is written again soon.
#[test]
fn memory_of_lists_is_given_back() {
    let (first, kept) = begin();
    let taken = || rustix::fs::fstat(&kept[0]).unwrap().st_blocks * 512;
    let arena = first.arena(1 << 20).unwrap().unwrap();
    let ledger = first.ledger(Owner::Device);
    let fill = |count: u64| {
        let mut list = arena.list::<u64>(count as usize).unwrap();
        assert!((0..count).all(|n| list.push(n)));
        list
    };
    let before = taken();
    let [one, two] = [100_001, 400_000].map(fill);
    let all = taken();
    assert!(all >= before + 4_000_000, "{all}");
    drop(two);
    ledger.commit();
    assert!(taken() <= all - 3_100_000, "{}", taken());
    assert!(one.iter().copied().eq(0..100_001), "its page is shared");
    drop(one);
    ledger.commit();
    let left = taken() - before;
    assert!((200_000..=262_144 + 4096).contains(&left), "{left}");
}
