// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What processes die of: work that kills each of them is not tried for ever.
//!
//! The state names the work that is under way. A process that is killed by others dies anywhere, and its successor does that
//! work. So deaths are counted for each kind of work apart, until a process gets it done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};

use super::layout;
use super::shared_memory::SharedMemory;

/// When so many processes have died in the same work and none got it done, there are no others: a unit starts 20 in 30 seconds
/// (`StartLimitBurst=`), and the last of these is to begin anew.
const TOO_MANY: u32 = 19;

/// In the cell of work: it is under way. The other bits count deaths.
const UNDER_WAY: u32 = 1 << 31;

/// What a process does, and may die of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// To take over: read the state, and set the device up as before.
    Start,
    /// A message of the front-end.
    Message,
    /// An event of the event loop, by its token: those of virtqueues are their indexes.
    Event(u16),
}

impl Work {
    /// Tokens from here on share cells.
    const OWN_CELLS: u16 = 16;

    fn cell(self) -> usize {
        match self {
            Self::Start => 0,
            Self::Message => 1,
            Self::Event(token) if token < Self::OWN_CELLS => usize::from(2 + token),
            // Devices have few, one after the other.
            Self::Event(token) => {
                usize::from(2 + Self::OWN_CELLS + token % (layout::WORKS - 2 - Self::OWN_CELLS))
            }
        }
    }
}

/// The deaths in each kind of work. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Deaths {
    memory: Arc<SharedMemory>,
    /// The cell of the event that is handled; [`Work::Start`]'s for none.
    handled: Arc<AtomicUsize>,
}

impl Deaths {
    pub(super) fn new(memory: Arc<SharedMemory>) -> Self {
        Self {
            memory,
            handled: Arc::default(),
        }
    }

    /// Counts the death of the process before this one, which begins with [`Work::Start`].
    ///
    /// # Errors
    /// How many processes died in the same work, if these are too many.
    pub(super) fn count(&self) -> Result<(), u32> {
        let mut most = 0;
        for cell in 0..usize::from(layout::WORKS) {
            let Some(cell) = self.cell(cell) else {
                continue;
            };
            let value = cell.load(Ordering::Acquire);
            if value & UNDER_WAY != 0 {
                let deaths = (value & !UNDER_WAY).saturating_add(1);
                cell.store(deaths, Ordering::Release);
                most = most.max(deaths);
            }
        }
        if most >= TOO_MANY {
            return Err(most);
        }
        self.begin(Work::Start);
        Ok(())
    }

    /// `work` is under way.
    pub(super) fn begin(&self, work: Work) {
        if let Work::Event(_) = work {
            self.handled.store(work.cell(), Ordering::Release);
        }
        if let Some(cell) = self.cell(work.cell()) {
            // Each kind of work is begun by one thread. What another one clears meanwhile comes back until the work is done.
            let deaths = cell.load(Ordering::Acquire);
            cell.store(deaths | UNDER_WAY, Ordering::Release);
            // The process does not die in the work before this is there.
            compiler_fence(Ordering::SeqCst);
        }
    }

    /// `work` is done, and nobody died of it.
    pub(super) fn done(&self, work: Work) {
        if let Some(cell) = self.cell(work.cell()) {
            cell.store(0, Ordering::Release);
        }
        if let Work::Event(_) = work {
            self.handled.store(Work::Start.cell(), Ordering::Release);
        }
    }

    /// A part of what is under way is done for good: a successor goes on behind it. That shows that a process gets as far as
    /// this, too.
    pub(super) fn advance(&self) {
        for cell in [self.handled.load(Ordering::Acquire), Work::Start.cell()] {
            let cell = self.cell(cell);
            let died = cell.filter(|cell| cell.load(Ordering::Acquire) & !UNDER_WAY != 0);
            if let Some(cell) = died {
                cell.fetch_and(UNDER_WAY, Ordering::AcqRel);
            }
        }
    }

    /// Nobody died.
    pub(super) fn forget(&self) {
        for cell in 0..usize::from(layout::WORKS) {
            if let Some(cell) = self.cell(cell) {
                cell.store(0, Ordering::Release);
            }
        }
    }

    fn cell(&self, index: usize) -> Option<&AtomicU32> {
        let at = layout::AT_WORKS + index as u64 * 4;
        self.memory.u32(at)
    }
}

#[cfg(test)]
mod tests;
