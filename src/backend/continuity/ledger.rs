// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records that outlive the process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use super::arena::Arena;
use super::crash;
use super::deaths::Deaths;
use super::header::{EndReason, Header};
use super::record_key::RecordKey;
use super::record_log::{Full, Log};
use super::value::{self, ValueError, ValueReader, ValueWriter};
use crate::backend::lock::lock;

/// Whose records: each owner commits its own, and uses its ledger from one thread at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The proxy: the front-end's connection, and how it set the device up.
    Proxy,
    /// The device and its virtqueues.
    Device,
}

impl Owner {
    pub(super) fn index(self) -> u64 {
        match self {
            Self::Proxy => 0,
            Self::Device => 1,
        }
    }
}

/// Why a record that a predecessor left cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {id:#x} of table {table} is invalid: {source}")]
pub struct InvalidRecord {
    table: u16,
    id: u64,
    source: ValueError,
}

impl InvalidRecord {
    pub(crate) fn new(key: RecordKey, source: ValueError) -> Self {
        let RecordKey { table, id } = key;
        Self { table, id, source }
    }
}

/// Records, which become valid together. Clones are the same; without a service manager that keeps them, nothing is kept, and
/// all methods do nothing.
///
/// What was put and removed since the last [`Ledger::commit`] is valid for a successor once that returns, and before not in
/// any part.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    records: Mutex<Records>,
    header: Header,
    deaths: Deaths,
    arena: OnceLock<Arena>,
    /// Something was put or removed since the last commit.
    has_uncommitted: AtomicBool,
    #[cfg(any(test, feature = "fuzzing"))]
    death: Mutex<Option<Death>>,
}

#[derive(Debug)]
struct Records {
    log: Log,
    /// The value that is being written.
    value: ValueWriter,
}

/// When a process dies, in tests and the targets of fuzz/.
#[cfg(any(test, feature = "fuzzing"))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Death {
    /// After so many commits.
    pub(crate) commits: u32,
    /// Whether the next commit is still made.
    pub(crate) is_committed: bool,
}

impl Ledger {
    pub(super) fn new(log: Log, header: Header, deaths: Deaths) -> Self {
        Self(Some(Arc::new(Shared {
            records: Mutex::new(Records {
                log,
                value: ValueWriter::default(),
            }),
            header,
            deaths,
            arena: OnceLock::new(),
            has_uncommitted: AtomicBool::new(false),
            #[cfg(any(test, feature = "fuzzing"))]
            death: Mutex::new(None),
        })))
    }

    /// Whether records are kept.
    pub(crate) fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Sets a record, unless it has this value.
    pub(crate) fn put(&self, key: RecordKey, value: &[u8]) {
        crash::point();
        if let Some(shared) = &self.0 {
            let is_new = lock(&shared.records).log.put(key, value);
            shared.changed(is_new);
        }
    }

    /// Sets a record to what `fields` writes, unless it has this value. Where nothing is kept `fields` is not called. It
    /// does not use the ledger.
    pub(crate) fn write(&self, key: RecordKey, fields: impl FnOnce(&mut ValueWriter)) {
        self.write_by(key, fields, Log::put);
    }

    /// As [`Ledger::write`], for a record of up to 48 bytes that changes with many requests: it costs less as long as there
    /// are few of them, which leave place for `others`.
    pub(crate) fn write_often(
        &self,
        key: RecordKey,
        others: usize,
        fields: impl FnOnce(&mut ValueWriter),
    ) {
        self.write_by(key, fields, |log, key, value| {
            log.put_often(key, value, others)
        });
    }

    /// As [`Ledger::write`], for a value that is known to be another one than before: that is not read to compare.
    pub(crate) fn write_new(&self, key: RecordKey, fields: impl FnOnce(&mut ValueWriter)) {
        self.write_by(key, fields, Log::put_new);
    }

    /// As [`Ledger::write_often`], for a value that is known to be another one than before.
    pub(crate) fn write_often_new(&self, key: RecordKey, fields: impl FnOnce(&mut ValueWriter)) {
        self.write_by(key, fields, |log, key, value| {
            log.put_often_new(key, value, 0)
        });
    }

    fn write_by(
        &self,
        key: RecordKey,
        fields: impl FnOnce(&mut ValueWriter),
        put: impl FnOnce(&mut Log, RecordKey, &[u8]) -> bool,
    ) {
        crash::point();
        if let Some(shared) = &self.0 {
            let is_new = lock(&shared.records).write_by(key, fields, put);
            shared.changed(is_new);
        }
    }

    /// What `fields` reads of a record, as it was set last; `None` if there is none.
    ///
    /// # Errors
    /// If `fields` refuses it, or leaves a part of it.
    pub(crate) fn read<T>(
        &self,
        key: RecordKey,
        fields: impl FnOnce(&mut ValueReader<'_>) -> Result<T, ValueError>,
    ) -> Result<Option<T>, InvalidRecord> {
        let value = self.get(key);
        let record = value.map(|value| value::read(&value, fields));
        record
            .transpose()
            .map_err(|source| InvalidRecord::new(key, source))
    }

    /// What `fields` reads of the records of a table, by id, as they were set last.
    ///
    /// # Errors
    /// As [`Ledger::read`].
    pub(crate) fn read_table<T>(
        &self,
        table: u16,
        mut fields: impl FnMut(u64, &mut ValueReader<'_>) -> Result<T, ValueError>,
    ) -> Result<Vec<T>, InvalidRecord> {
        let records = self.table(table).into_iter().map(|(id, value)| {
            let record = value::read(&value, |value| fields(id, value));
            record.map_err(|source| InvalidRecord::new(RecordKey::new(table, id), source))
        });
        records.collect()
    }

    /// Removes a record, if there is one.
    pub(crate) fn remove(&self, key: RecordKey) {
        crash::point();
        if let Some(shared) = &self.0 {
            let was_there = lock(&shared.records).log.remove(key);
            shared.changed(was_there);
        }
    }

    /// Removes all records of a table.
    pub(crate) fn remove_table(&self, table: u16) {
        crash::point();
        if let Some(shared) = &self.0 {
            let were_there = lock(&shared.records).log.remove_table(table);
            shared.changed(were_there);
        }
    }

    /// The value of a record, as it was put last.
    pub(crate) fn get(&self, key: RecordKey) -> Option<Vec<u8>> {
        lock(&self.0.as_ref()?.records).log.get(key)
    }

    /// The records of a table, by id, as they were put last.
    pub(crate) fn table(&self, table: u16) -> Vec<(u64, Vec<u8>)> {
        let shared = self.0.as_ref();
        shared.map_or_else(Vec::new, |shared| lock(&shared.records).log.table(table))
    }

    /// Whether something was put or removed since the last commit.
    pub(crate) fn has_uncommitted(&self) -> bool {
        let shared = self.0.as_ref();
        shared.is_some_and(|shared| shared.has_uncommitted.load(Ordering::Relaxed))
    }

    /// Makes all that was put and removed valid, by one store. If the records have become too large, no successor may go on
    /// from now on.
    pub(crate) fn commit(&self) {
        crash::point();
        if let Some(shared) = &self.0 {
            // The ledger is used by one thread at a time.
            let has_uncommitted = shared.has_uncommitted.load(Ordering::Relaxed);
            shared.commit(|records| match has_uncommitted {
                true => lock(records).log.commit(),
                false => Ok(()),
            });
        }
    }

    /// Sets a record as [`Ledger::write_often_new`] does, and commits. What became valid is a piece of work for the guest: this
    /// process did not die of it.
    pub(crate) fn commit_work(&self, key: RecordKey, fields: impl FnOnce(&mut ValueWriter)) {
        crash::point();
        if let Some(shared) = &self.0 {
            shared.commit(|records| {
                let mut records = lock(records);
                records.write_by(key, fields, |log, key, value| {
                    log.put_often_new(key, value, 0)
                });
                crash::point();
                records.log.commit()
            });
            shared.deaths.advance();
        }
    }

    /// Frees the extents of `arena` after each commit.
    pub(super) fn set_arena(&self, arena: Arena) {
        if let Some(shared) = &self.0 {
            // Only a second arena could fail, and there is none.
            let _ = shared.arena.set(arena);
        }
    }
}

impl Records {
    /// Has `put` set a record to what `fields` writes. Returns what that returns.
    fn write_by(
        &mut self,
        key: RecordKey,
        fields: impl FnOnce(&mut ValueWriter),
        put: impl FnOnce(&mut Log, RecordKey, &[u8]) -> bool,
    ) -> bool {
        let Self { log, value } = self;
        value.clear();
        fields(value);
        put(log, key, value.as_bytes())
    }
}

impl Shared {
    /// Has `commit` make valid what was put and removed.
    fn commit(&self, commit: impl FnOnce(&Mutex<Records>) -> Result<(), Full>) {
        #[cfg(any(test, feature = "fuzzing"))]
        let dies_behind = self.dies();
        self.has_uncommitted.store(false, Ordering::Relaxed);
        if let Err(Full) = commit(&self.records) {
            self.header.end(EndReason::RecordsFull);
        }
        #[cfg(any(test, feature = "fuzzing"))]
        if dies_behind {
            std::panic::resume_unwind(Box::new(DIED));
        }
        if let Some(arena) = self.arena.get() {
            arena.committed();
        }
    }

    /// A record was put or removed, if `is_changed`.
    fn changed(&self, is_changed: bool) {
        if is_changed {
            self.has_uncommitted.store(true, Ordering::Relaxed);
        }
    }
}

/// What a process that dies so panics with.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) const DIED: &str = "the process died";

#[cfg(any(test, feature = "fuzzing"))]
impl Ledger {
    /// Bytes of all records that were set, with their keys.
    #[cfg(test)]
    pub(crate) fn written(&self) -> u64 {
        let shared = self.0.as_ref();
        shared.map_or(0, |shared| lock(&shared.records).log.appended)
    }

    /// The process dies, which is a panic.
    pub(crate) fn die(&self, death: Death) {
        if let Some(shared) = &self.0 {
            *lock(&shared.death) = Some(death);
        }
    }
}

#[cfg(any(test, feature = "fuzzing"))]
impl Shared {
    /// Dies before a commit, or tells that it dies behind it.
    fn dies(&self) -> bool {
        let mut death = lock(&self.death);
        let Some(left) = death.as_mut() else {
            return false;
        };
        match left.commits.checked_sub(1) {
            Some(commits) => {
                left.commits = commits;
                false
            }
            None if left.is_committed => true,
            None => std::panic::resume_unwind(Box::new(DIED)),
        }
    }
}
