// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's memory: memfds that both sides map.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vm_memory::{
    AtomicAccess, Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap,
};

use crate::session::Region;
use crate::{Error, Result};

/// Where guest physical address 0 would lie in the front-end's address space, as it is told to the
/// backend. The backend only subtracts it again, so it need not be true, and is the same in each
/// run.
const USER_BASE: u64 = 0x7000_0000_0000;

/// The guest's memory in one or several regions, each a memfd of its own, and an allocator for it.
///
/// Clones are the same memory.
#[derive(Clone, Debug)]
pub struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    map: GuestMemoryMmap,
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    base: u64,
    size: u64,
    file: File,
    /// The first address not yet given away.
    next: Mutex<u64>,
}

impl Memory {
    /// Memory of `regions`: guest physical address and size in bytes, both multiples of the page
    /// size.
    ///
    /// # Errors
    /// Regions that overlap or are not sorted, or as `memfd_create(2)`, `ftruncate(2)`, `mmap(2)`.
    pub fn new(regions: &[(u64, u64)]) -> Result<Self> {
        let mut parts = Vec::with_capacity(regions.len());
        let mut ranges = Vec::with_capacity(regions.len());
        for &(base, size) in regions {
            let fd = memfd_create("guest memory", MemfdFlags::CLOEXEC)
                .map_err(Error::os("memfd_create"))?;
            ftruncate(&fd, size).map_err(Error::os("ftruncate of a memfd"))?;
            let file = File::from(fd);
            let clone = file.try_clone().map_err(Error::io("dup of a memfd"))?;
            let length = usize::try_from(size).map_err(|e| Error::Memory(e.to_string()))?;
            ranges.push((GuestAddress(base), length, Some(FileOffset::new(clone, 0))));
            parts.push(Part {
                base,
                size,
                file,
                next: Mutex::new(base),
            });
        }
        let map = GuestMemoryMmap::from_ranges_with_files(ranges)
            .map_err(|e| Error::Memory(e.to_string()))?;
        Ok(Self(Arc::new(Inner { map, parts })))
    }

    /// One region of `size` bytes at 1 GiB: an address no index or length is mistaken for.
    ///
    /// # Errors
    /// As [`Memory::new`].
    pub fn with_size(size: u64) -> Result<Self> {
        Self::new(&[(1 << 30, size)])
    }

    /// The guest physical address of `len` bytes that nothing else uses, zeroed, from the first
    /// region that has them.
    ///
    /// # Errors
    /// [`Error::Memory`] if none has.
    pub fn alloc(&self, len: u64, align: u64) -> Result<u64> {
        (0..self.0.parts.len())
            .find_map(|part| self.alloc_in(part, len, align).ok())
            .ok_or_else(|| Error::Memory(format!("no {len} bytes left")))
    }

    /// As [`Memory::alloc`], from region `part` and no other.
    ///
    /// # Errors
    /// [`Error::Memory`] if it has not as much.
    pub fn alloc_in(&self, part: usize, len: u64, align: u64) -> Result<u64> {
        let none = || Error::Memory(format!("no {len} bytes left in region {part}"));
        let part = self.0.parts.get(part).ok_or_else(none)?;
        let mut next = part.next.lock().unwrap_or_else(|e| e.into_inner());
        let start = next
            .checked_next_multiple_of(align.max(1))
            .ok_or_else(none)?;
        let end = start.checked_add(len).ok_or_else(none)?;
        if end > part.base + part.size {
            return Err(none());
        }
        *next = end;
        Ok(start)
    }

    /// The first address after the last region: outside the guest's memory.
    pub fn end(&self) -> u64 {
        self.0
            .parts
            .iter()
            .map(|p| p.base + p.size)
            .max()
            .unwrap_or(0)
    }

    /// The regions as the memory table tells them.
    pub fn regions(&self) -> Vec<Region<'_>> {
        let parts = self.0.parts.iter();
        parts
            .map(|part| Region {
                guest_address: part.base,
                size: part.size,
                user_address: USER_BASE + part.base,
                mmap_offset: 0,
                fd: part.file.as_fd(),
            })
            .collect()
    }

    /// What the backend is told in place of a guest physical address in `SET_VRING_ADDR`.
    pub fn user_address(&self, guest_address: u64) -> u64 {
        USER_BASE.wrapping_add(guest_address)
    }

    /// Writes `bytes` at guest physical `address`.
    ///
    /// # Errors
    /// [`Error::Memory`] outside the regions.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        Ok(self.0.map.write_slice(bytes, GuestAddress(address))?)
    }

    /// Reads as many bytes as `bytes` is long at guest physical `address`.
    ///
    /// # Errors
    /// [`Error::Memory`] outside the regions.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<()> {
        Ok(self.0.map.read_slice(bytes, GuestAddress(address))?)
    }

    /// Writes `len` bytes of `value` at guest physical `address`.
    ///
    /// # Errors
    /// [`Error::Memory`] outside the regions.
    pub fn fill(&self, address: u64, value: u8, len: usize) -> Result<()> {
        let chunk = [value; 4096];
        let mut done = 0;
        while done < len {
            let n = chunk.len().min(len - done);
            self.write(address + done as u64, &chunk[..n])?;
            done += n;
        }
        Ok(())
    }

    pub(crate) fn store<T: AtomicAccess>(&self, address: u64, value: T) -> Result<()> {
        Ok(self
            .0
            .map
            .store(value, GuestAddress(address), Ordering::Release)?)
    }

    pub(crate) fn load<T: AtomicAccess>(&self, address: u64) -> Result<T> {
        Ok(self.0.map.load(GuestAddress(address), Ordering::Acquire)?)
    }

    /// Whether `address` lies in the guest's memory.
    pub fn contains(&self, address: u64) -> bool {
        self.0.map.address_in_range(GuestAddress(address))
    }
}
