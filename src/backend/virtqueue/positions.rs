// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where virtqueues are, in the device's ledger, for a successor of this process.
//!
//! A virtqueue's position is recorded with each request that is given back, and whenever the front-end sets it. Those of a
//! predecessor hold against what is replayed of the front-end's messages: `SET_VRING_BASE` says where the virtqueue
//! began, and the driver's used index is behind if the predecessor died before it published what it had done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::backend::continuity::{InvalidRecord, Ledger, RecordKey, ValueWriter};

/// The table of virtqueues' positions, by index.
const TABLE: u16 = 1;

/// The index of no virtqueue.
const NONE: u32 = u32::MAX;

/// How far a virtqueue is (virtio 1.2, 2.7.6 and 2.7.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Index of the first available request that is not done.
    pub(crate) next_avail: u16,
    /// Index of the next used element.
    pub(crate) next_used: u16,
}

impl Position {
    /// Both indexes in one number.
    pub(super) fn to_bits(self) -> u32 {
        u32::from(self.next_used) << 16 | u32::from(self.next_avail)
    }

    pub(super) fn from_bits(bits: u32) -> Self {
        Self {
            next_avail: bits as u16,
            next_used: (bits >> 16) as u16,
        }
    }

    fn write(self, value: &mut ValueWriter) {
        value.u16(self.next_avail).u16(self.next_used);
    }
}

/// Why the record of a position cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the position of a virtqueue is damaged: {0}")]
pub(crate) struct PositionError(#[from] InvalidRecord);

/// The positions of a device's virtqueues. Clones are the same.
#[derive(Clone)]
pub(crate) struct Positions {
    ledger: Ledger,
    replays: Arc<AtomicBool>,
    /// The virtqueue that is stopped again; [`NONE`] for none.
    stopped_again: Arc<AtomicU32>,
}

impl Positions {
    /// Those in the ledger of the device. Until [`Positions::replay_done`], those that a predecessor left hold against
    /// what the front-end's messages say.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self {
            ledger,
            replays: Arc::new(AtomicBool::new(true)),
            stopped_again: Arc::new(AtomicU32::new(NONE)),
        }
    }

    /// The front-end's old messages are replayed: positions that it sets from now on hold. To be called before the message
    /// that was under way is executed again.
    pub(crate) fn replay_done(&self) {
        self.replays.store(false, Ordering::Release);
    }

    /// A predecessor died while the front-end stopped the virtqueue `index`. It is not started again, and the front-end stops it
    /// again.
    pub(crate) fn stops_again(&self, index: u32) {
        self.stopped_again.store(index, Ordering::Release);
    }

    pub(super) fn is_stopped_again(&self, index: u32) -> bool {
        self.stopped_again.load(Ordering::Acquire) == index
    }

    pub(super) fn is_replay(&self) -> bool {
        self.replays.load(Ordering::Acquire)
    }

    pub(super) fn are_kept(&self) -> bool {
        self.ledger.is_kept()
    }

    /// The position that is recorded of the virtqueue `index`.
    ///
    /// # Errors
    /// If the record is none that [`Positions::put`] writes.
    pub(crate) fn get(&self, index: u32) -> Result<Option<Position>, PositionError> {
        Ok(self.ledger.read(key(index), |value| {
            Ok(Position {
                next_avail: value.u16()?,
                next_used: value.u16()?,
            })
        })?)
    }

    /// Records the position of the virtqueue `index`.
    pub(super) fn put(&self, index: u32, position: Position) {
        self.ledger
            .write_often(key(index), 0, |value| position.write(value));
    }

    /// Whether a record of the device was put or removed since the last commit.
    pub(super) fn has_uncommitted_records(&self) -> bool {
        self.ledger.has_uncommitted()
    }

    /// Requests of the virtqueue `index`, which is at `position` now, are done: makes that valid with what was recorded.
    pub(super) fn request_done(&self, index: u32, position: Position) {
        self.ledger
            .commit_work(key(index), |value| position.write(value));
    }
}

fn key(index: u32) -> RecordKey {
    RecordKey::new(TABLE, index.into())
}
