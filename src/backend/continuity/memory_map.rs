// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A mapping that can have huge pages: its address is a multiple of their size.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

/// Bytes of a huge page, at least on x86-64. Where they are larger there are none.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// Memory of this process, or shared memory of a file, that can be read and written.
#[derive(Debug)]
pub(super) struct MemoryMap {
    address: *mut u8,
    len: usize,
}

// SAFETY: it is memory, whose users see to what is written by whom.
unsafe impl Send for MemoryMap {}
// SAFETY: as above.
unsafe impl Sync for MemoryMap {}

impl MemoryMap {
    /// The first `len` bytes of `file`, shared.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub(super) fn shared(file: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        let more = len
            .checked_add(HUGE_PAGE)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        // Larger by a huge page, so that an address within is a multiple. What is too much is unmapped with it.
        let room = Self::anonymous(more, ProtFlags::empty())?;
        let skip = room.address.align_offset(HUGE_PAGE);
        let address = room.address.wrapping_add(skip);
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: it replaces pages of `room`, which nobody else knows.
        unsafe { mmap(address.cast(), len, read_write, flags, file, 0)? };
        let map = Self { address, len };
        room.unmap_all_but(skip, len);
        Ok(map)
    }

    /// `len` bytes that nobody else sees, all 0.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub(super) fn private(len: usize) -> io::Result<Self> {
        Self::anonymous(len, ProtFlags::READ | ProtFlags::WRITE)
    }

    fn anonymous(len: usize, protection: ProtFlags) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a mapping at an address of which the kernel knows that it is free.
        let address = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, flags)? };
        Ok(Self {
            address: address.cast(),
            len,
        })
    }

    /// Leaves `len` bytes after the first `skip` ones to another owner.
    fn unmap_all_but(self, skip: usize, len: usize) {
        let end = skip.saturating_add(len);
        let parts = [(0, skip), (end, self.len.saturating_sub(end))];
        for (at, len) in parts {
            drop(Self {
                address: self.address.wrapping_add(at),
                len,
            });
        }
        std::mem::forget(self);
    }

    pub(super) fn address(&self) -> *mut u8 {
        self.address
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for MemoryMap {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: this owns the pages, and nobody uses them any more. It fails for no such range.
            let _ = unsafe { munmap(self.address.cast(), self.len) };
        }
    }
}
