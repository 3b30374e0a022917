// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads memory of the host that a blob resource lies in, for displays and cursors.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Arc, OnceLock};

use memmap2::{MmapOptions, MmapRaw};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vm_memory::VolatileSlice;

use super::{BackingError, HostMemory};

/// Memory of the host, mapped into this process by the first read.
#[derive(Debug)]
pub(crate) struct HostMapping {
    memory: HostMemory,
    /// The file, if it is a dmabuf: with fences of devices that draw in it.
    dmabuf: Option<Arc<OwnedFd>>,
    /// `None` if it cannot be mapped.
    mapped: OnceLock<Option<MmapRaw>>,
}

#[cfg_attr(
    not(any(test, feature = "virgl")),
    expect(dead_code, reason = "3D alone makes one")
)]
impl HostMapping {
    /// The file of `memory` must not be shortened: a read would end the process. `is_dmabuf`: the file is a dmabuf, of
    /// which a device may have changed what this processor's caches have.
    pub(crate) fn new(memory: HostMemory, is_dmabuf: bool) -> Self {
        Self {
            dmabuf: is_dmabuf.then(|| Arc::clone(&memory.file)),
            memory,
            mapped: OnceLock::new(),
        }
    }

    /// With a file that stands for the dmabuf, and is readable when that is drawn.
    #[cfg(test)]
    pub(crate) fn with_fences(memory: HostMemory, fences: OwnedFd) -> Self {
        Self {
            memory,
            dmabuf: Some(Arc::new(fences)),
            mapped: OnceLock::new(),
        }
    }

    /// The memory.
    pub(crate) fn memory(&self) -> &HostMemory {
        &self.memory
    }
}

impl HostMapping {
    /// Length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.memory.len
    }

    /// Whether no device draws in it. `DMA_BUF_IOCTL_SYNC` would wait for these without end.
    pub(crate) fn is_drawn(&self) -> bool {
        let Some(dmabuf) = &self.dmabuf else {
            return true;
        };
        let mut fds = [PollFd::new(dmabuf, PollFlags::IN)];
        // Without an answer nobody can say when it is.
        poll(&mut fds, Some(&Timespec::default())) != Ok(0)
    }

    /// Begins to read. While a device draws in it, what is read may be older, or half drawn.
    ///
    /// # Errors
    /// If the memory cannot be mapped.
    pub(super) fn reader(&self) -> Result<Reader<'_>, BackingError> {
        let mapped = self.mapped.get_or_init(|| self.map());
        let mapped = mapped.as_ref().ok_or(BackingError::HostMemory)?;
        let dmabuf = self.dmabuf.as_deref().filter(|_| self.is_drawn());
        let reader = Reader { mapped, dmabuf };
        reader.sync(SYNC_START);
        Ok(reader)
    }

    fn map(&self) -> Option<MmapRaw> {
        let len = usize::try_from(self.memory.len).ok()?;
        let mut options = MmapOptions::new();
        let mapped = options
            .offset(self.memory.offset)
            .len(len)
            .map_raw_read_only(&*self.memory.file);
        mapped
            .inspect_err(|e| log::warn!("cannot map a blob of {len} bytes: {e}"))
            .ok()
    }
}

/// `DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_START` (Linux, linux/dma-buf.h).
const SYNC_START: u64 = 1;
/// `DMA_BUF_SYNC_READ` and `DMA_BUF_SYNC_END`.
const SYNC_END: u64 = 1 | 1 << 2;
/// `DMA_BUF_IOCTL_SYNC`.
const SYNC: libc::Ioctl = libc::_IOW::<u64>(b'b' as u32, 0);

/// Reads a [`HostMapping`].
pub(super) struct Reader<'a> {
    mapped: &'a MmapRaw,
    dmabuf: Option<&'a OwnedFd>,
}

impl Reader<'_> {
    fn sync(&self, flags: u64) {
        if let Some(dmabuf) = self.dmabuf {
            // SAFETY: the ioctl reads 8 bytes. Where it fails, what is read may be older.
            unsafe { libc::ioctl(dmabuf.as_raw_fd(), SYNC, &raw const flags) };
        }
    }

    /// Copies the bytes from `offset` on. The guest and the host may write to them meanwhile.
    ///
    /// # Errors
    /// If there are not as many.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), BackingError> {
        // SAFETY: the mapping is as long and lives as long as the slice, which is only read, and its file is not shortened.
        // Nothing in this process makes references to it.
        let all = unsafe { VolatileSlice::new(self.mapped.as_mut_ptr(), self.mapped.len()) };
        let part = usize::try_from(offset)
            .ok()
            .and_then(|offset| all.subslice(offset, into.len()).ok());
        let part = part.ok_or(BackingError::Short {
            has: self.mapped.len() as u64,
            needed: offset.saturating_add(into.len() as u64),
        })?;
        part.copy_to(into);
        Ok(())
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.sync(SYNC_END);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, memfd_create};

    use super::*;

    fn mapping(offset: u64, len: u64) -> HostMapping {
        HostMapping::new(memory(offset, len), false)
    }

    fn memory(offset: u64, len: u64) -> HostMemory {
        let file = File::from(memfd_create("blob", MemfdFlags::CLOEXEC).unwrap());
        let bytes: Vec<u8> = (0..0x3000_u32).map(|at| (at / 0x1000) as u8).collect();
        file.write_all_at(&bytes, 0).unwrap();
        HostMemory {
            file: Arc::new(file.into()),
            offset,
            len,
            caching: 1,
        }
    }

    #[test]
    fn memory_that_a_device_draws_in_is_read_without_waiting() {
        let fences = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let drawn = fences.try_clone().unwrap();
        let mapping = HostMapping::with_fences(memory(0x1000, 0x1000), fences);
        assert!(!mapping.is_drawn());
        let mut bytes = [9; 2];
        let reader = mapping.reader().unwrap();
        assert!(reader.dmabuf.is_none());
        reader.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1]);
        rustix::io::write(&drawn, &1_u64.to_ne_bytes()).unwrap();
        assert!(mapping.is_drawn());
        assert!(mapping.reader().unwrap().dmabuf.is_some());
    }

    #[test]
    fn bytes_are_those_behind_the_offset() {
        let mapping = mapping(0x1000, 0x2000);
        let reader = mapping.reader().unwrap();
        let mut bytes = [9; 4];
        reader.read(0xffe, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        for offset in [0x1ffd, 0x2000, u64::MAX] {
            let error = reader.read(offset, &mut bytes).unwrap_err();
            assert!(matches!(error, BackingError::Short { has: 0x2000, .. }));
        }
        assert_eq!(bytes, [1, 1, 2, 2]);
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        assert!(mapping(0x10, u64::MAX).reader().is_err());
    }
}
