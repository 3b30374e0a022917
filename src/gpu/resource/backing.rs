//! A resource's backing: scattered pieces of the guest's memory (virtio 1.2, 5.7.6.8,
//! `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING`).

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

use super::{Budget, Charge};
use crate::gpu::protocol::MemEntry;

/// Entries by which the list grows, at least.
const BATCH: usize = 256;
/// Most bytes of a [`Reader::piece`]: a page of most guests.
pub(crate) const MAX_PIECE: usize = 4096;
/// Entries that [`Reader::seek`] steps through before it bisects.
const NEAR: usize = 16;
/// Bytes from one prefetch of [`prefetch`] to the next; the processor prefetches those between.
#[cfg(target_arch = "x86_64")]
const PREFETCH_STEP: usize = 512;

/// What is wrong with a backing.
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

#[derive(Debug)]
struct Entry {
    /// Offset in the backing.
    start: u64,
    /// Guest-physical address.
    addr: u64,
}

/// A list of pieces of the guest's memory. Adjacent pieces make one entry.
#[derive(Debug)]
pub(crate) struct Backing {
    entries: Vec<Entry>,
    len: u64,
    budget: Budget,
    charge: Charge,
}

impl Backing {
    /// An empty backing, whose list is charged to `budget`.
    pub(crate) fn new(budget: &Budget) -> Result<Self, BackingError> {
        Ok(Self {
            entries: Vec::new(),
            len: 0,
            budget: budget.clone(),
            charge: budget.charge(0).ok_or(BackingError::Budget)?,
        })
    }

    /// Adds `pieces` of the guest's memory.
    ///
    /// # Errors
    /// If a piece is outside the guest's memory, or the list grows beyond the budget or the host's
    /// memory. The pieces before it stay added.
    pub(crate) fn add(
        &mut self,
        pieces: impl IntoIterator<Item = MemEntry>,
        memory: &GuestMemoryMmap,
    ) -> Result<(), BackingError> {
        // The region of the previous piece, which is likely to contain the next one too.
        let mut last: Option<&GuestRegionMmap> = None;
        for piece in pieces.into_iter().filter(|piece| piece.length != 0) {
            let MemEntry { addr, length: len } = piece;
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
            let is_adjacent = self.entries.last().is_some_and(|entry| {
                let before = self.len.saturating_sub(entry.start);
                entry.addr.checked_add(before) == Some(addr)
            });
            if !is_adjacent {
                if self.entries.len() == self.entries.capacity() {
                    self.grow()?;
                }
                let start = self.len;
                self.entries.push(Entry { start, addr });
            }
            // Cannot overflow: lengths have 32 bits, and a request bounds their number.
            self.len = self.len.saturating_add(u64::from(len));
        }
        Ok(())
    }

    /// Doubles the room for entries, or adds [`BATCH`] entries if the budget has no more.
    fn grow(&mut self) -> Result<(), BackingError> {
        let len = self.entries.len();
        let more = [len, BATCH].into_iter().filter(|more| *more >= BATCH);
        for more in more {
            let capacity = len.saturating_add(more);
            if self.charge.resize(&self.budget, list_len(capacity)) {
                let reserved = self.entries.try_reserve_exact(more);
                return reserved.map_err(|_| BackingError::HostMemory);
            }
        }
        Err(BackingError::Budget)
    }

    /// Returns unused room to the budget, once all pieces are added.
    pub(crate) fn finish(&mut self) {
        self.entries.shrink_to_fit();
        let bytes = list_len(self.entries.capacity());
        self.charge.resize(&self.budget, bytes);
    }

    /// Number of entries.
    #[cfg(any(test, feature = "virgl"))]
    pub(crate) fn count(&self) -> usize {
        self.entries.len()
    }

    /// The entries (guest-physical address, length in bytes).
    #[cfg(feature = "virgl")]
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.entries.iter().skip(1).map(|entry| entry.start);
        let ends = ends.chain(std::iter::once(self.len));
        self.entries
            .iter()
            .zip(ends)
            .map(|(entry, end)| (entry.addr, end.saturating_sub(entry.start)))
    }

    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// A reader at offset 0.
    pub(crate) fn reader<'a>(&'a self, memory: &'a GuestMemoryMmap) -> Reader<'a> {
        Reader {
            backing: self,
            memory,
            at: 0,
            entry: 0,
            ahead: None,
            pieces: 0,
        }
    }
}

/// Size in bytes of a list of `entries` entries.
fn list_len(entries: usize) -> u64 {
    (entries as u64).saturating_mul(size_of::<Entry>() as u64)
}

/// Reads a backing, mostly forwards: it remembers its entry and prefetches the next piece.
pub(crate) struct Reader<'a> {
    backing: &'a Backing,
    memory: &'a GuestMemoryMmap,
    /// Offset in the backing.
    at: u64,
    /// Index of the entry that contains `at`.
    entry: usize,
    /// The piece at `at`, if it was looked up already.
    ahead: Option<VolatileSlice<'a>>,
    /// Number of pieces read.
    pieces: u64,
}

impl<'a> Reader<'a> {
    /// Continues at `offset`.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset == self.at {
            return;
        }
        let entries = &self.backing.entries;
        let start = |entry: usize| entries.get(entry).map(|e| e.start);
        // From one row to the next it is a few entries at most.
        let far = self.entry.saturating_add(NEAR);
        if start(self.entry).is_some_and(|start| start <= offset)
            && start(far).is_none_or(|start| offset < start)
        {
            while start(self.entry.saturating_add(1)).is_some_and(|start| start <= offset) {
                self.entry += 1;
            }
        } else {
            let behind = entries.partition_point(|e| e.start <= offset);
            self.entry = behind.saturating_sub(1);
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
        let next = self.entry.saturating_add(1);
        if self
            .backing
            .entries
            .get(next)
            .is_some_and(|e| e.start <= self.at)
        {
            self.entry = next;
        }
        // An error is reported when the reader gets there.
        self.ahead = self.look_up().ok();
        if let Some(ahead) = &self.ahead {
            prefetch(ahead);
        }
        Ok(piece)
    }

    fn look_up(&self) -> Result<VolatileSlice<'a>, BackingError> {
        let Backing { entries, len, .. } = self.backing;
        let next = entries.get(self.entry.saturating_add(1));
        let end = next.map_or(*len, |next| next.start);
        let left = end.saturating_sub(self.at);
        let Some(entry) = entries.get(self.entry).filter(|_| left != 0) else {
            return Err(BackingError::Short {
                has: *len,
                needed: self.at.saturating_add(1),
            });
        };
        let addr = GuestAddress(
            entry
                .addr
                .saturating_add(self.at.saturating_sub(entry.start)),
        );
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
