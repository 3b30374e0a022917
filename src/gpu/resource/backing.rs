// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A resource's backing: scattered pieces of the guest's memory (virtio 1.2, 5.7.6.8,
//! `VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING`).

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Address, ByteValued, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

use crate::backend::continuity::{Arena, List};
use crate::gpu::kept_state::BackingRecord;
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

/// Free memory that the allocator keeps, in bytes: room for the largest request of entries, and for their list.
const KEPT_FREE: libc::c_int = 1 << 20;

/// Has the allocator keep the memory of a list, and of the request with it, for the next one. Otherwise glibc gives it back to the kernel,
/// which clears its pages again: two thirds of the time that a guest's attaching and detaching of 8192 entries takes.
///
/// For the whole process, and for good: where a library draws, glibc goes on to find its own limits (mallopt(3)).
pub(crate) fn keep_freed_lists() {
    for limit in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        // SAFETY: it changes a number of the allocator's, which it locks meanwhile.
        if unsafe { libc::mallopt(limit, KEPT_FREE) } == 0 {
            log::debug!("cannot set a limit of the allocator");
        }
    }
}

/// Why a backing cannot be attached or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BackingError {
    #[error("a backing entry of {len} bytes at {addr:#x} is outside the guest's memory")]
    Outside { addr: u64, len: u32 },
    #[error("the list of entries exceeds what is left of the VM's host memory budget")]
    Budget,
    #[error("the host has no memory for the list of entries")]
    HostMemory,
    /// Only where backings are kept for a successor.
    #[error("more pieces of memory than can be kept for a restart, {left} are left")]
    Scattered { left: usize },
    /// Only of a backing that a predecessor left.
    #[error("there is no place for {runs} pieces of memory at {place:#x}")]
    Place { place: u64, runs: u32 },
    /// Only of a backing that a predecessor left.
    #[error("the piece of memory at {addr:#x}, which begins at byte {start}, is no guest memory")]
    Run { addr: u64, start: u64 },
    /// The backing ends before the bytes that a command needs.
    #[error("the backing has {has} bytes, {needed} are needed")]
    Short { has: u64, needed: u64 },
    /// The guest's memory changed after the backing was attached.
    #[error("the backing cannot be read: {0}")]
    Unreadable(#[from] GuestMemoryError),
}

/// A run of contiguous guest memory: one entry, or several adjacent ones.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(crate) struct Run {
    /// Offset in the backing.
    start: u64,
    /// Guest-physical address.
    addr: u64,
}

// SAFETY: two numbers without a gap, which may have any value.
unsafe impl ByteValued for Run {}

/// A list of runs.
#[derive(Debug)]
enum Runs {
    /// It ends with the process.
    Private(Vec<Run>),
    /// It outlives the process.
    Kept {
        list: List<Run>,
        /// The first one. A list of one is here: it would be the only one of its page, of which many are needed in turn.
        first: Run,
    },
}

impl Runs {
    fn as_slice(&self) -> &[Run] {
        match self {
            Self::Private(runs) => runs,
            Self::Kept { list, first } if list.len() == 1 => std::slice::from_ref(first),
            Self::Kept { list, .. } => list,
        }
    }

    fn kept(list: List<Run>) -> Self {
        let first = list.first().copied().unwrap_or_default();
        Self::Kept { list, first }
    }

    /// Adds a run. Returns whether there was room.
    fn push(&mut self, run: Run) -> bool {
        match self {
            Self::Private(runs) => {
                runs.push(run);
                true
            }
            Self::Kept { list, first } => {
                if list.is_empty() {
                    *first = run;
                }
                list.push(run)
            }
        }
    }
}

/// A range of guest-physical addresses.
#[cfg(any(test, feature = "virgl"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestRange {
    pub(crate) addr: u64,
    /// Length in bytes.
    pub(crate) len: u64,
}

/// The guest's memory behind a resource, as a list of runs.
#[derive(Debug)]
pub(crate) struct Backing {
    runs: Runs,
    /// For how many runs is paid.
    room: usize,
    len: u64,
    budget: Budget,
    charge: Charge,
}

impl Backing {
    /// An empty backing, whose list is charged to `budget`.
    pub(crate) fn new(budget: &Budget) -> Result<Self, BackingError> {
        Self::with_runs(Runs::Private(Vec::new()), budget)
    }

    /// An empty backing in `arena`, which outlives the process. It takes up to `most` runs.
    ///
    /// # Errors
    /// If there is no place for as many.
    pub(crate) fn new_kept(
        budget: &Budget,
        arena: &Arena,
        most: usize,
    ) -> Result<Self, BackingError> {
        let runs = arena.list(most).ok_or(BackingError::HostMemory)?;
        Self::with_runs(Runs::kept(runs), budget)
    }

    fn with_runs(runs: Runs, budget: &Budget) -> Result<Self, BackingError> {
        Ok(Self {
            runs,
            room: 0,
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
        // The address behind the last run.
        let mut behind = self.runs.as_slice().last().and_then(|run| {
            let len = self.len.saturating_sub(run.start);
            run.addr.checked_add(len)
        });
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
            if behind != Some(addr) {
                if self.count() >= self.room {
                    self.grow()?;
                }
                let run = Run {
                    start: self.len,
                    addr,
                };
                let left = self.count();
                if !self.runs.push(run) {
                    return Err(BackingError::Scattered { left });
                }
            }
            behind = addr.checked_add(u64::from(len));
            // Cannot overflow: lengths have 32 bits, and a request bounds their number.
            self.len = self.len.saturating_add(u64::from(len));
        }
        Ok(())
    }

    /// Doubles the room for runs, or adds [`BATCH`] of them if the budget has no more.
    fn grow(&mut self) -> Result<(), BackingError> {
        let len = self.count();
        let more = [len, BATCH].into_iter().filter(|more| *more >= BATCH);
        for more in more {
            let room = len.saturating_add(more);
            if self.charge.resize(&self.budget, list_len(room)) {
                if let Runs::Private(runs) = &mut self.runs {
                    let reserved = runs.try_reserve_exact(more);
                    reserved.map_err(|_| BackingError::HostMemory)?;
                }
                self.room = room;
                return Ok(());
            }
        }
        Err(BackingError::Budget)
    }

    /// Returns unused room to the budget, once all entries are added.
    pub(crate) fn finish(&mut self) {
        match &mut self.runs {
            Runs::Private(runs) => runs.shrink_to_fit(),
            Runs::Kept { list, .. } => list.shrink(),
        }
        self.room = self.count();
        self.charge.resize(&self.budget, list_len(self.room));
    }

    /// The backing that a predecessor left in `arena` as `record`. Whether it is in the guest's memory, which is not shared
    /// yet, every access checks.
    ///
    /// # Errors
    /// If the list exceeds the budget, is not in the arena, or no guest can have attached it.
    pub(crate) fn resume(
        record: &BackingRecord,
        arena: &Arena,
        budget: &Budget,
    ) -> Result<Self, BackingError> {
        let BackingRecord { place, runs, len } = *record;
        let count = usize::try_from(runs).unwrap_or(usize::MAX);
        // Before anything is read.
        let charge = budget.charge(list_len(count));
        let charge = charge.ok_or(BackingError::Budget)?;
        let list: Option<List<Run>> = arena.adopt_list(place, count);
        let list = list.ok_or(BackingError::Place { place, runs })?;
        let mut from = 0;
        for (index, Run { start, addr }) in list.iter().enumerate() {
            let next = list.get(index.saturating_add(1));
            let end = next.map_or(len, |next| next.start);
            let is_run = end
                .checked_sub(*start)
                .is_some_and(|len| len != 0 && addr.checked_add(len).is_some());
            if *start != from || !is_run {
                return Err(BackingError::Run {
                    addr: *addr,
                    start: *start,
                });
            }
            from = end;
        }
        if from != len {
            return Err(BackingError::Short {
                has: from,
                needed: len,
            });
        }
        Ok(Self {
            runs: Runs::kept(list),
            room: count,
            len,
            budget: budget.clone(),
            charge,
        })
    }

    /// What is kept of it for a successor, if it outlives the process.
    pub(crate) fn record(&self) -> Option<BackingRecord> {
        match &self.runs {
            Runs::Private(_) => None,
            Runs::Kept { list, .. } => Some(BackingRecord {
                place: list.place(),
                runs: u32::try_from(list.len()).ok()?,
                len: self.len,
            }),
        }
    }

    /// Number of runs.
    pub(crate) fn count(&self) -> usize {
        self.runs.as_slice().len()
    }

    /// The runs, in order.
    #[cfg(any(test, feature = "virgl"))]
    pub(crate) fn runs(&self) -> impl Iterator<Item = GuestRange> {
        let runs = self.runs.as_slice();
        let ends = runs.iter().skip(1).map(|run| run.start);
        let ends = ends.chain(std::iter::once(self.len));
        runs.iter().zip(ends).map(|(run, end)| GuestRange {
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
            runs: self.runs.as_slice(),
            len: self.len,
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
    runs: &'a [Run],
    /// Length of the backing.
    len: u64,
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
        let runs = self.runs;
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
        if self.runs.get(next).is_some_and(|run| run.start <= self.at) {
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
        let Self { runs, len, .. } = *self;
        let next = runs.get(self.run.saturating_add(1));
        let end = next.map_or(len, |next| next.start);
        let left = end.saturating_sub(self.at);
        let Some(run) = runs.get(self.run).filter(|_| left != 0) else {
            return Err(BackingError::Short {
                has: len,
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
