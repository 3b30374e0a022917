// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records that change with most requests, in places of their own: the cells of a ledger.
//!
//! A log grows with each record, and so do the lines of the cache that it passes through. A cell has two copies of a small
//! record. Which of them is valid, the ledger's tail says: a bit for each cell. A change writes the copy that is not, and the
//! commit, which stores the tail, makes it valid together with the entries of the log.

use std::sync::Arc;

use super::layout::{self, CELL_LEN, CELLS};
use super::record_key::RecordKey;
use super::shared_memory::SharedMemory;

/// Bytes of a copy before the value: length of the value, table and whether there is a record, id.
const HEADER: u64 = 16;
/// Most bytes of a value.
pub(super) const MAX_VALUE: usize = (CELL_LEN - HEADER) as usize;

const EMPTY: u16 = 0;
const FULL: u16 = 1;

/// The cells of a ledger. Each has one record or none.
#[derive(Debug)]
pub(super) struct Cells {
    memory: Arc<SharedMemory>,
    at: u64,
    /// The copies that are valid: a bit for each cell.
    valid: u32,
    /// The cells that were changed since the last commit: what they have is in the other copy.
    changed: u32,
    /// What they are of, as it was changed last.
    keys: [Option<RecordKey>; CELLS],
    /// All others behind the first so many were never used.
    used: usize,
}

/// A copy of a cell has bytes that are never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidCell;

impl Cells {
    /// Those of the ledger number `ledger`, of which the copies `valid` are valid.
    ///
    /// # Errors
    /// If there are bytes that are never written.
    pub(super) fn open(
        memory: Arc<SharedMemory>,
        ledger: u64,
        valid: u32,
    ) -> Result<Self, InvalidCell> {
        let mut cells = Self {
            memory,
            at: layout::cells(ledger),
            valid,
            changed: 0,
            keys: [None; CELLS],
            used: 0,
        };
        for cell in 0..CELLS {
            let key = cells.read(cell)?.map(|(key, _)| key);
            if key.is_some_and(|key| cells.find(key).is_some()) {
                return Err(InvalidCell);
            }
            if key.is_some() {
                cells.set_key(cell, key);
            }
        }
        Ok(cells)
    }

    fn bit(cell: usize) -> u32 {
        1_u32.checked_shl(cell as u32).unwrap_or(0)
    }

    fn copy(&self, cell: usize, second: bool) -> u64 {
        self.at + (cell as u64 * 2 + u64::from(second)) * CELL_LEN
    }

    /// The copy that has what was written last.
    fn current(&self, cell: usize) -> u64 {
        self.copy(cell, (self.valid ^ self.changed) & Self::bit(cell) != 0)
    }

    /// What is in a cell, and the length of its value.
    fn read(&self, cell: usize) -> Result<Option<(RecordKey, usize)>, InvalidCell> {
        let [fields, id] = self.memory.words(self.current(cell)).ok_or(InvalidCell)?;
        let order = std::sync::atomic::Ordering::Relaxed;
        let (fields, id) = (fields.load(order), id.load(order));
        let len = (fields & u64::from(u32::MAX)) as usize;
        let (table, kind) = ((fields >> 32) as u16, (fields >> 48) as u16);
        match kind {
            EMPTY if len == 0 && table == 0 && id == 0 => Ok(None),
            FULL if len <= MAX_VALUE => Ok(Some((RecordKey::new(table, id), len))),
            _ => Err(InvalidCell),
        }
    }

    /// Writes the copy that is not valid, of a cell whose record has the key `key`.
    fn write(&mut self, cell: usize, key: Option<RecordKey>, value: &[u8]) {
        let at = self.copy(cell, self.valid & Self::bit(cell) == 0);
        let RecordKey { table, id } = key.unwrap_or(RecordKey::new(0, 0));
        let kind = if key.is_some() { FULL } else { EMPTY };
        let fields = value.len() as u64 | u64::from(table) << 32 | u64::from(kind) << 48;
        let order = std::sync::atomic::Ordering::Relaxed;
        if let Some([first, second]) = self.memory.words(at) {
            first.store(fields, order);
            second.store(id, order);
        }
        // A cell is within the memory, and callers check the length.
        let _ = self.memory.write(at + HEADER, value);
        self.changed |= Self::bit(cell);
    }

    fn set_key(&mut self, cell: usize, key: Option<RecordKey>) {
        if let Some(place) = self.keys.get_mut(cell) {
            *place = key;
            self.used = self.used.max(cell.saturating_add(1));
        }
    }

    /// The cell of a record.
    pub(super) fn find(&self, key: RecordKey) -> Option<usize> {
        let mut keys = self.keys.iter().take(self.used);
        keys.position(|other| *other == Some(key))
    }

    /// A cell without a record, if there are more than `others` of them.
    pub(super) fn find_empty(&self, others: usize) -> Option<usize> {
        let mut empty = self.keys.iter().zip(0..).filter(|(key, _)| key.is_none());
        let first = empty.next().map(|(_, cell)| cell);
        first.filter(|_| empty.count() >= others)
    }

    /// The record `key` gets a cell without a record.
    pub(super) fn take(&mut self, cell: usize, key: RecordKey) {
        self.set_key(cell, Some(key));
    }

    /// The records of a table, with their cells.
    pub(super) fn of_table(&self, table: u16) -> impl Iterator<Item = (RecordKey, usize)> + '_ {
        let cells = self.keys.iter().zip(0..);
        cells.filter_map(move |(key, cell)| Some((key.filter(|key| key.table == table)?, cell)))
    }

    /// Sets the record `key` of a cell to a value of at most [`MAX_VALUE`] bytes. Returns whether it had another one.
    pub(super) fn put(&mut self, cell: usize, key: RecordKey, value: &[u8]) -> bool {
        let is_same = self.read(cell) == Ok(Some((key, value.len())))
            && self.memory.equals(self.current(cell) + HEADER, value);
        if !is_same {
            self.write(cell, Some(key), value);
        }
        !is_same
    }

    /// As [`Cells::put`], for a value that the record does not have.
    pub(super) fn put_new(&mut self, cell: usize, key: RecordKey, value: &[u8]) {
        self.write(cell, Some(key), value);
    }

    /// Removes the record of a cell.
    pub(super) fn clear(&mut self, cell: usize) {
        self.write(cell, None, &[]);
        self.set_key(cell, None);
    }

    /// The value of a cell.
    pub(super) fn value(&self, cell: usize) -> Option<Vec<u8>> {
        let (_, len) = self.read(cell).ok()??;
        self.memory.read(self.current(cell) + HEADER, len)
    }

    /// Whether a cell was changed since the last commit.
    pub(super) fn are_changed(&self) -> bool {
        self.changed != 0
    }

    /// The copies that are to be valid.
    pub(super) fn next_valid(&self) -> u32 {
        self.valid ^ self.changed
    }

    /// These are valid now.
    pub(super) fn committed(&mut self) {
        self.valid ^= self.changed;
        self.changed = 0;
    }
}

#[cfg(test)]
mod tests;
