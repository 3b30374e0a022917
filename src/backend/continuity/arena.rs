// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of a device that outlives the process: where an extent or a list lies is in a record, and its bytes stay where they
//! are.
//!
//! There is much more address space than may be in use, so that a place is found however the others lie: for first fit,
//! log2(largest / smallest) / 2 + 1 times of what is in use is always enough (Robson, 1977), which is 8
//! for extents of one page to 64 MiB, and twice as much where these begin with a huge page. (A list that shrinks leaves what is behind it
//! to others.) It takes memory only for pages that were written.

use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::ByteValued;

use super::layout::{self, PAGE};
use super::list::List;
use super::pool::{Extents, Pool};
use super::shared_memory::SharedMemory;

/// Address space of an arena for each byte that may be in use.
pub(super) const SPREAD: u64 = 16;

/// Memory in [`Extent`]s and [`List`]s. Clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Arena {
    extents: Arc<Pool>,
    lists: Arc<Pool>,
}

impl Arena {
    /// Extents in the `len` bytes of `images`, and lists in their part of `state`.
    pub(super) fn new(images: SharedMemory, len: u64, state: Arc<SharedMemory>) -> Self {
        images.prefer_huge_pages();
        let extents = Extents {
            base: 0,
            len,
            granule: PAGE,
            has_huge_pages: true,
            warm: 0,
        };
        let lists = Extents {
            base: layout::AT_LISTS,
            len: layout::LISTS_LEN,
            granule: layout::LIST_GRANULE,
            has_huge_pages: false,
            warm: layout::WARM_LISTS,
        };
        Self {
            extents: Arc::new(Pool::new(Arc::new(images), extents)),
            lists: Arc::new(Pool::new(state, lists)),
        }
    }

    /// A new extent of `len` bytes, all 0; none where no place is found, or for no bytes.
    pub(crate) fn allocate(&self, len: usize) -> Option<Extent> {
        let at = self.extents.take(len)?;
        let extent = self.extent(at, len)?;
        // A predecessor that died before its commit may have written here.
        let pages = u64::try_from(len).ok()?.checked_next_multiple_of(PAGE)?;
        self.extents.punch(at, pages);
        Some(extent)
    }

    /// The extent that a record names; none if it is not within the arena, or overlaps another one.
    pub(crate) fn adopt(&self, offset: u64, len: usize) -> Option<Extent> {
        let is_place = self.extents.adopt(offset, len);
        is_place.then(|| self.extent(offset, len))?
    }

    /// The extent of `len` bytes at `offset`, which is taken.
    fn extent(&self, offset: u64, len: usize) -> Option<Extent> {
        Some(Extent {
            address: NonNull::new(self.extents.address(offset, len)?)?,
            pool: self.extents.clone(),
            offset,
            len,
        })
    }

    /// A new list of up to `capacity` elements, which is empty; none where no place is found.
    pub(crate) fn list<T: ByteValued>(&self, capacity: usize) -> Option<List<T>> {
        List::new(&self.lists, capacity)
    }

    /// The list of `len` elements that a record names; none if it is not within the arena, or overlaps another one. What its
    /// elements are is for the caller to check.
    pub(crate) fn adopt_list<T: ByteValued>(&self, place: u64, len: usize) -> Option<List<T>> {
        List::adopt(&self.lists, place, len)
    }

    /// Frees what was dropped: no record names it any more.
    pub(super) fn committed(&self) {
        self.extents.committed();
        self.lists.committed();
    }
}

/// A part of an [`Arena`]. When it is dropped, it is freed with the next commit of the device's ledger.
#[derive(Debug)]
pub(crate) struct Extent {
    address: NonNull<u8>,
    pool: Arc<Pool>,
    offset: u64,
    len: usize,
}

// SAFETY: it owns its part of the arena, as a `Box` does.
unsafe impl Send for Extent {}
// SAFETY: as above.
unsafe impl Sync for Extent {}

impl Extent {
    /// Uses huge pages for what was written, where whole ones fit: copies then miss the TLB less often.
    pub(crate) fn collapse(&self) {
        self.pool.collapse(self.offset, self.len);
    }

    /// Where it lies in the arena, in bytes: for a record.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}

impl Deref for Extent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped for as long as the pool, which this holds, and no other extent overlaps it. No other
        // process writes to it: its predecessor is dead.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl DerefMut for Extent {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len) }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.pool.give_back(self.offset);
    }
}

#[cfg(test)]
mod tests;
