// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is kept of the driver for a successor of this process.

use std::cell::Cell;

use crate::gpu::kept_state::{DriverRecord, KeptState, KeptStateError};

/// Where the driver's record is kept, if it is. It is put once it has changed.
pub(super) struct DriverRecords {
    kept: KeptState,
    /// What was put last, as a number.
    last: Cell<Option<u64>>,
}

impl DriverRecords {
    /// In `kept`.
    pub(super) fn new(kept: KeptState) -> Self {
        Self {
            kept,
            last: Cell::new(None),
        }
    }

    /// What a predecessor left, if there was one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(super) fn left(&self) -> Result<Option<DriverRecord>, KeptStateError> {
        self.kept.get(0)
    }

    /// Keeps what `record` makes.
    #[inline]
    pub(super) fn put(&self, record: impl FnOnce() -> DriverRecord) {
        if !self.kept.is_kept() {
            return;
        }
        let record = record();
        // Each event asks, and a comparison of fields that were just written one by one waits for them.
        let number = Some(record.number());
        if self.last.get() != number {
            self.last.set(number);
            self.kept.put(0, &record);
        }
    }
}
