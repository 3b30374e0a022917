// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tests of backings.

use vm_memory::Bytes;

use super::*;

fn memory() -> GuestMemoryMmap {
    let memory =
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000), (GuestAddress(0x10000), 0x1000)])
            .unwrap();
    for i in 0..0x1000_u32 {
        let byte = (i % 251) as u8;
        memory.write_obj(byte, GuestAddress(i.into())).unwrap();
        memory
            .write_obj(!byte, GuestAddress(0x10000 + u64::from(i)))
            .unwrap();
    }
    memory
}

fn budget() -> Budget {
    Budget::new(1 << 20)
}

fn backing_of(
    pieces: &[(u64, u32)],
    memory: &GuestMemoryMmap,
    budget: &Budget,
) -> Result<Backing, BackingError> {
    let mut backing = Backing::new(budget)?;
    backing.add(pieces.iter().copied().map(MemEntry::from), memory)?;
    backing.finish();
    Ok(backing)
}

#[test]
fn entries_are_read_in_order() {
    let memory = memory();
    let pieces = [(7, 3), (0x10005, 1), (100, 0), (20, 11), (0x10ff0, 16)];
    let backing = backing_of(&pieces, &memory, &budget()).unwrap();
    assert_eq!(backing.len(), 31);
    let mut whole = Vec::new();
    for (addr, len) in pieces {
        let mut piece = vec![0; len as usize];
        memory.read_slice(&mut piece, GuestAddress(addr)).unwrap();
        whole.extend(piece);
    }
    for start in 0..31 {
        for end in start..=31 {
            let mut part = vec![0; end - start];
            let mut reader = backing.reader(&memory);
            reader.seek(start as u64);
            reader.read(&mut part).unwrap();
            assert_eq!(part, whole[start..end]);
        }
    }
}

#[test]
fn readers_seek_anywhere() {
    let memory = memory();
    // 1 to 4 bytes each, in descending order.
    let pieces: Vec<_> = (0..200_u32)
        .map(|n| (u64::from(2000 - 4 * n), n % 4 + 1))
        .collect();
    let backing = backing_of(&pieces, &memory, &budget()).unwrap();
    let mut whole = Vec::new();
    for (addr, len) in pieces {
        let mut piece = vec![0; len as usize];
        memory.read_slice(&mut piece, GuestAddress(addr)).unwrap();
        whole.extend(piece);
    }
    let mut reader = backing.reader(&memory);
    // Farther each time, and finally back.
    for (step, len) in (0..whole.len()).zip([1, 7, 0, 100].into_iter().cycle()) {
        let at = step * step * 13 % (whole.len() - 100);
        reader.seek(at as u64);
        for at in [at, at + len]
            .into_iter()
            .take_while(|at| at + len < whole.len())
        {
            let mut part = vec![0; len];
            reader.read(&mut part).unwrap();
            assert_eq!(part, whole[at..at + len], "{len} at {at}");
        }
    }
}

#[test]
fn reads_beyond_the_end_fail() {
    let memory = memory();
    let backing = backing_of(&[(0, 16)], &memory, &budget()).unwrap();
    let mut bytes = [0; 8];
    for offset in [9, 16, u64::MAX] {
        let mut reader = backing.reader(&memory);
        reader.seek(offset);
        let result = reader.read(&mut bytes);
        assert!(matches!(result, Err(BackingError::Short { .. })));
    }
    let empty = backing_of(&[(5, 0)], &memory, &budget()).unwrap();
    assert_eq!(empty.len(), 0);
    assert!(empty.reader(&memory).read(&mut bytes).is_err());
    assert!(empty.reader(&memory).read(&mut []).is_ok());
}

#[test]
fn entries_outside_the_guests_memory_are_refused() {
    let memory = memory();
    for piece in [
        (0xfff, 2),
        (0x2000, 1),
        (u64::MAX, 1),
        (u64::MAX - 3, u32::MAX),
    ] {
        assert!(matches!(
            backing_of(&[(0, 16), piece], &memory, &budget()),
            Err(BackingError::Outside { .. })
        ));
    }
}

#[test]
fn reads_of_unmapped_memory_fail() {
    let backing = backing_of(&[(0x10000, 16)], &memory(), &budget()).unwrap();
    let less = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    assert!(matches!(
        backing.reader(&less).read(&mut [0; 4]),
        Err(BackingError::Unreadable(_))
    ));
}

#[test]
fn lists_are_charged_and_bounded_by_the_budget_alone() {
    let memory = memory();
    // No two adjacent.
    let pieces = |count| (0..count).map(|n| MemEntry::from((u64::from(n % 2) * 8, 1)));
    for most in [BATCH as u32, 3 * BATCH as u32, 262_144] {
        let bytes = u64::from(most) * 16;
        let budget = Budget::new(bytes);
        let mut backing = Backing::new(&budget).unwrap();
        backing.add(pieces(most), &memory).unwrap();
        assert_eq!((backing.count(), budget.used()), (most as usize, bytes));
        let more = backing.add([MemEntry::from((100, 1))], &memory);
        assert!(matches!(more, Err(BackingError::Budget)));
        assert_eq!(backing.len(), u64::from(most));
        drop(backing);
        assert_eq!(budget.used(), 0);
    }
    let budget = budget();
    let backing = backing_of(&[(0, 1), (8, 1)], &memory, &budget).unwrap();
    assert_eq!(budget.used(), 32);
    drop(backing);
}

#[test]
fn adjacent_entries_make_one_run() {
    let memory = memory();
    let pieces = [(16, 4), (20, 4), (24, 8), (0, 0), (32, 1), (16, 4), (8, 8)];
    let backing = backing_of(&pieces, &memory, &budget()).unwrap();
    assert_eq!((backing.count(), backing.len()), (3, 29));
    let mut bytes = [0; 29];
    backing.reader(&memory).read(&mut bytes).unwrap();
    let expected: Vec<u8> = (16..33).chain(16..20).chain(8..16).collect();
    assert_eq!(bytes[..], expected);
    // Also if they are added one by one.
    let mut steps = Backing::new(&budget()).unwrap();
    for piece in pieces {
        steps.add([MemEntry::from(piece)], &memory).unwrap();
    }
    assert_eq!(steps.count(), 3);
}
