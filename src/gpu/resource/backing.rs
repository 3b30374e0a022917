//! A resource's backing: scattered pieces of the guest's memory (virtio 1.2, 5.7.6.8,
//! `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING`).

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

use crate::gpu::protocol::MemEntry;

use super::{Budget, Charge};

/// Runs by which the list grows, at least.
const BATCH: usize = 256;
/// Most bytes of a [`BackingReader::piece`]: a page of most guests.
pub(crate) const MAX_PIECE: usize = 4096;
/// Runs that [`BackingReader::seek`] steps through before it bisects.
const NEAR: usize = 16;
/// Bytes from one prefetch of [`prefetch`] to the next; the processor prefetches those between.
#[cfg(target_arch = "x86_64")]
const PREFETCH_STEP: usize = 512;

/// Why a backing cannot be attached or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackingError {
    #[error("a backing entry of {len} bytes at {addr:#x} is outside the guest's memory")]
    Outside { addr: u64, len: u32 },
    #[error("the list of entries exceeds what is left of the VM's host memory budget")]
    Budget,
    #[error("the host has no memory for the list of entries")]
    HostMemory,
    /// The backing ends before the bytes that a command needs.
    #[error("the backing has {has} bytes, {needed} are needed")]
    Short { has: u64, needed: u64 },
    /// The guest's memory changed after the backing was attached.
    #[error("the backing cannot be read: {0}")]
    Unreadable(#[from] GuestMemoryError),
}

/// A run of contiguous guest memory: one entry, or several adjacent ones.
#[derive(Debug)]
struct Run {
    /// Offset in the backing.
    start: u64,
    /// Guest-physical address.
    addr: u64,
}

/// A range of guest-physical addresses.
#[cfg(feature = "virgl")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestRange {
    pub(crate) addr: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

/// The guest's memory behind a resource, as a list of runs.
#[derive(Debug)]
pub(crate) struct Backing {
    runs: Vec<Run>,
    len: u64,
    budget: Budget,
    charge: Charge,
}

impl Backing {
    /// An empty backing, whose list is charged to `budget`.
    pub(crate) fn new(budget: &Budget) -> Result<Self, BackingError> {
        Ok(Self {
            runs: Vec::new(),
            len: 0,
            budget: budget.clone(),
            charge: budget.charge(0).ok_or(BackingError::Budget)?,
        })
    }

    /// Adds `entries`.
    ///
    /// # Errors
    /// If an entry is outside the guest's memory, or the list grows beyond the budget or the host's
    /// memory. The entries before it stay added.
    pub(crate) fn add(
        &mut self,
        entries: impl IntoIterator<Item = MemEntry>,
        memory: &GuestMemoryMmap,
    ) -> Result<(), BackingError> {
        // The region of the previous entry, which is likely to contain the next one too.
        let mut last: Option<&GuestRegionMmap> = None;
        for entry in entries.into_iter().filter(|entry| entry.length != 0) {
            let MemEntry { addr, length: len } = entry;
            let within = |region: &&GuestRegionMmap| {
                let room = addr
                    .checked_sub(region.start_addr().raw_value())
                    .and_then(|at| region.len().checked_sub(at));
                room.is_some_and(|room| u64::from(len) <= room)
            };
            if !last.as_ref().is_some_and(within) {
                if !memory.check_range(GuestAddress(addr), len as usize) {
                    return Err(BackingError::Outside { addr, len });
                }
                last = memory.find_region(GuestAddress(addr));
            }
            let is_adjacent = self.runs.last().is_some_and(|run| {
                let before = self.len.saturating_sub(run.start);
                run.addr.checked_add(before) == Some(addr)
            });
            if !is_adjacent {
                if self.runs.len() == self.runs.capacity() {
                    self.grow()?;
                }
                let start = self.len;
                self.runs.push(Run { start, addr });
            }
            // Cannot overflow: lengths have 32 bits, and a request bounds their number.
            self.len = self.len.saturating_add(u64::from(len));
        }
        Ok(())
    }

    /// Doubles the room for runs, or adds [`BATCH`] of them if the budget has no more.
    fn grow(&mut self) -> Result<(), BackingError> {
        let len = self.runs.len();
        let more = [len, BATCH].into_iter().filter(|more| *more >= BATCH);
        for more in more {
            let capacity = len.saturating_add(more);
            if self.charge.resize(&self.budget, list_len(capacity)) {
                let reserved = self.runs.try_reserve_exact(more);
                return reserved.map_err(|_| BackingError::HostMemory);
            }
        }
        Err(BackingError::Budget)
    }

    /// Returns unused room to the budget, once all entries are added.
    pub(crate) fn finish(&mut self) {
        self.runs.shrink_to_fit();
        let bytes = list_len(self.runs.capacity());
        self.charge.resize(&self.budget, bytes);
    }

    /// Number of runs.
    #[cfg(any(test, feature = "virgl"))]
    pub(crate) fn count(&self) -> usize {
        self.runs.len()
    }

    /// The runs, in order.
    #[cfg(feature = "virgl")]
    pub(crate) fn runs(&self) -> impl Iterator<Item = GuestRange> {
        let ends = self.runs.iter().skip(1).map(|run| run.start);
        let ends = ends.chain(std::iter::once(self.len));
        self.runs.iter().zip(ends).map(|(run, end)| GuestRange {
            addr: run.addr,
            len: end.saturating_sub(run.start),
        })
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// A reader at offset 0.
    pub(crate) fn reader<'a>(&'a self, memory: &'a GuestMemoryMmap) -> BackingReader<'a> {
        BackingReader {
            backing: self,
            memory,
            at: 0,
            run: 0,
            ahead: None,
            pieces: 0,
        }
    }
}

/// Size in bytes of a list of `runs` runs.
fn list_len(runs: usize) -> u64 {
    (runs as u64).saturating_mul(size_of::<Run>() as u64)
}

/// Reads a backing, mostly forwards: it remembers its run and prefetches the next piece.
pub(crate) struct BackingReader<'a> {
    backing: &'a Backing,
    memory: &'a GuestMemoryMmap,
    /// Offset in the backing.
    at: u64,
    /// Index of the run that contains `at`.
    run: usize,
    /// The piece at `at`, if it was looked up already.
    ahead: Option<VolatileSlice<'a>>,
    /// Number of pieces read.
    pieces: u64,
}

impl<'a> BackingReader<'a> {
    /// Continues at `offset`.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset == self.at {
            return;
        }
        let runs = &self.backing.runs;
        let start = |run: usize| runs.get(run).map(|run| run.start);
        // From one row to the next it is a few runs at most.
        let far = self.run.saturating_add(NEAR);
        if start(self.run).is_some_and(|start| start <= offset)
            && start(far).is_none_or(|start| offset < start)
        {
            while start(self.run.saturating_add(1)).is_some_and(|start| start <= offset) {
                self.run += 1;
            }
        } else {
            let behind = runs.partition_point(|run| run.start <= offset);
            self.run = behind.saturating_sub(1);
        }
        self.at = offset;
        self.ahead = None;
    }

    /// Number of pieces read so far.
    pub(crate) fn pieces(&self) -> u64 {
        self.pieces
    }

    /// The next piece of contiguous guest memory: at most `most` and [`MAX_PIECE`] bytes, and at least
    /// one if `most` is not 0.
    ///
    /// # Errors
    /// If the backing ends here, or is no longer in the guest's memory.
    pub(crate) fn piece(&mut self, most: usize) -> Result<VolatileSlice<'a>, BackingError> {
        let piece = match self.ahead.take() {
            Some(piece) => piece,
            None => self.look_up()?,
        };
        let len = piece.len().min(most);
        let piece = piece.subslice(0, len).map_err(GuestMemoryError::from)?;
        self.at = self.at.saturating_add(len as u64);
        self.pieces = self.pieces.saturating_add(1);
        let next = self.run.saturating_add(1);
        if self
            .backing
            .runs
            .get(next)
            .is_some_and(|run| run.start <= self.at)
        {
            self.run = next;
        }
        // An error is reported when the reader gets there.
        self.ahead = self.look_up().ok();
        if let Some(ahead) = &self.ahead {
            prefetch(ahead);
        }
        Ok(piece)
    }

    fn look_up(&self) -> Result<VolatileSlice<'a>, BackingError> {
        let Backing { runs, len, .. } = self.backing;
        let next = runs.get(self.run.saturating_add(1));
        let end = next.map_or(*len, |next| next.start);
        let left = end.saturating_sub(self.at);
        let Some(run) = runs.get(self.run).filter(|_| left != 0) else {
            return Err(BackingError::Short {
                has: *len,
                needed: self.at.saturating_add(1),
            });
        };
        let addr = GuestAddress(run.addr.saturating_add(self.at.saturating_sub(run.start)));
        let most = left.min(MAX_PIECE as u64) as usize;
        // The first slice: the rest may be in another region.
        let mut slices = self.memory.get_slices(addr, most);
        let slice = slices
            .next()
            .ok_or(GuestMemoryError::InvalidGuestAddress(addr))?;
        Ok(slice?)
    }

    /// Fills `into` with the next bytes.
    ///
    /// # Errors
    /// If the backing ends before, or is no longer in the guest's memory.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<(), BackingError> {
        let mut rest = into;
        while !rest.is_empty() {
            let piece = self.piece(rest.len())?;
            piece.copy_to(rest);
            rest = rest.get_mut(piece.len()..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Prefetches guest memory that is read soon. The processor follows a stream of bytes by itself, but
/// not from one scattered page to the next.
fn prefetch(guest: &VolatileSlice<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let guard = guest.ptr_guard();
        for at in (0..guest.len()).step_by(PREFETCH_STEP) {
            // SAFETY: a prefetch is a hint, valid for any address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(guard.as_ptr().wrapping_add(at).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = guest;
}

#[cfg(test)]
mod tests;
