//! How much a renderer copies before other devices and queues have their turn.

/// Work of one step of a transfer, after which other events have their turn: bytes copied, plus
/// [`PIECE_WORK`] for each piece of the guest's memory.
pub(crate) const WORK: u64 = 32 << 20;
/// Work of one piece of the guest's memory: looking it up takes as long as copying this many bytes.
pub(crate) const PIECE_WORK: u64 = 256;

/// One step of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Rows copied.
    pub(crate) rows: u32,
    /// Work done, in the unit of [`WORK`].
    pub(crate) work: u64,
}
