// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A list in memory that outlives the process. It is written where it stays: a record says only where that is, and how long
//! the list is.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use vm_memory::ByteValued;

use super::layout::LIST_GRANULE;
use super::pool::Pool;

/// Up to a number of elements in an [`Arena`](super::Arena). When it is dropped, its place is freed with the next commit of the
/// device's ledger.
///
/// An element that was pushed after the commit of the list's record is not the successor's.
#[derive(Debug)]
pub(crate) struct List<T> {
    address: NonNull<T>,
    pool: Arc<Pool>,
    place: u64,
    len: usize,
    capacity: usize,
    elements: PhantomData<T>,
}

// SAFETY: it owns its part of the pool, as a `Vec` does. Elements are plain numbers.
unsafe impl<T: ByteValued> Send for List<T> {}
// SAFETY: as above.
unsafe impl<T: ByteValued> Sync for List<T> {}

impl<T: ByteValued> List<T> {
    /// What `count` elements take; an empty list has a place too.
    fn bytes(count: usize) -> Option<usize> {
        const { assert!(align_of::<T>() as u64 <= LIST_GRANULE && size_of::<T>() > 0) };
        count.max(1).checked_mul(size_of::<T>())
    }

    pub(super) fn new(pool: &Arc<Pool>, capacity: usize) -> Option<Self> {
        let place = pool.take(Self::bytes(capacity)?)?;
        Self::at(pool, place, 0, capacity)
    }

    pub(super) fn adopt(pool: &Arc<Pool>, place: u64, len: usize) -> Option<Self> {
        let is_place = pool.adopt(place, Self::bytes(len)?);
        is_place.then(|| Self::at(pool, place, len, len))?
    }

    /// The list at `place`, which is taken and is a multiple of the granule.
    fn at(pool: &Arc<Pool>, place: u64, len: usize, capacity: usize) -> Option<Self> {
        let address = pool.address(place, Self::bytes(capacity)?)?;
        Some(Self {
            address: NonNull::new(address.cast())?,
            pool: pool.clone(),
            place,
            len,
            capacity,
            elements: PhantomData,
        })
    }

    /// Adds an element. Returns whether there was room.
    #[must_use]
    pub(crate) fn push(&mut self, element: T) -> bool {
        if self.len >= self.capacity {
            return false;
        }
        // SAFETY: the place has room for `capacity` elements, is aligned for them, and is mapped for as long as the pool, which
        // this holds. Nobody else has a reference to it.
        unsafe { self.address.add(self.len).write(element) };
        self.len += 1;
        true
    }

    /// Gives back what it has not filled. Nothing can be added any more.
    pub(crate) fn shrink(&mut self) {
        if self.len >= self.capacity {
            return;
        }
        if let Some(bytes) = Self::bytes(self.len) {
            self.capacity = self.len;
            self.pool.shrink(self.place, bytes);
        }
    }
}

impl<T> List<T> {
    /// Where it lies, for a record.
    pub(crate) fn place(&self) -> u64 {
        self.place
    }
}

impl<T: ByteValued> Deref for List<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: as in `push`; all bytes of shared memory have a value, and an element may have any. No other process writes
        // to it: its predecessor is dead.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len) }
    }
}

impl<T> Drop for List<T> {
    fn drop(&mut self) {
        self.pool.give_back(self.place);
    }
}

#[cfg(test)]
mod tests;
