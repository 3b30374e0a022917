// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The name of a record.

/// What a record is of: tables are numbered by their owners, ids within a table by the table's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordKey {
    pub(crate) table: u16,
    pub(crate) id: u64,
}

impl RecordKey {
    pub(crate) const fn new(table: u16, id: u64) -> Self {
        Self { table, id }
    }
}
