//! The guest's pages as the library reads and writes them.

use std::ffi::c_void;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::backend::MemoryGuard;
use crate::gpu::resource::{Backing, BackingError};
use crate::gpu::resource::{Budget, Charge};

/// `struct iovec`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: *mut c_void,
    pub(super) len: usize,
}

/// Pieces of the guest's memory, which stays mapped for as long as they are there.
#[derive(Debug)]
pub(super) struct Pages {
    /// As the driver named them, to find them again when the memory is mapped anew.
    backing: Backing,
    /// Those that lie one behind the other in this process are one.
    vectors: Box<[IoVec]>,
    _memory: MemoryGuard,
    _charge: Charge,
}

// SAFETY: the pointers are into the guest's shared memory, which belongs to no thread, and which
// this keeps mapped; nothing in here follows them.
unsafe impl Send for Pages {}
// SAFETY: as for Send.
unsafe impl Sync for Pages {}

impl Pages {
    /// The pages of `backing` in `memory`; it comes back with an error.
    pub(super) fn new(
        backing: Backing,
        memory: &MemoryGuard,
        budget: &Budget,
    ) -> Result<Self, (Backing, BackingError)> {
        match vectors_of(&backing, memory, budget) {
            Ok((vectors, charge)) => Ok(Self {
                backing,
                vectors,
                _memory: memory.clone(),
                _charge: charge,
            }),
            Err(error) => Err((backing, error)),
        }
    }

    /// The backing they are the pages of.
    pub(super) fn into_backing(self) -> Backing {
        self.backing
    }

    /// Bytes of them.
    pub(super) fn len(&self) -> u64 {
        self.backing.len()
    }

    /// Where they lie in this process.
    pub(super) fn vectors(&self) -> &[IoVec] {
        &self.vectors
    }

    /// Looks for parts of them from their beginning on.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder {
            vectors: &self.vectors,
            start: 0,
        }
    }
}

/// Where a backing lies in this process, and the charge for saying so.
fn vectors_of(
    backing: &Backing,
    memory: &MemoryGuard,
    budget: &Budget,
) -> Result<(Box<[IoVec]>, Charge), BackingError> {
    // A piece may reach over the end of one region into the next, and there are few of these.
    let bytes = |count: usize| (count as u64).saturating_mul(size_of::<IoVec>() as u64);
    let charge = budget.charge(bytes(backing.count()));
    let mut charge = charge.ok_or(BackingError::Budget)?;
    let mut vectors: Vec<IoVec> = Vec::new();
    vectors
        .try_reserve_exact(backing.count())
        .map_err(|_| BackingError::HostMemory)?;
    for (addr, len) in backing.entries() {
        for slice in memory.get_slices(GuestAddress(addr), len as usize) {
            let slice = slice.map_err(|_| BackingError::Outside {
                addr,
                len: u32::try_from(len).unwrap_or(u32::MAX),
            })?;
            let base: *mut c_void = slice.ptr_guard_mut().as_ptr().cast();
            let len = slice.len();
            match vectors.last_mut() {
                Some(last) if last.base.wrapping_byte_add(last.len) == base => last.len += len,
                _ => vectors.push(IoVec { base, len }),
            }
        }
    }
    let vectors = vectors.into_boxed_slice();
    if !charge.resize(budget, bytes(vectors.len())) {
        return Err(BackingError::Budget);
    }
    Ok((vectors, charge))
}

/// Finds parts of [`Pages`], each further on than the one before.
pub(super) struct Finder<'a> {
    /// Those from here on.
    vectors: &'a [IoVec],
    /// Where in the pages they begin.
    start: u64,
}

impl<'a> Finder<'a> {
    /// The vectors in which `len` bytes from `offset` on lie, as far as they are there, and where in
    /// these they begin; `None` where these are more than `most`.
    pub(super) fn find(
        &mut self,
        offset: u64,
        len: u64,
        most: usize,
    ) -> Option<(&'a [IoVec], u64)> {
        while let Some((first, rest)) = self.vectors.split_first() {
            let end = self.start.saturating_add(first.len as u64);
            if offset < end {
                break;
            }
            (self.vectors, self.start) = (rest, end);
        }
        let skip = offset.saturating_sub(self.start);
        let mut left = skip.saturating_add(len);
        let mut count: usize = 0;
        for vector in self.vectors {
            if left == 0 {
                break;
            }
            if count == most {
                return None;
            }
            left = left.saturating_sub(vector.len as u64);
            count = count.saturating_add(1);
        }
        Some((self.vectors.get(..count)?, skip))
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

    use super::*;

    fn memory(regions: &[(u64, usize)]) -> MemoryGuard {
        let regions: Vec<_> = regions
            .iter()
            .map(|(a, l)| (GuestAddress(*a), *l))
            .collect();
        let memory = GuestMemoryMmap::from_ranges(&regions).unwrap();
        GuestMemoryAtomic::new(memory).memory()
    }

    fn backing(pieces: &[(u64, u32)], memory: &MemoryGuard, budget: &Budget) -> Backing {
        let mut backing = Backing::new(budget).unwrap();
        backing.add(pieces.iter().copied(), memory).unwrap();
        backing.finish();
        backing
    }

    #[test]
    fn pieces_become_vectors_in_their_order() {
        let memory = memory(&[(0, 0x1000), (0x1000, 0x1000)]);
        let budget = Budget::new(1 << 20);
        let pieces = [
            (0x1800, 16),
            (7, 0),
            (0xfe0, 0x10),
            (0xff0, 0x20),
            (4, 4),
            (8, 4),
        ];
        let list = backing(&pieces, &memory, &budget);
        let pages = Pages::new(list, &memory, &budget).unwrap();
        let at = |addr| memory.get_host_address(GuestAddress(addr)).unwrap().cast();
        let vectors: Vec<_> = pages.vectors().iter().map(|v| (v.base, v.len)).collect();
        let [end, next]: [*mut c_void; 2] = [at(0xfe0), at(0x1000)];
        if end.wrapping_byte_add(0x20) == next {
            assert_eq!(vectors, [(at(0x1800), 16), (end, 48), (at(4), 8)]);
        } else {
            let expected = [(at(0x1800), 16), (end, 32), (next, 16), (at(4), 8)];
            assert_eq!(vectors, expected);
        }
        assert_eq!(pages.len(), 72);
        assert_eq!(budget.used(), (vectors.len() as u64 + 3) * 16);
        assert_eq!(pages.into_backing().count(), 3);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn pieces_lie_in_the_guests_memory() {
        let budget = Budget::new(1 << 20);
        let list = || backing(&[(0, 4), (0x1000, 16)], &memory(&[(0, 0x2000)]), &budget);
        let less = memory(&[(0, 0x1000)]);
        let pages = Pages::new(list(), &less, &budget);
        assert!(matches!(pages, Err((_, BackingError::Outside { .. }))));
        drop(pages);
        let pages = Pages::new(list(), &memory(&[(0, 0x2000)]), &Budget::new(31));
        assert!(matches!(pages, Err((_, BackingError::Budget))));
        drop(pages);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn parts_are_found_in_their_order() {
        let memory = memory(&[(0, 0x1000)]);
        let budget = Budget::new(1 << 20);
        // 1 to 5 bytes, two apart.
        let pieces: Vec<_> = (0..50_u32).map(|n| (u64::from(n) * 7, n % 5 + 1)).collect();
        let pages = Pages::new(backing(&pieces, &memory, &budget), &memory, &budget).unwrap();
        let all: Vec<*mut c_void> = pages
            .vectors()
            .iter()
            .flat_map(|v| (0..v.len).map(|at| v.base.wrapping_byte_add(at)))
            .collect();
        assert_eq!(all.len(), 150);
        for len in [1, 2, 7, 40, 150] {
            let mut finder = pages.finder();
            for offset in (0..150).step_by(3) {
                let (found, skip) = finder.find(offset, len, usize::MAX).unwrap();
                let bytes = found
                    .iter()
                    .flat_map(|v| (0..v.len).map(|at| v.base.wrapping_byte_add(at)));
                let end = 150.min(offset + len);
                let bytes: Vec<_> = bytes.skip(skip as usize).take(len as usize).collect();
                assert_eq!(bytes, all[offset as usize..end as usize]);
                // No more than it takes.
                assert!(found.len() as u64 <= len + 1);
                assert_eq!(finder.find(offset, len, found.len() - 1), None);
            }
            assert_eq!(finder.find(150, 1, 1), Some((&[][..], 0)));
        }
    }
}
