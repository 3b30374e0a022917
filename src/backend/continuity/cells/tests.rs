// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::os::fd::AsFd as _;
use std::sync::atomic::Ordering;

use super::*;
use crate::backend::continuity::record_log::{Log, LogError};
use crate::backend::continuity::shared_memory;

const LEDGER: u64 = 1;

fn memory() -> Arc<SharedMemory> {
    let file = shared_memory::create("state").unwrap();
    Arc::new(SharedMemory::map(file.as_fd(), layout::LEN).unwrap())
}

fn open(memory: &Arc<SharedMemory>) -> Log {
    Log::open(memory.clone(), LEDGER).unwrap()
}

fn key(id: u64) -> RecordKey {
    RecordKey::new(7, id)
}

#[test]
fn cells_are_valid_after_a_commit_and_not_before() {
    let memory = memory();
    let mut log = open(&memory);
    assert!(log.put_often(key(1), b"one", 0));
    assert!(!log.put_often(key(1), b"one", 0), "it has this value");
    assert_eq!(open(&memory).get(key(1)), None);
    log.commit().unwrap();
    assert_eq!(open(&memory).get(key(1)).unwrap(), b"one");
    // Also the second, third and fourth time, and by whichever method.
    for (round, value) in [&b"two"[..], b"", &[3; MAX_VALUE]].into_iter().enumerate() {
        let before = open(&memory).get(key(1));
        assert!(log.put_often(key(1), b"is written over", 0));
        assert!(log.put(key(1), value));
        assert_eq!(log.get(key(1)).unwrap(), value);
        assert_eq!(open(&memory).get(key(1)), before, "{round}");
        log.commit().unwrap();
        assert_eq!(open(&memory).get(key(1)).unwrap(), value);
    }
    assert!(log.remove(key(1)) && !log.remove(key(1)));
    assert!(open(&memory).get(key(1)).is_some());
    log.commit().unwrap();
    assert_eq!(open(&memory).get(key(1)), None);
}

/// All becomes valid by one store, with what is in the log.
#[test]
fn cells_and_log_are_committed_together() {
    let memory = memory();
    let mut log = open(&memory);
    for id in 0..3 {
        log.put_often(key(id), b"old", 0);
        log.put(key(id + 10), b"old");
    }
    log.commit().unwrap();
    let tail = memory.u64(layout::AT_TAILS + LEDGER * 8).unwrap();
    let before = tail.load(Ordering::Acquire);
    for id in 0..3 {
        log.put_often(key(id), b"new", 0);
        log.put(key(id + 10), b"new");
    }
    log.commit().unwrap();
    let after = tail.load(Ordering::Acquire);
    for (tail_is, value) in [(before, b"old"), (after, b"new"), (before, b"old")] {
        tail.store(tail_is, Ordering::Release);
        let left = open(&memory).table(7);
        assert!(left.iter().map(|(id, _)| *id).eq([0, 1, 2, 10, 11, 12]));
        assert!(left.iter().all(|(_, is)| is == value));
    }
}

/// It is the same to whoever reads, wherever a record lies.
#[test]
fn records_that_no_cell_takes_are_in_the_log() {
    let memory = memory();
    let mut log = open(&memory);
    let count = CELLS as u64 + 5;
    for id in (0..count).rev() {
        log.put_often(key(id), &id.to_le_bytes(), 0);
    }
    assert!(log.put_often(key(0), &[0; 8], 0) || log.get(key(0)).unwrap() == [0; 8]);
    // One that is too long leaves its cell, and comes back to a cell only once it was removed.
    let long = [9; MAX_VALUE + 1];
    assert!(log.put_often(key(count - 1), &long, 0));
    assert!(log.put_often(key(count - 2), &long, 0) && log.put(key(count - 3), &long));
    log.commit().unwrap();
    let mut log = open(&memory);
    assert_eq!(log.table(7).len(), count as usize);
    assert_eq!(log.get(key(count - 1)).unwrap(), long);
    assert!(log.put_often(key(count - 1), b"short", 0));
    log.commit().unwrap();
    assert_eq!(open(&memory).get(key(count - 1)).unwrap(), b"short");
    // Tables are removed from both, and others stay.
    log.put_often(RecordKey::new(8, 0), b"other", 0);
    assert!(log.remove_table(7) && !log.remove_table(7));
    log.commit().unwrap();
    let left = open(&memory);
    assert!(left.table(7).is_empty());
    assert_eq!(left.table(8), [(0, b"other".to_vec())]);
}

/// Those that change less often leave some to others.
#[test]
fn cells_are_left_to_others() {
    let memory = memory();
    let mut log = open(&memory);
    let count = CELLS as u64;
    for id in 0..count {
        log.put_often(key(id), b"seldom", 3);
    }
    log.commit().unwrap();
    let in_cells = |log: &Log| log.table(7).len() as u64 - log.entries() as u64;
    assert_eq!(in_cells(&log), count - 3);
    for id in count..2 * count {
        log.put_often(key(id), b"often", 0);
    }
    log.commit().unwrap();
    let log = open(&memory);
    assert_eq!(in_cells(&log), count);
    assert!(log.table(7).iter().map(|(id, _)| *id).eq(0..2 * count));
}

/// The log is written anew many times, and is not larger for records in cells.
#[test]
fn cells_stay_when_the_log_is_written_anew() {
    let memory = memory();
    let mut log = open(&memory);
    for round in 0_u64..200 {
        log.put_often(key(1), &round.to_le_bytes(), 0);
        log.put(key(2), &vec![round as u8; 5000]);
        log.commit().unwrap();
        let left = open(&memory);
        assert_eq!(left.get(key(1)).unwrap(), round.to_le_bytes());
        assert_eq!(left.get(key(2)).unwrap(), vec![round as u8; 5000]);
    }
}

#[test]
fn broken_cells_are_errors() {
    let memory = memory();
    let mut log = open(&memory);
    log.put_often(key(1), b"one", 0);
    log.put_often(key(2), b"two", 0);
    log.put(key(3), b"three");
    log.commit().unwrap();
    let at = |cell: u64| layout::cells(LEDGER) + (2 * cell + 1) * CELL_LEN;
    let full = |len: u64, id: u64| [len | 7 << 32 | u64::from(FULL) << 48, id];
    for [fields, id] in [
        full(MAX_VALUE as u64 + 1, 1),
        // Twice, in another cell or in the log.
        full(3, 2),
        full(3, 3),
        [2 << 48, 1],
        [0, 1],
        [1, 0],
    ] {
        let [first, second] = memory.words(at(0)).unwrap();
        let before = [first, second].map(|word| word.load(Ordering::Acquire));
        first.store(fields, Ordering::Release);
        second.store(id, Ordering::Release);
        let opened = Log::open(memory.clone(), LEDGER);
        assert_eq!(opened.err(), Some(LogError::Cells), "{fields:#x} {id}");
        first.store(before[0], Ordering::Release);
        second.store(before[1], Ordering::Release);
    }
    assert_eq!(open(&memory).get(key(1)).unwrap(), b"one");
}
