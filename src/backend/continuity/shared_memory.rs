// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A memfd that is mapped shared, and outlives the process in another process's descriptor of it.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, memfd_create};
use rustix::mm::{Advice, madvise};

use super::memory_map::{HUGE_PAGE, MemoryMap};

/// The size of the file never changes again: an access to memory beyond its end would raise SIGBUS.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

/// An empty memfd, whose size [`SharedMemory::map`] sets.
///
/// # Errors
/// As `memfd_create(2)`.
pub(super) fn create(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    Ok(memfd_create(name, flags)?)
}

/// Memory that other processes see. What a process writes is there after its death, in the order in which it wrote it.
///
/// It takes memory of the host only where it was written.
#[derive(Debug)]
pub(super) struct SharedMemory {
    map: MemoryMap,
}

impl SharedMemory {
    /// Maps `len` bytes of `file`. The first call sets the file's size, for good.
    ///
    /// # Errors
    /// If the file has another size, or cannot be mapped.
    pub(super) fn map(file: BorrowedFd<'_>, len: u64) -> io::Result<Self> {
        if fstat(file)?.st_size == 0 {
            rustix::fs::ftruncate(file, len)?;
        }
        // A predecessor may have died before it sealed the file.
        if !fcntl_get_seals(file)?.contains(SEALS) {
            fcntl_add_seals(file, SEALS | SealFlags::SEAL)?;
        }
        // Nobody changes the size from here on.
        let size = fstat(file)?.st_size;
        if u64::try_from(size) != Ok(len) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a file of {size} bytes instead of {len}"),
            ));
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let map = MemoryMap::shared(file, len)?;
        Ok(Self { map })
    }

    /// Memory of the same kind that nobody else sees.
    pub(super) fn private(len: usize) -> io::Result<Self> {
        let map = MemoryMap::private(len)?;
        Ok(Self { map })
    }

    /// Huge pages are used where the host has them for shared memory.
    pub(super) fn prefer_huge_pages(&self) {
        // SAFETY: advice on memory that is mapped.
        let _ = unsafe {
            madvise(
                self.map.address().cast(),
                self.map.len(),
                Advice::LinuxHugepage,
            )
        };
    }

    /// Puts what lies in whole huge pages of the `len` bytes from `at` on, in which something was written, into such
    /// pages, whatever the host has them for.
    pub(super) fn collapse(&self, at: u64, len: usize) {
        let Some(from) = self.address(at, len) else {
            return;
        };
        let skip = from.align_offset(HUGE_PAGE);
        let len = len.saturating_sub(skip) / HUGE_PAGE * HUGE_PAGE;
        if len > 0 {
            // SAFETY: advice on memory that is mapped; it does not change what is in it. It fails on Linux before 6.1, or
            // where no huge pages are left: then access is only slower.
            unsafe { libc::madvise(from.wrapping_add(skip).cast(), len, libc::MADV_COLLAPSE) };
        }
    }

    /// The address of `len` bytes from `at` on; none if they do not exist.
    pub(super) fn address(&self, at: u64, len: usize) -> Option<*mut u8> {
        let at = usize::try_from(at).ok()?;
        let end = at.checked_add(len)?;
        if end > self.map.len() {
            return None;
        }
        Some(self.map.address().wrapping_add(at))
    }

    /// Writes `bytes` at `at`; returns whether they fit.
    #[must_use]
    pub(super) fn write(&self, at: u64, bytes: &[u8]) -> bool {
        let Some(to) = self.address(at, bytes.len()) else {
            return false;
        };
        // SAFETY: the range is mapped for as long as `self`, and no reference to it exists: all accesses of this module go
        // through raw pointers or atomics, images are in files of their own, and lists lie apart from what is written so.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        true
    }

    /// Copies `len` bytes from `from` on to `to`; returns whether both exist.
    #[must_use]
    pub(super) fn copy(&self, from: u64, to: u64, len: usize) -> bool {
        let (Some(source), Some(target)) = (self.address(from, len), self.address(to, len)) else {
            return false;
        };
        // SAFETY: as in `write`; `copy` allows an overlap.
        unsafe { target.copy_from(source, len) };
        true
    }

    /// A copy of `len` bytes from `at` on; none if they do not exist.
    pub(super) fn read(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let from = self.address(at, len)?;
        let mut bytes = vec![0; len];
        // SAFETY: as in `write`.
        unsafe { from.copy_to_nonoverlapping(bytes.as_mut_ptr(), len) };
        Some(bytes)
    }

    /// Whether the bytes at `at` are `bytes`.
    pub(super) fn equals(&self, at: u64, bytes: &[u8]) -> bool {
        self.address(at, bytes.len()).is_some_and(|from| {
            // SAFETY: as in `write`; nobody writes meanwhile.
            unsafe { std::slice::from_raw_parts(from, bytes.len()) == bytes }
        })
    }

    pub(super) fn u32(&self, at: u64) -> Option<&AtomicU32> {
        let address = self
            .address(at, size_of::<AtomicU32>())?
            .cast::<AtomicU32>();
        // SAFETY: mapped for as long as `self`, aligned, and valid for every bit pattern.
        address.is_aligned().then(|| unsafe { &*address })
    }

    pub(super) fn u64(&self, at: u64) -> Option<&AtomicU64> {
        self.words::<1>(at).map(|[word]| word)
    }

    pub(super) fn words<const N: usize>(&self, at: u64) -> Option<&[AtomicU64; N]> {
        let address = self
            .address(at, size_of::<[AtomicU64; N]>())?
            .cast::<[AtomicU64; N]>();
        // SAFETY: mapped for as long as `self`, aligned, and valid for every bit pattern.
        address.is_aligned().then(|| unsafe { &*address })
    }

    /// Gives the memory of whole pages back to the host; they read as 0 then.
    pub(super) fn punch(&self, at: u64, len: u64) {
        let (Ok(at), Ok(len)) = (usize::try_from(at), usize::try_from(len)) else {
            return;
        };
        if len == 0 || at.checked_add(len).is_none_or(|end| end > self.map.len()) {
            return;
        }
        let from = self.map.address().wrapping_add(at);
        // SAFETY: nobody holds a reference to the range, which is mapped: callers punch only what they have freed.
        let punched = unsafe { madvise(from.cast(), len, Advice::LinuxRemove) };
        if let Err(e) = punched {
            log::warn!("cannot give memory back to the host: {e}");
        }
    }
}
