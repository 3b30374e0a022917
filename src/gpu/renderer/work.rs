// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How much work the device does before other devices and queues have their turn.

/// Most work of one step, after which other events have their turn. The unit is a byte copied; other work
/// counts as bytes by the costs below. A step ends with the row or the batch that reaches the limit.
pub(crate) const MAX_STEP_WORK: u64 = 32 << 20;
/// Work of looking up one piece of the guest's memory.
pub(crate) const PIECE_COST: u64 = 256;
/// Work of one entry of a new backing.
pub(crate) const ENTRY_COST: u64 = 128;
/// Work of one word of a command stream.
pub(crate) const STREAM_WORD_COST: u64 = 64;

/// One step of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Rows copied.
    pub(crate) rows: u32,
    /// Work done, in the unit of [`MAX_STEP_WORK`].
    pub(crate) work: u64,
}
