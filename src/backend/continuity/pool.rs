// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Places in shared memory: which are taken, and which are free. A place that is given back is free after the next commit,
//! when no record that is valid names it.
//!
//! What is taken is known to this process alone. A successor takes the places that the records name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::layout::PAGE;
use super::memory_map::HUGE_PAGE;
use super::shared_memory::SharedMemory;
use crate::backend::lock::lock;

/// Where a pool lies, and of what kind it is. All numbers are bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extents {
    /// Where it begins in its memory: at a page.
    pub(super) base: u64,
    /// Whole pages.
    pub(super) len: u64,
    /// Places begin at multiples of this, and take whole ones.
    pub(super) granule: u64,
    /// Places that are large enough begin with a huge page. They do not shrink: what they leave would keep others from huge
    /// pages.
    pub(super) has_huge_pages: bool,
    /// So much at its beginning keeps its memory when it is free: it is written again soon.
    pub(super) warm: u64,
}

/// Places in a part of a [`SharedMemory`].
#[derive(Debug)]
pub(super) struct Pool {
    memory: Arc<SharedMemory>,
    extents: Extents,
    places: Mutex<Places>,
    /// A place was given back since the last commit.
    has_freed: AtomicBool,
}

#[derive(Debug, Default)]
struct Places {
    /// Length by offset of all places that are taken, with those that are freed at the next commit.
    taken: BTreeMap<u64, u64>,
    freed: Vec<u64>,
    /// A place that was given back and is left in `taken`, with its length: the next one of that length, which a driver that
    /// replaces a buffer often needs, is taken without a search.
    spare: Option<(u64, u64)>,
    /// Everything before this is taken: where the search for a place begins.
    first_free: u64,
}

impl Places {
    /// The first place of `len` bytes.
    fn find(&self, len: u64, extents: &Extents) -> Option<u64> {
        let align = match extents.has_huge_pages && len >= HUGE_PAGE as u64 {
            true => HUGE_PAGE as u64,
            false => extents.granule,
        };
        let mut at = self.first_free.checked_next_multiple_of(align)?;
        for (start, taken) in self.taken.range(self.first_free..) {
            if start.checked_sub(at).is_some_and(|free| free >= len) {
                break;
            }
            let behind = start.checked_add(*taken)?;
            at = at.max(behind.checked_next_multiple_of(align)?);
        }
        (at.checked_add(len)? <= extents.len).then_some(at)
    }

    fn take(&mut self, at: u64, len: u64) {
        self.taken.insert(at, len);
        for (start, len) in self.taken.range(self.first_free..) {
            if *start != self.first_free {
                break;
            }
            self.first_free = start.saturating_add(*len);
        }
    }

    /// The whole pages that are free now, of those in which the place had a part.
    fn free(&mut self, at: u64) -> Range<u64> {
        let Some(len) = self.taken.remove(&at) else {
            return 0..0;
        };
        self.first_free = self.first_free.min(at);
        let before = self.taken.range(..at).next_back();
        let before = before.map_or(0, |(start, len)| start.saturating_add(*len));
        let behind = self.taken.range(at..).next();
        let behind = behind.map_or(u64::MAX, |(start, _)| *start);
        let end = at.saturating_add(len);
        let from = (at / PAGE * PAGE).max(before.checked_next_multiple_of(PAGE).unwrap_or(end));
        let to = end.checked_next_multiple_of(PAGE).unwrap_or(end);
        from..to.min(behind / PAGE * PAGE)
    }
}

impl Pool {
    pub(super) fn new(memory: Arc<SharedMemory>, extents: Extents) -> Self {
        Self {
            memory,
            extents,
            places: Mutex::default(),
            has_freed: AtomicBool::new(false),
        }
    }

    /// What a place of `len` bytes takes; none of no bytes.
    fn whole(&self, len: usize) -> Option<u64> {
        let len = u64::try_from(len).ok().filter(|len| *len > 0)?;
        len.checked_next_multiple_of(self.extents.granule)
    }

    /// Takes a place of `len` bytes, in which anything may be; none where none is free, or for no bytes.
    pub(super) fn take(&self, len: usize) -> Option<u64> {
        let wanted = self.whole(len)?;
        let mut places = lock(&self.places);
        if let Some((at, _)) = places.spare.take_if(|(_, len)| *len == wanted) {
            return Some(at);
        }
        let at = places.find(wanted, &self.extents)?;
        places.take(at, wanted);
        Some(at)
    }

    /// Takes the place that a record names. Returns whether it is one, and is free.
    pub(super) fn adopt(&self, at: u64, len: usize) -> bool {
        let Some(wanted) = self.whole(len) else {
            return false;
        };
        let Some(end) = at.checked_add(wanted) else {
            return false;
        };
        let mut places = lock(&self.places);
        let before = places.taken.range(..end).next_back();
        let is_free = before
            .is_none_or(|(start, taken)| start.checked_add(*taken).is_some_and(|end| end <= at));
        let is_place = at % self.extents.granule == 0 && end <= self.extents.len && is_free;
        if is_place {
            places.take(at, wanted);
        }
        is_place
    }

    /// Leaves `len` bytes to the place `at`, which is larger and of which no record names more.
    pub(super) fn shrink(&self, at: u64, len: usize) {
        let mut places = lock(&self.places);
        let (Some(wanted), Some(taken)) = (self.whole(len), places.taken.get_mut(&at)) else {
            return;
        };
        if wanted < *taken {
            *taken = wanted;
            places.first_free = places.first_free.min(at.saturating_add(wanted));
        }
    }

    /// Gives the place `at` back.
    pub(super) fn give_back(&self, at: u64) {
        let mut places = lock(&self.places);
        places.freed.push(at);
        // Under the lock: a commit of another thread frees it, or the next one does.
        self.has_freed.store(true, Ordering::Relaxed);
    }

    /// What was given back is free now: no record names it any more.
    pub(super) fn committed(&self) {
        if !self.has_freed.load(Ordering::Relaxed) {
            return;
        }
        let mut places = lock(&self.places);
        self.has_freed.store(false, Ordering::Relaxed);
        while let Some(at) = places.freed.pop() {
            self.free(&mut places, at);
        }
    }

    /// Frees the place `at`. One whose memory stays anyway may become the spare one, and the last of these is freed instead.
    fn free(&self, places: &mut Places, at: u64) {
        let len = places.taken.get(&at).copied().unwrap_or(0);
        let is_warm = at.saturating_add(len) <= self.extents.warm;
        let at = match is_warm {
            false => at,
            true => match places.spare.replace((at, len)) {
                Some((old, _)) => old,
                None => return,
            },
        };
        let pages = places.free(at);
        let from = pages.start.max(self.extents.warm);
        if let Some(len) = pages.end.checked_sub(from).filter(|len| *len > 0) {
            self.punch(from, len);
        }
    }

    /// Gives the memory of whole pages back to the host; they read as 0 then.
    pub(super) fn punch(&self, at: u64, len: u64) {
        self.memory.punch(self.extents.base.saturating_add(at), len);
    }

    /// See [`SharedMemory::collapse`].
    pub(super) fn collapse(&self, at: u64, len: usize) {
        let at = self.extents.base.saturating_add(at);
        self.memory.collapse(at, len);
    }

    /// The address of the first `len` bytes of the place `at`, which stays valid for as long as this pool.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        self.memory.address(self.extents.base.checked_add(at)?, len)
    }
}

#[cfg(test)]
mod tests;
