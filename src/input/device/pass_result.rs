//! How a pass over a virtqueue ends.

/// Whether a pass over a virtqueue left work for which no kick will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PassResult {
    /// There is no work until the next kick or event.
    Done,
    /// The pass reached its bound, and another one has to follow.
    Unfinished,
}
