//! A resource's backing: the guest's pages, scattered, in the resource's order.

use vm_memory::volatile_memory::VolatileSlice;
use vm_memory::{
    Address, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryMmap,
    GuestMemoryRegion, GuestRegionMmap,
};

use super::image::{Budget, Charge};

/// Entries for which there is room at once, at least.
const BATCH: usize = 256;
/// Most bytes of a [`Reader::piece`]: a page of most guests.
pub const MAX_PIECE: usize = 4096;
/// How many entries further a place is still looked for from the one before it.
const NEAR: usize = 16;
/// Bytes from one touch of [`fetch`] to the next; the processor guesses those between.
#[cfg(target_arch = "x86_64")]
const STEP: usize = 512;

/// What is wrong with a backing.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// The entry lies outside the guest's memory.
    #[error("a backing entry of {len} bytes at {addr:#x} lies outside the guest's memory")]
    Outside {
        /// Guest-physical address of the entry.
        addr: u64,
        /// Length of the entry in bytes.
        len: u32,
    },
    /// The VM's budget does not have the list.
    #[error("the list of entries is more than what is left of the VM's host memory budget")]
    Budget,
    /// The host does not have the memory for the list.
    #[error("the host has no memory for the list of entries")]
    DeviceContext,
    /// The backing ends before what was asked for.
    #[error("the backing has {has} bytes, {needed} are needed")]
    Short {
        /// Bytes of the backing.
        has: u64,
        /// Bytes asked for.
        needed: u64,
    },
    /// The guest's memory changed after the backing was attached.
    #[error("the backing cannot be read: {0}")]
    Unreadable(#[from] vm_memory::GuestMemoryError),
}

#[derive(Debug)]
struct Entry {
    /// Where in the backing it begins.
    start: u64,
    addr: u64,
}

/// A list of pieces of the guest's memory. Pieces that lie one behind the other are one entry.
#[derive(Debug)]
pub struct Backing {
    entries: Vec<Entry>,
    len: u64,
    budget: Budget,
    charge: Charge,
}

impl Backing {
    /// A backing without pieces, whose list takes its memory from `budget`.
    pub fn new(budget: &Budget) -> Result<Self, BackingError> {
        Ok(Self {
            entries: Vec::new(),
            len: 0,
            budget: budget.clone(),
            charge: budget.charge(0).ok_or(BackingError::Budget)?,
        })
    }

    /// Adds `pieces` (guest-physical address, length in bytes).
    ///
    /// # Errors
    /// Where a piece lies outside the guest's memory, or the list takes too much of the host's: the
    /// pieces before it are added.
    pub fn add(
        &mut self,
        pieces: impl IntoIterator<Item = (u64, u32)>,
        memory: &GuestMemoryMmap,
    ) -> Result<(), BackingError> {
        // The region of the piece before, in which the next one is likely to lie too.
        let mut last: Option<&GuestRegionMmap> = None;
        for (addr, len) in pieces.into_iter().filter(|(_, len)| *len != 0) {
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
            let goes_on = self.entries.last().is_some_and(|entry| {
                let before = self.len.saturating_sub(entry.start);
                entry.addr.checked_add(before) == Some(addr)
            });
            if !goes_on {
                if self.entries.len() == self.entries.capacity() {
                    self.grow()?;
                }
                let start = self.len;
                self.entries.push(Entry { start, addr });
            }
            // 32-bit lengths, bounded in number by what a request can carry: far from overflow.
            self.len = self.len.saturating_add(u64::from(len));
        }
        Ok(())
    }

    /// Makes room for more entries: twice as many, or as few as there are always added, where the
    /// budget has no more.
    fn grow(&mut self) -> Result<(), BackingError> {
        let len = self.entries.len();
        let more = [len, BATCH].into_iter().filter(|more| *more >= BATCH);
        for more in more {
            let capacity = len.saturating_add(more);
            if self.charge.resize(&self.budget, list_len(capacity)) {
                let reserved = self.entries.try_reserve_exact(more);
                return reserved.map_err(|_| BackingError::DeviceContext);
            }
        }
        Err(BackingError::Budget)
    }

    /// Gives back the room that is left, once all pieces are added.
    pub fn finish(&mut self) {
        self.entries.shrink_to_fit();
        let bytes = list_len(self.entries.capacity());
        self.charge.resize(&self.budget, bytes);
    }

    /// How many entries it has.
    #[cfg(any(test, feature = "virgl"))]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Its entries (guest-physical address, length in bytes).
    #[cfg(feature = "virgl")]
    pub fn entries(&self) -> impl Iterator<Item = (u64, u64)> {
        let ends = self.entries.iter().skip(1).map(|entry| entry.start);
        let ends = ends.chain(std::iter::once(self.len));
        self.entries
            .iter()
            .zip(ends)
            .map(|(entry, end)| (entry.addr, end.saturating_sub(entry.start)))
    }

    /// Bytes of it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads it from its beginning on.
    pub fn reader<'a>(&'a self, memory: &'a GuestMemoryMmap) -> Reader<'a> {
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

/// Bytes of a list of `entries` entries.
fn list_len(entries: usize) -> u64 {
    (entries as u64).saturating_mul(size_of::<Entry>() as u64)
}

/// Reads a backing, mostly forwards: it knows in which entry it is, and looks ahead.
pub struct Reader<'a> {
    backing: &'a Backing,
    memory: &'a GuestMemoryMmap,
    /// Where in the backing.
    at: u64,
    /// The entry in which that is.
    entry: usize,
    /// What lies there, if it was looked at already.
    ahead: Option<VolatileSlice<'a>>,
    /// How many pieces were read.
    pieces: u64,
}

impl<'a> Reader<'a> {
    /// Goes on at `offset`.
    pub fn seek(&mut self, offset: u64) {
        if offset == self.at {
            return;
        }
        let entries = &self.backing.entries;
        let start = |entry: usize| entries.get(entry).map(|e| e.start);
        // From row to row it is a few entries at most, which are soon found.
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

    /// In how many pieces it was read so far.
    pub fn pieces(&self) -> u64 {
        self.pieces
    }

    /// What comes next, as it lies in the guest's memory: at most `most` bytes and [`MAX_PIECE`], and
    /// at least one if `most` is not 0.
    ///
    /// # Errors
    /// Where the backing ends here, or is no longer in the guest's memory.
    pub fn piece(&mut self, most: usize) -> Result<VolatileSlice<'a>, BackingError> {
        let piece = match self.ahead.take() {
            Some(piece) => piece,
            None => self.look()?,
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
        // What is wrong with it is told by who gets there.
        self.ahead = self.look().ok();
        if let Some(ahead) = &self.ahead {
            fetch(ahead);
        }
        Ok(piece)
    }

    fn look(&self) -> Result<VolatileSlice<'a>, BackingError> {
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
        // The first of them: it may go on in another region.
        let mut slices = self.memory.get_slices(addr, most);
        let slice = slices
            .next()
            .ok_or(GuestMemoryError::InvalidGuestAddress(addr))?;
        Ok(slice?)
    }

    /// Fills `into` with what comes next.
    ///
    /// # Errors
    /// Where the backing ends before, or is no longer in the guest's memory.
    pub fn read(&mut self, into: &mut [u8]) -> Result<(), BackingError> {
        let mut rest = into;
        while !rest.is_empty() {
            let piece = self.piece(rest.len())?;
            piece.copy_to(rest);
            rest = rest.get_mut(piece.len()..).unwrap_or_default();
        }
        Ok(())
    }
}

/// Has the processor get the guest's bytes, which are wanted soon. It follows a stream of bytes by
/// itself, but not from one of the guest's scattered pages to the next.
fn fetch(guest: &VolatileSlice<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let guard = guest.ptr_guard();
        for at in (0..guest.len()).step_by(STEP) {
            // SAFETY: a hint that reads nothing, whatever the address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(guard.as_ptr().wrapping_add(at).cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = guest;
}

#[cfg(test)]
mod tests {
    use vm_memory::Bytes;

    use super::*;

    fn memory() -> GuestMemoryMmap {
        let memory = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 0x1000),
            (GuestAddress(0x10000), 0x1000),
        ])
        .unwrap();
        for i in 0..0x1000_u32 {
            let byte = (i % 251) as u8;
            memory.write_obj(byte, GuestAddress(i.into())).unwrap();
            memory
                .write_obj(!byte, GuestAddress(0x10000 + u64::from(i)))
                .unwrap();
        }
        memory
    }

    fn budget() -> Budget {
        Budget::new(1 << 20)
    }

    fn backing_of(
        pieces: &[(u64, u32)],
        memory: &GuestMemoryMmap,
        budget: &Budget,
    ) -> Result<Backing, BackingError> {
        let mut backing = Backing::new(budget)?;
        backing.add(pieces.iter().copied(), memory)?;
        backing.finish();
        Ok(backing)
    }

    #[test]
    fn pieces_read_as_one() {
        let memory = memory();
        let pieces = [(7, 3), (0x10005, 1), (100, 0), (20, 11), (0x10ff0, 16)];
        let backing = backing_of(&pieces, &memory, &budget()).unwrap();
        assert_eq!(backing.len(), 31);
        let mut whole = Vec::new();
        for (addr, len) in pieces {
            let mut piece = vec![0; len as usize];
            memory.read_slice(&mut piece, GuestAddress(addr)).unwrap();
            whole.extend(piece);
        }
        for start in 0..31 {
            for end in start..=31 {
                let mut part = vec![0; end - start];
                let mut reader = backing.reader(&memory);
                reader.seek(start as u64);
                reader.read(&mut part).unwrap();
                assert_eq!(part, whole[start..end]);
            }
        }
    }

    #[test]
    fn a_reader_goes_anywhere() {
        let memory = memory();
        // Of 1 to 4 bytes, each the one before its neighbour.
        let pieces: Vec<_> = (0..200_u32)
            .map(|n| (u64::from(2000 - 4 * n), n % 4 + 1))
            .collect();
        let backing = backing_of(&pieces, &memory, &budget()).unwrap();
        let mut whole = Vec::new();
        for (addr, len) in pieces {
            let mut piece = vec![0; len as usize];
            memory.read_slice(&mut piece, GuestAddress(addr)).unwrap();
            whole.extend(piece);
        }
        let mut reader = backing.reader(&memory);
        // Further each time, and at last nearer again.
        for (step, len) in (0..whole.len()).zip([1, 7, 0, 100].into_iter().cycle()) {
            let at = step * step * 13 % (whole.len() - 100);
            reader.seek(at as u64);
            for at in [at, at + len]
                .into_iter()
                .take_while(|at| at + len < whole.len())
            {
                let mut part = vec![0; len];
                reader.read(&mut part).unwrap();
                assert_eq!(part, whole[at..at + len], "{len} at {at}");
            }
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let memory = memory();
        let backing = backing_of(&[(0, 16)], &memory, &budget()).unwrap();
        let mut bytes = [0; 8];
        for offset in [9, 16, u64::MAX] {
            let mut reader = backing.reader(&memory);
            reader.seek(offset);
            let result = reader.read(&mut bytes);
            assert!(matches!(result, Err(BackingError::Short { .. })));
        }
        let empty = backing_of(&[(5, 0)], &memory, &budget()).unwrap();
        assert_eq!(empty.len(), 0);
        assert!(empty.reader(&memory).read(&mut bytes).is_err());
        assert!(empty.reader(&memory).read(&mut []).is_ok());
    }

    #[test]
    fn pieces_lie_in_the_guests_memory() {
        let memory = memory();
        for piece in [
            (0xfff, 2),
            (0x2000, 1),
            (u64::MAX, 1),
            (u64::MAX - 3, u32::MAX),
        ] {
            assert!(matches!(
                backing_of(&[(0, 16), piece], &memory, &budget()),
                Err(BackingError::Outside { .. })
            ));
        }
    }

    #[test]
    fn memory_that_went_away_is_an_error() {
        let backing = backing_of(&[(0x10000, 16)], &memory(), &budget()).unwrap();
        let less = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        assert!(matches!(
            backing.reader(&less).read(&mut [0; 4]),
            Err(BackingError::Unreadable(_))
        ));
    }

    #[test]
    fn the_list_is_charged_and_bounded_by_the_budget_alone() {
        let memory = memory();
        // Never one behind the other.
        let pieces = |count| (0..count).map(|n| (u64::from(n % 2) * 8, 1));
        for most in [BATCH as u32, 3 * BATCH as u32, 262_144] {
            let bytes = u64::from(most) * 16;
            let budget = Budget::new(bytes);
            let mut backing = Backing::new(&budget).unwrap();
            backing.add(pieces(most), &memory).unwrap();
            assert_eq!((backing.count(), budget.used()), (most as usize, bytes));
            let more = backing.add([(100, 1)], &memory);
            assert!(matches!(more, Err(BackingError::Budget)));
            assert_eq!(backing.len(), u64::from(most));
            drop(backing);
            assert_eq!(budget.used(), 0);
        }
        let budget = budget();
        let backing = backing_of(&[(0, 1), (8, 1)], &memory, &budget).unwrap();
        assert_eq!(budget.used(), 32);
        drop(backing);
    }

    #[test]
    fn what_lies_one_behind_the_other_is_one_entry() {
        let memory = memory();
        let pieces = [(16, 4), (20, 4), (24, 8), (0, 0), (32, 1), (16, 4), (8, 8)];
        let backing = backing_of(&pieces, &memory, &budget()).unwrap();
        assert_eq!((backing.count(), backing.len()), (3, 29));
        let mut bytes = [0; 29];
        backing.reader(&memory).read(&mut bytes).unwrap();
        let expected: Vec<u8> = (16..33).chain(16..20).chain(8..16).collect();
        assert_eq!(bytes[..], expected);
        // In steps as well.
        let mut steps = Backing::new(&budget()).unwrap();
        for piece in pieces {
            steps.add([piece], &memory).unwrap();
        }
        assert_eq!(steps.count(), 3);
    }
}
