// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process that writes a log is killed at any instruction; what the next one finds equals a model.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::backend::continuity::shared_memory;

/// Where the writer's progress lies in a memory of its own: the commit that it begins, and the last that it finished.
const AT_BEGUN: u64 = 0;
const AT_DONE: u64 = 8;
const LEDGER: u64 = 1;
/// Tells the writer where the memories are. Without it, it is no test.
const PLACES: &str = "TEST_LOG_MEMORIES";
const LIMIT: Duration = Duration::from_secs(60);

type Model = BTreeMap<RecordKey, Vec<u8>>;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

enum Change {
    Put(RecordKey, Vec<u8>),
    /// Often.
    PutOften(RecordKey, Vec<u8>),
    Remove(RecordKey),
    RemoveTable(u16),
}

/// What commit `number` makes valid.
fn changes(number: u64) -> Vec<Change> {
    let mut random = Random(number);
    let count = random.below(5);
    let mut change = || {
        let key = RecordKey::new(random.below(3) as u16, random.below(20));
        match random.below(16) {
            0 => Change::RemoveTable(key.table),
            1 | 2 => Change::Remove(key),
            3..8 => {
                let len = random.below(60) as usize;
                Change::PutOften(key, vec![number as u8; len])
            }
            _ => {
                let len = random.below(700) as usize;
                Change::Put(key, vec![number as u8; len])
            }
        }
    };
    (0..count).map(|_| change()).collect()
}

fn apply(model: &mut Model, number: u64) {
    for change in changes(number) {
        match change {
            Change::Put(key, value) | Change::PutOften(key, value) => {
                drop(model.insert(key, value));
            }
            Change::Remove(key) => drop(model.remove(&key)),
            Change::RemoveTable(table) => model.retain(|key, _| key.table != table),
        }
    }
}

/// The other process: goes on with the log until it is killed.
#[test]
#[ignore = "it is a part of another test"]
fn writer_of_a_log() {
    let Ok(places) = std::env::var(PLACES) else {
        return;
    };
    let open = |path: &str| std::fs::File::options().read(true).write(true).open(path);
    let (state, progress) = places.split_once(' ').unwrap();
    let (state, progress) = (open(state).unwrap(), open(progress).unwrap());
    let memory = Arc::new(SharedMemory::map(state.as_fd(), layout::LEN).unwrap());
    let progress = SharedMemory::map(progress.as_fd(), layout::PAGE).unwrap();
    let cell = |at| progress.u64(at).unwrap();
    let mut log = Log::open(memory, LEDGER).unwrap();
    loop {
        let number = cell(AT_DONE).load(Ordering::Acquire) + 1;
        cell(AT_BEGUN).store(number, Ordering::Release);
        for change in changes(number) {
            match change {
                Change::Put(key, value) => log.put(key, &value),
                Change::PutOften(key, value) => log.put_often(key, &value, 0),
                Change::Remove(key) => log.remove(key),
                Change::RemoveTable(table) => log.remove_table(table),
            };
        }
        log.commit().unwrap();
        cell(AT_DONE).store(number, Ordering::Release);
    }
}

fn start_writer(memories: [&OwnedFd; 2]) -> Child {
    let us = std::process::id();
    let paths = memories.map(|fd| format!("/proc/{us}/fd/{}", fd.as_raw_fd()));
    let name = "backend::continuity::record_log::tests::writer_of_a_log";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(PLACES, paths.join(" "))
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn log_of_a_process_that_was_killed_equals_a_model() {
    let state = shared_memory::create("state").unwrap();
    let progress = shared_memory::create("progress").unwrap();
    let memory = Arc::new(SharedMemory::map(state.as_fd(), layout::LEN).unwrap());
    let counters = SharedMemory::map(progress.as_fd(), layout::PAGE).unwrap();
    let cell = |at| counters.u64(at).unwrap();
    let mut random = Random(7);
    let mut model = Model::new();
    let mut known = 0;
    let (mut before, mut after, mut switched) = (0, 0, 0);
    let mut second = false;
    for _ in 0..120 {
        let mut writer = start_writer([&state, &progress]);
        let deadline = Instant::now() + LIMIT;
        while cell(AT_DONE).load(Ordering::Acquire) == known {
            assert!(Instant::now() < deadline, "the writer does nothing");
            assert!(writer.try_wait().unwrap().is_none(), "the writer ended");
        }
        let end = Instant::now() + Duration::from_nanos(random.below(2_000_000));
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        let done = cell(AT_DONE).load(Ordering::Acquire);
        let begun = cell(AT_BEGUN).load(Ordering::Acquire);
        assert!(begun == done || begun == done + 1, "{begun} after {done}");
        while known < done {
            known += 1;
            apply(&mut model, known);
        }
        let log = Log::open(memory.clone(), LEDGER).unwrap();
        let tables = (0..3).flat_map(|table| {
            let records = log.table(table).into_iter();
            records.map(move |(id, value)| (RecordKey::new(table, id), value))
        });
        let found: Model = tables.collect();
        if found == model {
            before += usize::from(begun > done);
        } else {
            // It was killed between the store and its own note of it.
            assert!(begun > done, "commit {done} is not there");
            apply(&mut model, begun);
            assert!(found == model, "neither before nor after commit {begun}");
            known = begun;
            cell(AT_DONE).store(begun, Ordering::Release);
            after += 1;
        }
        switched += usize::from(log.second != second);
        second = log.second;
    }
    println!(
        "{known} commits; killed in {before} of them before it was valid, in {after} after; {switched} times the \
         other area was in use"
    );
    assert!(before > 0 && switched > 0, "not killed where it matters");
}
