// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The log that a ledger lies in: entries that become valid together, by one store.
//!
//! Entries are appended behind the tail, where a successor does not look. [`Log::commit`] moves the tail with one atomic
//! store. A log that has grown to several times of what is valid in it is written anew, to its other area; the same
//! store moves the tail there. Records that change often are not in the log but in [`Cells`], of which the tail says, too,
//! what is valid.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::cells::{self, Cells};
use super::layout;
use super::record_key::RecordKey;
use super::shared_memory::SharedMemory;

/// Bytes of an entry before its value: length of the value, table and kind, id.
const ENTRY: usize = 16;
const ALIGN: u64 = 8;
/// The tail's bit for the second area.
const SECOND: u64 = 1 << 63;
/// The tail's bits for the offset in the area.
const END: u64 = (1 << CELLS_SHIFT) - 1;
/// Where the tail's bits begin that say which copies of the cells are valid.
const CELLS_SHIFT: u32 = 28;
/// All bits of a tail.
const TAIL: u64 = SECOND | (u32::MAX as u64) << CELLS_SHIFT | END;

const _: () = assert!(layout::AREA_LEN <= END && layout::CELLS <= 32);
/// A log is written anew when it is larger than twice its valid part, and by this.
const SLACK: u64 = 32 << 10;
/// The memory that an area keeps when the log leaves it: it is written again soon.
const KEPT_MEMORY: u64 = 256 << 10;

const PUT: u16 = 1;
const REMOVE: u16 = 2;
const REMOVE_TABLE: u16 = 3;

/// Why a log cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LogError {
    #[error("the tail of the log is {0:#x}, which is none")]
    Tail(u64),
    #[error("the entry at {0} of the log is invalid")]
    Entry(u64),
    #[error("the records beside the log are invalid")]
    Cells,
}

/// Where the value of a record lies.
#[derive(Debug, Clone, Copy)]
struct Span {
    at: u64,
    len: usize,
}

impl Span {
    /// Bytes of its entry.
    fn entry_len(self) -> u64 {
        entry_len(self.len)
    }
}

fn entry_len(value: usize) -> u64 {
    (ENTRY as u64 + value as u64).next_multiple_of(ALIGN)
}

/// A ledger's log. See the [module](self).
#[derive(Debug)]
pub(super) struct Log {
    memory: Arc<SharedMemory>,
    ledger: u64,
    /// The area that is written.
    second: bool,
    /// The end of what was appended, and of what is valid, in the area.
    end: u64,
    committed: u64,
    /// Bytes of the entries in `records`.
    live: u64,
    /// All records in the log, with those that are not committed yet.
    records: BTreeMap<RecordKey, Span>,
    cells: Cells,
    /// The area is full: nothing more is valid.
    is_full: bool,
    /// Bytes that were appended ever, without those of a log that was written anew.
    #[cfg(test)]
    pub(super) appended: u64,
}

impl Log {
    /// Reads what is valid in the log of the ledger number `ledger`.
    ///
    /// # Errors
    /// If that is no log: the memory was written by something else.
    pub(super) fn open(memory: Arc<SharedMemory>, ledger: u64) -> Result<Self, LogError> {
        let tail = memory.u64(layout::AT_TAILS + ledger * 8);
        let tail = tail.map_or(0, |tail| tail.load(Ordering::Acquire));
        let (second, end) = (tail & SECOND != 0, tail & END);
        if tail & !TAIL != 0 || end > layout::AREA_LEN || end % ALIGN != 0 {
            return Err(LogError::Tail(tail));
        }
        let valid = (tail >> CELLS_SHIFT) as u32;
        let cells = Cells::open(memory.clone(), ledger, valid).map_err(|_| LogError::Cells)?;
        let mut log = Self {
            memory,
            ledger,
            second,
            end: 0,
            committed: end,
            live: 0,
            records: BTreeMap::new(),
            cells,
            is_full: false,
            #[cfg(test)]
            appended: 0,
        };
        while log.end < end {
            log.replay()?;
        }
        if log.end != end {
            return Err(LogError::Entry(end));
        }
        let is_twice = |key: &RecordKey| log.cells.find(*key).is_some();
        if log.records.keys().any(is_twice) {
            return Err(LogError::Cells);
        }
        Ok(log)
    }

    /// Reads the entry at `end`.
    fn replay(&mut self) -> Result<(), LogError> {
        let invalid = LogError::Entry(self.end);
        let header = self.memory.read(self.area() + self.end, ENTRY);
        let header = header.ok_or(invalid)?;
        let (fields, id) = header.split_at_checked(8).ok_or(invalid)?;
        let id = u64::from_le_bytes(*id.first_chunk().ok_or(invalid)?);
        let fields = u64::from_le_bytes(*fields.first_chunk().ok_or(invalid)?);
        let len = usize::try_from(fields & u64::from(u32::MAX)).map_err(|_| invalid)?;
        let (table, kind) = ((fields >> 32) as u16, (fields >> 48) as u16);
        let key = RecordKey { table, id };
        let span = Span {
            at: self.end + ENTRY as u64,
            len,
        };
        let end = self.end + span.entry_len();
        if end > self.committed {
            return Err(invalid);
        }
        self.end = end;
        match kind {
            PUT => self.insert(key, span),
            REMOVE => drop(self.forget(key)),
            REMOVE_TABLE => self.forget_table(table),
            _ => return Err(invalid),
        }
        Ok(())
    }

    fn area(&self) -> u64 {
        layout::area(self.ledger, self.second)
    }

    fn insert(&mut self, key: RecordKey, span: Span) {
        self.live += span.entry_len();
        if let Some(old) = self.records.insert(key, span) {
            self.live -= old.entry_len();
        }
    }

    /// Returns whether there was such a record.
    fn forget(&mut self, key: RecordKey) -> bool {
        let old = self.records.remove(&key);
        if let Some(old) = old {
            self.live -= old.entry_len();
        }
        old.is_some()
    }

    fn forget_table(&mut self, table: u16) {
        let mut rest = self.records.split_off(&RecordKey::new(table, 0));
        let mut behind = match table.checked_add(1) {
            Some(next) => rest.split_off(&RecordKey::new(next, 0)),
            None => BTreeMap::new(),
        };
        self.live -= rest.values().map(|span| span.entry_len()).sum::<u64>();
        self.records.append(&mut behind);
    }

    fn append(&mut self, key: RecordKey, kind: u16, value: &[u8]) -> Option<Span> {
        let len = u32::try_from(value.len()).ok()?;
        let end = self.end.checked_add(entry_len(value.len()))?;
        if end > layout::AREA_LEN {
            return None;
        }
        let fields = u64::from(len) | u64::from(key.table) << 32 | u64::from(kind) << 48;
        let at = self.area() + self.end;
        let span = Span {
            at: self.end + ENTRY as u64,
            len: value.len(),
        };
        let written = self.memory.write(at, &fields.to_le_bytes())
            && self.memory.write(at + 8, &key.id.to_le_bytes())
            && self.memory.write(at + ENTRY as u64, value);
        if !written {
            return None;
        }
        self.end = end;
        Some(span)
    }

    /// Sets a record. Nothing is written if it has this value; returns whether it had not.
    pub(super) fn put(&mut self, key: RecordKey, value: &[u8]) -> bool {
        match self.cells.find(key) {
            Some(cell) if value.len() <= cells::MAX_VALUE => self.put_cell(cell, key, value),
            Some(cell) => {
                self.cells.clear(cell);
                self.put_entry(key, value)
            }
            None => self.put_entry(key, value),
        }
    }

    /// As [`Log::put`], for a record that is set often: it gets a cell, if it is small and more than `others` are empty.
    pub(super) fn put_often(&mut self, key: RecordKey, value: &[u8], others: usize) -> bool {
        match self.cell_for(key, value.len(), others) {
            Some(cell) => self.put_cell(cell, key, value),
            None => self.put(key, value),
        }
    }

    /// As [`Log::put_often`], for a value that the record does not have.
    pub(super) fn put_often_new(&mut self, key: RecordKey, value: &[u8], others: usize) -> bool {
        match self.cell_for(key, value.len(), others) {
            Some(cell) => {
                self.cells.put_new(cell, key, value);
                #[cfg(test)]
                {
                    self.appended += entry_len(value.len());
                }
                true
            }
            None => self.put_new(key, value),
        }
    }

    /// The cell of a record that is set often to a value of `len` bytes, if it has one or gets one.
    fn cell_for(&mut self, key: RecordKey, len: usize, others: usize) -> Option<usize> {
        if len > cells::MAX_VALUE {
            return None;
        }
        if let Some(cell) = self.cells.find(key) {
            return Some(cell);
        }
        let cell = self.cells.find_empty(others)?;
        if self.records.contains_key(&key) {
            return None;
        }
        self.cells.take(cell, key);
        Some(cell)
    }

    fn put_cell(&mut self, cell: usize, key: RecordKey, value: &[u8]) -> bool {
        let is_new = self.cells.put(cell, key, value);
        #[cfg(test)]
        if is_new {
            self.appended += entry_len(value.len());
        }
        is_new
    }

    /// As [`Log::put`], for a value that the record does not have.
    pub(super) fn put_new(&mut self, key: RecordKey, value: &[u8]) -> bool {
        match self.cells.find(key) {
            Some(_) => self.put(key, value),
            None => self.append_entry(key, value),
        }
    }

    fn put_entry(&mut self, key: RecordKey, value: &[u8]) -> bool {
        let old = self.records.get(&key);
        let is_same =
            |old: &Span| old.len == value.len() && self.memory.equals(self.area() + old.at, value);
        if old.is_some_and(is_same) {
            return false;
        }
        self.append_entry(key, value)
    }

    fn append_entry(&mut self, key: RecordKey, value: &[u8]) -> bool {
        #[cfg(test)]
        {
            self.appended += entry_len(value.len());
        }
        match self.append(key, PUT, value) {
            Some(span) => self.insert(key, span),
            None => self.is_full = true,
        }
        true
    }

    /// Removes a record; returns whether it was there.
    pub(super) fn remove(&mut self, key: RecordKey) -> bool {
        if let Some(cell) = self.cells.find(key) {
            self.cells.clear(cell);
            return true;
        }
        let is_there = self.forget(key);
        if is_there {
            self.is_full |= self.append(key, REMOVE, &[]).is_none();
        }
        is_there
    }

    /// Removes all records of a table; returns whether there was one.
    pub(super) fn remove_table(&mut self, table: u16) -> bool {
        let mut were_there = false;
        while let Some((_, cell)) = { self.cells.of_table(table).next() } {
            self.cells.clear(cell);
            were_there = true;
        }
        if self.keys(table).next().is_some() {
            let key = RecordKey::new(table, 0);
            self.is_full |= self.append(key, REMOVE_TABLE, &[]).is_none();
            self.forget_table(table);
            were_there = true;
        }
        were_there
    }

    fn keys(&self, table: u16) -> impl Iterator<Item = (&RecordKey, &Span)> {
        let from = RecordKey::new(table, 0);
        let to = RecordKey::new(table, u64::MAX);
        self.records
            .range((Bound::Included(from), Bound::Included(to)))
    }

    pub(super) fn get(&self, key: RecordKey) -> Option<Vec<u8>> {
        match self.cells.find(key) {
            Some(cell) => self.cells.value(cell),
            None => self.value(*self.records.get(&key)?),
        }
    }

    fn value(&self, span: Span) -> Option<Vec<u8>> {
        self.memory.read(self.area() + span.at, span.len)
    }

    /// How many records are not in cells.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.records.len()
    }

    /// The records of a table, by id.
    pub(super) fn table(&self, table: u16) -> Vec<(u64, Vec<u8>)> {
        let in_cells = self.cells.of_table(table);
        let in_cells = in_cells.filter_map(|(key, cell)| Some((key.id, self.cells.value(cell)?)));
        let records = self.keys(table);
        let records = records.filter_map(|(key, span)| Some((key.id, self.value(*span)?)));
        let mut all: Vec<_> = records.chain(in_cells).collect();
        all.sort_by_key(|(id, _)| *id);
        all
    }

    /// Makes everything valid that was put and removed.
    ///
    /// # Errors
    /// If the log is full: what was valid before stays.
    pub(super) fn commit(&mut self) -> Result<(), Full> {
        if self.is_full {
            return Err(Full);
        }
        if self.end == self.committed && !self.cells.are_changed() {
            return Ok(());
        }
        if self.end > self.live.saturating_mul(2).saturating_add(SLACK) {
            return self.rewrite();
        }
        self.set_tail();
        Ok(())
    }

    /// Everything before the tail is written before it is valid.
    fn set_tail(&mut self) {
        self.committed = self.end;
        let second = if self.second { SECOND } else { 0 };
        let cells = u64::from(self.cells.next_valid()) << CELLS_SHIFT;
        if let Some(tail) = self.memory.u64(layout::AT_TAILS + self.ledger * 8) {
            tail.store(self.end | cells | second, Ordering::Release);
        }
        self.cells.committed();
    }

    /// Writes the records to the other area, and makes that valid.
    fn rewrite(&mut self) -> Result<(), Full> {
        let (old, old_end) = (self.area(), self.end);
        let new = layout::area(self.ledger, !self.second);
        let mut end = 0;
        // The entries as they are, without those between them.
        for span in self.records.values_mut() {
            let entry = old + span.at - ENTRY as u64;
            if !self.memory.copy(entry, new + end, ENTRY + span.len) {
                return Err(Full);
            }
            span.at = end + ENTRY as u64;
            end += span.entry_len();
        }
        self.second = !self.second;
        self.end = end;
        self.live = end;
        self.set_tail();
        let used = old_end.next_multiple_of(layout::PAGE);
        let freed = used.saturating_sub(KEPT_MEMORY);
        self.memory.punch(old + KEPT_MEMORY, freed);
        Ok(())
    }
}

/// A log is full: what it is of is too large to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

#[cfg(test)]
mod tests;
