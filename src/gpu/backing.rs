//! A resource's backing: the guest's pages, scattered, in the resource's order.

use vm_memory::{
    Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap,
};

use super::image::{Budget, Charge};

/// Most entries of a backing, as in QEMU.
pub const MAX_ENTRIES: u32 = 16384;

/// What is wrong with a backing.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// Too many entries.
    #[error("{0} entries of backing, more than {MAX_ENTRIES}")]
    Entries(u32),
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
    Host,
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

/// A list of pieces of the guest's memory.
#[derive(Debug)]
pub struct Backing {
    entries: Vec<Entry>,
    len: u64,
    _charge: Charge,
}

impl Backing {
    /// The backing that consists of `pieces` (guest-physical address, length in bytes).
    ///
    /// # Errors
    /// Where a piece lies outside the guest's memory, or the list takes too much of the host's.
    pub fn new(
        pieces: &[(u64, u32)],
        memory: &GuestMemoryMmap,
        budget: &Budget,
    ) -> Result<Self, BackingError> {
        let bytes = std::mem::size_of_val(pieces) as u64;
        let charge = budget.charge(bytes).ok_or(BackingError::Budget)?;
        let mut entries = Vec::new();
        entries
            .try_reserve_exact(pieces.len())
            .map_err(|_| BackingError::Host)?;
        let mut start: u64 = 0;
        // The region of the piece before, in which the next one is likely to lie too.
        let mut last: Option<&GuestRegionMmap> = None;
        for &(addr, len) in pieces.iter().filter(|(_, len)| *len != 0) {
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
            entries.push(Entry { start, addr });
            // 32-bit lengths, bounded in number by what a request can carry: far from overflow.
            start = start.saturating_add(u64::from(len));
        }
        Ok(Self {
            entries,
            len: start,
            _charge: charge,
        })
    }

    /// Bytes of it.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Fills `into` with what lies from `offset` on.
    ///
    /// # Errors
    /// Where it ends before, or is no longer in the guest's memory.
    pub fn read_at(
        &self,
        memory: &GuestMemoryMmap,
        offset: u64,
        into: &mut [u8],
    ) -> Result<(), BackingError> {
        let needed = offset.saturating_add(into.len() as u64);
        if needed > self.len {
            return Err(BackingError::Short {
                has: self.len,
                needed,
            });
        }
        let mut at = offset;
        let mut rest = into;
        let first = self.entries.partition_point(|e| e.start <= offset);
        let mut entries = self
            .entries
            .get(first.saturating_sub(1)..)
            .unwrap_or_default()
            .iter()
            .peekable();
        while let Some(entry) = entries.next() {
            if rest.is_empty() {
                break;
            }
            let end = entries.peek().map_or(self.len, |next| next.start);
            let piece = usize::try_from(end.saturating_sub(at))
                .unwrap_or(usize::MAX)
                .min(rest.len());
            let (now, later) = rest.split_at_mut(piece);
            let addr = entry.addr.saturating_add(at.saturating_sub(entry.start));
            match memory.get_slice(GuestAddress(addr), now.len()) {
                Ok(piece) => {
                    piece.copy_to(now);
                }
                // It goes on in another region.
                Err(_) => memory.read_slice(now, GuestAddress(addr))?,
            }
            at = end;
            rest = later;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn pieces_read_as_one() {
        let memory = memory();
        let pieces = [(7, 3), (0x10005, 1), (100, 0), (20, 11), (0x10ff0, 16)];
        let backing = Backing::new(&pieces, &memory, &budget()).unwrap();
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
                backing.read_at(&memory, start as u64, &mut part).unwrap();
                assert_eq!(part, whole[start..end]);
            }
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let memory = memory();
        let backing = Backing::new(&[(0, 16)], &memory, &budget()).unwrap();
        let mut bytes = [0; 8];
        for offset in [9, 16, u64::MAX] {
            assert!(matches!(
                backing.read_at(&memory, offset, &mut bytes),
                Err(BackingError::Short { .. })
            ));
        }
        let empty = Backing::new(&[(5, 0)], &memory, &budget()).unwrap();
        assert_eq!(empty.len(), 0);
        assert!(empty.read_at(&memory, 0, &mut bytes).is_err());
        assert!(empty.read_at(&memory, 0, &mut []).is_ok());
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
                Backing::new(&[(0, 16), piece], &memory, &budget()),
                Err(BackingError::Outside { .. })
            ));
        }
    }

    #[test]
    fn memory_that_went_away_is_an_error() {
        let backing = Backing::new(&[(0x10000, 16)], &memory(), &budget()).unwrap();
        let less = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        assert!(matches!(
            backing.read_at(&less, 0, &mut [0; 4]),
            Err(BackingError::Unreadable(_))
        ));
    }

    #[test]
    fn the_list_is_charged() {
        let budget = Budget::new(64);
        let pieces = [(0, 1); 4];
        let memory = memory();
        let backing = Backing::new(&pieces, &memory, &budget).unwrap();
        assert!(matches!(
            Backing::new(&pieces, &memory, &budget),
            Err(BackingError::Budget)
        ));
        drop(backing);
        assert_eq!(budget.used(), 0);
    }
}
