// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backing as iovecs, by which virglrenderer reads and writes the guest's memory.

use std::ffi::c_void;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::backend::MemoryGuard;
use crate::gpu::resource::{Backing, BackingError, Budget, Charge, GuestRange};

/// `struct iovec` (readv(2)), in memory of the guest that stays mapped as long as the borrow lasts. Only
/// this file makes one, and it cannot be copied.
#[derive(Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct IoVec {
    base: *mut c_void,
    len: usize,
}

#[cfg(any(test, feature = "fuzzing"))]
impl IoVec {
    pub(super) fn base(&self) -> *mut c_void {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

/// The iovecs of a backing. They keep the guest's memory mapped.
#[derive(Debug)]
pub(super) struct GuestIovecs {
    /// To look the iovecs up again when the guest's memory is mapped anew.
    backing: Backing,
    /// Runs that are adjacent in this process's address space make one.
    iovecs: Box<[IoVec]>,
    _memory: MemoryGuard,
    _charge: Charge,
}

// SAFETY: the pointers are into the guest's shared memory, which belongs to no thread and stays mapped
// meanwhile; this file does not dereference them.
unsafe impl Send for GuestIovecs {}
// SAFETY: as for Send.
unsafe impl Sync for GuestIovecs {}

impl GuestIovecs {
    /// The iovecs of `backing` in `memory`.
    ///
    /// # Errors
    /// If the backing is outside `memory`, or memory for the list is short. Returns the backing too.
    pub(super) fn new(
        backing: Backing,
        memory: &MemoryGuard,
        budget: &Budget,
    ) -> Result<Self, Box<(Backing, BackingError)>> {
        match iovecs_of(&backing, memory, budget) {
            Ok((iovecs, charge)) => Ok(Self {
                backing,
                iovecs,
                _memory: memory.clone(),
                _charge: charge,
            }),
            Err(error) => Err(Box::new((backing, error))),
        }
    }

    /// The backing, without its iovecs.
    pub(super) fn into_backing(self) -> Backing {
        self.backing
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.backing.len()
    }

    pub(super) fn as_slice(&self) -> &[IoVec] {
        &self.iovecs
    }

    /// A finder at offset 0.
    pub(super) fn finder(&self) -> Finder<'_> {
        Finder {
            iovecs: &self.iovecs,
            start: 0,
        }
    }
}

/// The iovecs of a backing, and the charge for the list.
fn iovecs_of(
    backing: &Backing,
    memory: &MemoryGuard,
    budget: &Budget,
) -> Result<(Box<[IoVec]>, Charge), BackingError> {
    // A run may continue in the next region. This is rare, since there are few regions.
    let bytes = |count: usize| (count as u64).saturating_mul(size_of::<IoVec>() as u64);
    let charge = budget.charge(bytes(backing.count()));
    let mut charge = charge.ok_or(BackingError::Budget)?;
    let mut iovecs: Vec<IoVec> = Vec::new();
    iovecs
        .try_reserve_exact(backing.count())
        .map_err(|_| BackingError::HostMemory)?;
    for GuestRange { addr, len } in backing.runs() {
        for slice in memory.get_slices(GuestAddress(addr), len as usize) {
            let slice = slice.map_err(|_| BackingError::Outside {
                addr,
                len: u32::try_from(len).unwrap_or(u32::MAX),
            })?;
            let base: *mut c_void = slice.ptr_guard_mut().as_ptr().cast();
            let len = slice.len();
            match iovecs.last_mut() {
                Some(last) if last.base.wrapping_byte_add(last.len) == base => last.len += len,
                _ => iovecs.push(IoVec { base, len }),
            }
        }
    }
    let iovecs = iovecs.into_boxed_slice();
    if !charge.resize(budget, bytes(iovecs.len())) {
        return Err(BackingError::Budget);
    }
    Ok((iovecs, charge))
}

/// Finds ranges of [`GuestIovecs`], in ascending order of their offsets.
pub(super) struct Finder<'a> {
    /// The iovecs from here on.
    iovecs: &'a [IoVec],
    /// Offset of the first of them.
    start: u64,
}

/// The iovecs that contain a range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct IovecRange<'a> {
    pub(super) iovecs: &'a [IoVec],
    /// Offset of the range in these iovecs.
    pub(super) offset: u64,
}

impl<'a> Finder<'a> {
    /// Finds the iovecs that contain the `len` bytes from `offset` on, or as many of them as there are;
    /// `None` if that takes more than `most` iovecs.
    pub(super) fn find(&mut self, offset: u64, len: u64, most: usize) -> Option<IovecRange<'a>> {
        while let Some((first, rest)) = self.iovecs.split_first() {
            let end = self.start.saturating_add(first.len as u64);
            if offset < end {
                break;
            }
            (self.iovecs, self.start) = (rest, end);
        }
        let skip = offset.saturating_sub(self.start);
        let mut left = skip.saturating_add(len);
        let mut count: usize = 0;
        for iovec in self.iovecs {
            if left == 0 {
                break;
            }
            if count == most {
                return None;
            }
            left = left.saturating_sub(iovec.len as u64);
            count = count.saturating_add(1);
        }
        Some(IovecRange {
            iovecs: self.iovecs.get(..count)?,
            offset: skip,
        })
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

    use super::*;
    use crate::gpu::protocol::MemEntry;

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
        let pieces = pieces.iter().copied().map(MemEntry::from);
        backing.add(pieces, memory).unwrap();
        backing.finish();
        backing
    }

    #[test]
    fn runs_become_iovecs_in_order() {
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
        let iovecs = GuestIovecs::new(list, &memory, &budget).unwrap();
        let at = |addr| memory.get_host_address(GuestAddress(addr)).unwrap().cast();
        let found: Vec<_> = iovecs.as_slice().iter().map(|v| (v.base, v.len)).collect();
        let [end, next]: [*mut c_void; 2] = [at(0xfe0), at(0x1000)];
        if end.wrapping_byte_add(0x20) == next {
            assert_eq!(found, [(at(0x1800), 16), (end, 48), (at(4), 8)]);
        } else {
            let expected = [(at(0x1800), 16), (end, 32), (next, 16), (at(4), 8)];
            assert_eq!(found, expected);
        }
        assert_eq!(iovecs.len(), 72);
        assert_eq!(budget.used(), (found.len() as u64 + 3) * 16);
        assert_eq!(iovecs.into_backing().count(), 3);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn entries_outside_the_guests_memory_are_refused() {
        let budget = Budget::new(1 << 20);
        let list = || backing(&[(0, 4), (0x1000, 16)], &memory(&[(0, 0x2000)]), &budget);
        let less = memory(&[(0, 0x1000)]);
        let iovecs = GuestIovecs::new(list(), &less, &budget);
        let failed = iovecs.map(drop).map_err(|failed| failed.1);
        assert!(matches!(failed, Err(BackingError::Outside { .. })));
        let iovecs = GuestIovecs::new(list(), &memory(&[(0, 0x2000)]), &Budget::new(31));
        let failed = iovecs.map(drop).map_err(|failed| failed.1);
        assert!(matches!(failed, Err(BackingError::Budget)));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn ranges_are_found_in_order() {
        let memory = memory(&[(0, 0x1000)]);
        let budget = Budget::new(1 << 20);
        // 1 to 5 bytes, not adjacent.
        let pieces: Vec<_> = (0..50_u32).map(|n| (u64::from(n) * 7, n % 5 + 1)).collect();
        let iovecs =
            GuestIovecs::new(backing(&pieces, &memory, &budget), &memory, &budget).unwrap();
        let all: Vec<*mut c_void> = iovecs
            .as_slice()
            .iter()
            .flat_map(|v| (0..v.len).map(|at| v.base.wrapping_byte_add(at)))
            .collect();
        assert_eq!(all.len(), 150);
        for len in [1, 2, 7, 40, 150] {
            let mut finder = iovecs.finder();
            for offset in (0..150).step_by(3) {
                let range = finder.find(offset, len, usize::MAX).unwrap();
                let found = range.iovecs;
                let bytes = found
                    .iter()
                    .flat_map(|v| (0..v.len).map(|at| v.base.wrapping_byte_add(at)));
                let end = 150.min(offset + len);
                let bytes: Vec<_> = bytes
                    .skip(range.offset as usize)
                    .take(len as usize)
                    .collect();
                assert_eq!(bytes, all[offset as usize..end as usize]);
                // No more iovecs than needed.
                assert!(found.len() as u64 <= len + 1);
                assert_eq!(finder.find(offset, len, found.len() - 1), None);
            }
            let end = IovecRange {
                iovecs: &[],
                offset: 0,
            };
            assert_eq!(finder.find(150, 1, 1), Some(end));
        }
    }
}
