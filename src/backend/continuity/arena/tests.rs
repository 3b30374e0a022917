// SPDX-License-Identifier: Apache-2.0 OR MIT

use crate::backend::continuity::{Continuity, Descriptors, Owner, RecordKey};

fn begin() -> (Continuity, [std::os::fd::OwnedFd; 4]) {
    let descriptors = Descriptors::create().unwrap();
    let kept = descriptors.named().map(|(_, fd)| fd.try_clone().unwrap());
    (Continuity::begin("test", descriptors).unwrap(), kept)
}

#[test]
fn extents_outlive_the_process_and_are_freed_after_a_commit() {
    let (first, kept) = begin();
    let arena = first.arena(1 << 20).unwrap().unwrap();
    let ledger = first.ledger(Owner::Device);
    let mut a = arena.allocate(5000).unwrap();
    let mut b = arena.allocate(1).unwrap();
    assert_eq!((a.offset(), b.offset(), a.len()), (0, 8192, 5000));
    a.fill(1);
    b.fill(2);
    drop(a);
    // Not free before the commit.
    let c = arena.allocate(5000).unwrap();
    assert_eq!(c.offset(), 12288);
    drop(c);
    ledger.put(RecordKey::new(1, 1), b"x");
    ledger.commit();
    let d = arena.allocate(8192).unwrap();
    assert_eq!(d.offset(), 0);
    assert!(d.iter().all(|byte| *byte == 0));
    std::mem::forget((b, d));
    drop(first);
    let second = Continuity::resume("test", Descriptors::from_kept(kept));
    let second = second.unwrap().unwrap();
    let arena = second.arena(1 << 20).unwrap().unwrap();
    let b = arena.adopt(8192, 1).unwrap();
    assert_eq!(*b, [2]);
    for (offset, len) in [
        (8192, 1),
        (4096, 4097),
        (1, 1),
        (16 << 20, 1),
        (0, 0),
        (u64::MAX, 1),
    ] {
        assert!(arena.adopt(offset, len).is_none(), "{offset} {len}");
    }
    assert!(arena.allocate(17 << 20).is_none());
    // A huge page begins there.
    let large = arena.allocate(8 << 20).unwrap();
    assert_eq!(large.offset(), 2 << 20);
    let between = [4096, 2 << 20].map(|len| arena.allocate(len).unwrap().offset());
    assert_eq!(between, [0, 10 << 20]);
    assert!(second.arena(2 << 20).is_err());
}

#[test]
fn allocation_is_zeroed_after_a_predecessor_wrote_there() {
    let (first, kept) = begin();
    let arena = first.arena(1 << 20).unwrap().unwrap();
    arena.allocate(4096).unwrap().fill(9);
    std::mem::forget(arena);
    let second = Continuity::resume("test", Descriptors::from_kept(kept));
    let second = second.unwrap().unwrap();
    let arena = second.arena(1 << 20).unwrap().unwrap();
    assert!(arena.allocate(4096).unwrap().iter().all(|byte| *byte == 0));
}

#[test]
fn collapsed_extents_have_their_bytes() {
    let (first, kept) = begin();
    let arena = first.arena(8 << 20).unwrap().unwrap();
    let mut extent = arena.allocate((6 << 20) + 5000).unwrap();
    assert_eq!(extent.as_ptr().align_offset(2 << 20), 0);
    for (n, bytes) in extent.chunks_mut(1000).enumerate() {
        bytes.fill(n as u8);
    }
    let before = extent.to_vec();
    extent.collapse();
    assert!(*extent == *before);
    let (offset, len) = (extent.offset(), extent.len());
    std::mem::forget(extent);
    drop(first);
    let second = Continuity::resume("test", Descriptors::from_kept(kept));
    let arena = second.unwrap().unwrap().arena(8 << 20).unwrap().unwrap();
    let left = arena.adopt(offset, len).unwrap();
    left.collapse();
    assert!(*left == *before);
    // Where nothing was written, and where no huge page fits.
    arena.allocate(2 << 20).unwrap().collapse();
    arena.allocate(4096).unwrap().collapse();
}
