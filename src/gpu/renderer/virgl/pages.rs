//! The guest's pages as the library reads and writes them.

use std::ffi::c_void;

use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::backend::MemoryGuard;
use crate::gpu::backing::BackingError;
use crate::gpu::image::{Budget, Charge};

/// `struct iovec`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(super) struct IoVec {
    pub(super) base: *mut c_void,
    pub(super) len: usize,
}

/// Pieces of the guest's memory, which stays mapped for as long as they are there.
#[derive(Debug)]
pub(super) struct Pages {
    /// As the driver named them, to find them again when the memory is mapped anew.
    pieces: Vec<(u64, u32)>,
    vectors: Box<[IoVec]>,
    len: u64,
    _memory: MemoryGuard,
    _charge: Charge,
}

// SAFETY: the pointers are into the guest's shared memory, which belongs to no thread, and which
// this keeps mapped; nothing in here follows them.
unsafe impl Send for Pages {}
// SAFETY: as for Send.
unsafe impl Sync for Pages {}

impl Pages {
    /// The pages that consist of `pieces` (guest-physical address, length in bytes) of `memory`.
    pub(super) fn new(
        pieces: Vec<(u64, u32)>,
        memory: &MemoryGuard,
        budget: &Budget,
    ) -> Result<Self, BackingError> {
        Self::from_pieces(pieces, memory, budget).map_err(|(_, error)| error)
    }

    /// As [`Pages::new`]; the pieces come back with an error.
    pub(super) fn from_pieces(
        pieces: Vec<(u64, u32)>,
        memory: &MemoryGuard,
        budget: &Budget,
    ) -> Result<Self, (Vec<(u64, u32)>, BackingError)> {
        match Self::vectors_of(&pieces, memory, budget) {
            Ok((vectors, len, charge)) => Ok(Self {
                pieces,
                vectors,
                len,
                _memory: memory.clone(),
                _charge: charge,
            }),
            Err(error) => Err((pieces, error)),
        }
    }

    fn vectors_of(
        pieces: &[(u64, u32)],
        memory: &MemoryGuard,
        budget: &Budget,
    ) -> Result<(Box<[IoVec]>, u64, Charge), BackingError> {
        let mut vectors = Vec::new();
        let mut len: u64 = 0;
        for &(addr, size) in pieces.iter().filter(|(_, len)| *len != 0) {
            // A piece may reach over the end of one region into the next.
            for slice in memory.get_slices(GuestAddress(addr), size as usize) {
                let slice = slice.map_err(|_| BackingError::Outside { addr, len: size })?;
                vectors.push(IoVec {
                    base: slice.ptr_guard_mut().as_ptr().cast(),
                    len: slice.len(),
                });
            }
            len = len.saturating_add(size.into());
        }
        let bytes = size_of_val(pieces).saturating_add(size_of_val(vectors.as_slice()));
        let charge = budget.charge(bytes as u64).ok_or(BackingError::Budget)?;
        Ok((vectors.into_boxed_slice(), len, charge))
    }

    /// The pieces they consist of.
    pub(super) fn into_pieces(self) -> Vec<(u64, u32)> {
        self.pieces
    }

    /// Bytes of them.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Where they lie in this process.
    pub(super) fn vectors(&self) -> &[IoVec] {
        &self.vectors
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

    #[test]
    fn pieces_become_vectors_in_their_order() {
        let memory = memory(&[(0, 0x1000), (0x1000, 0x1000)]);
        let budget = Budget::new(1 << 20);
        let pieces = vec![(0x1800, 16), (7, 0), (0xff0, 0x20)];
        let pages = Pages::new(pieces.clone(), &memory, &budget).unwrap();
        let at = |addr| memory.get_host_address(GuestAddress(addr)).unwrap().cast();
        let vectors: Vec<_> = pages.vectors().iter().map(|v| (v.base, v.len)).collect();
        assert_eq!(
            vectors,
            [(at(0x1800), 16), (at(0xff0), 16), (at(0x1000), 16)]
        );
        assert_eq!(pages.len(), 48);
        assert_eq!(pages.into_pieces(), pieces);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn pieces_lie_in_the_guests_memory() {
        let memory = memory(&[(0, 0x1000)]);
        for piece in [(0xfff, 2), (0x1000, 1), (u64::MAX, 1), (0, u32::MAX)] {
            let pages = Pages::new(vec![(0, 4), piece], &memory, &Budget::new(1 << 20));
            assert!(matches!(pages, Err(BackingError::Outside { .. })));
        }
        let pages = Pages::new(vec![(0, 4)], &memory, &Budget::new(16));
        assert!(matches!(pages, Err(BackingError::Budget)));
    }
}
