// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest memory that the front-end shares: its table, and what it added and removed since.

use std::os::fd::OwnedFd;

use rustix::fs::{FileType, fstat};

use super::word;
use crate::backend::transport::file_id::FileId;

/// Bytes of the header before the regions, and of a region.
const TABLE_HEADER: usize = 8;
const REGION: usize = 32;

/// Least bytes of memory that a running guest can use: what Linux has as a block of memory.
const MIN_PLUGGED: u64 = 128 << 20;

/// Limit on regions, the daemon's answer to `GET_MAX_MEM_SLOTS`.
pub(crate) const MAX_REGIONS: usize = 509;

/// Why the front-end cannot share or remove a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MemoryError {
    /// A part of the region is beyond the end of its file. An access to it, which the guest can cause, raises SIGBUS.
    #[error(
        "the front-end shares {size} bytes of guest memory from byte {offset} of a file, which has only {file} bytes"
    )]
    RegionBeyondFile { size: u64, offset: u64, file: u64 },
    #[error(
        "the front-end shares {size} bytes of guest memory at {guest:#x}, which exceed 64 bits"
    )]
    RegionBeyondAddresses { guest: u64, size: u64 },
    #[error(
        "the front-end shares {size} bytes of guest memory at {guest:#x}, which overlap the region at {other:#x}"
    )]
    Overlap { guest: u64, size: u64, other: u64 },
    #[error("the front-end shares more than {MAX_REGIONS} regions of guest memory")]
    TooManyRegions,
    #[error(
        "the front-end removes {size} bytes of guest memory at {guest:#x}, which it does not share"
    )]
    NotShared { guest: u64, size: u64 },
}

/// A region of the guest's memory, in the front-end's address space.
#[derive(Clone, Copy)]
struct Region {
    guest: u64,
    size: u64,
    user: u64,
    /// Offset in its file.
    offset: u64,
    file: Option<FileId>,
}

impl Region {
    fn parse(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            guest: word(bytes, 0)?,
            size: word(bytes, 8)?,
            user: word(bytes, 16)?,
            offset: word(bytes, 24)?,
            file: None,
        })
    }

    fn contains(&self, user: u64) -> bool {
        user.checked_sub(self.user)
            .is_some_and(|offset| offset < self.size)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let begins_in =
            |a: &Self, b: &Self| a.guest.checked_sub(b.guest).is_some_and(|at| at < b.size);
        begins_in(self, other) || begins_in(other, self)
    }

    /// Checks that its addresses do not overflow, and that `file` is large enough. The size of a device node is
    /// unknown.
    fn check(&self, file: &OwnedFd) -> Result<(), MemoryError> {
        let Self {
            guest,
            size,
            user,
            offset,
            ..
        } = *self;
        if guest.checked_add(size).is_none() || user.checked_add(size).is_none() {
            return Err(MemoryError::RegionBeyondAddresses { guest, size });
        }
        let Ok(stat) = fstat(file) else {
            return Ok(());
        };
        let file = u64::try_from(stat.st_size).unwrap_or_default();
        let end = offset.checked_add(size);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
            || end.is_some_and(|end| end <= file)
        {
            return Ok(());
        }
        Err(MemoryError::RegionBeyondFile { size, offset, file })
    }
}

/// The shared regions, sorted by guest address.
#[derive(Default)]
pub(crate) struct SharedMemory(Vec<Region>);

impl SharedMemory {
    /// `SET_MEM_TABLE`: sorts the table, as the daemon accepts no other, and replaces all regions.
    pub(crate) fn replace(
        &mut self,
        payload: &mut [u8],
        fds: &mut [OwnedFd],
    ) -> Result<(), MemoryError> {
        let table = payload.get_mut(TABLE_HEADER..).unwrap_or_default();
        let mut regions: Vec<_> = table
            .chunks_exact(REGION)
            .filter_map(Region::parse)
            .collect();
        for (region, file) in regions.iter_mut().zip(&*fds) {
            region.check(file)?;
            region.file = FileId::of(file);
        }
        // The daemon refuses any other message.
        if regions.len() == fds.len() {
            // Selection sort moves three lists at once; there are few regions.
            for sorted in 0..regions.len() {
                let rest = regions.iter().enumerate().skip(sorted);
                let Some((least, _)) = rest.min_by_key(|(_, region)| region.guest) else {
                    continue;
                };
                regions.swap(sorted, least);
                fds.swap(sorted, least);
                swap_chunks(table, sorted, least);
            }
        }
        let mut shared = Self::default();
        for region in regions {
            shared.insert(region)?;
        }
        *self = shared;
        Ok(())
    }

    /// `ADD_MEM_REG`.
    pub(crate) fn add(&mut self, payload: &[u8], fds: &[OwnedFd]) -> Result<(), MemoryError> {
        // The daemon refuses any other message.
        if let (Some(mut region), [file]) = (only(payload), fds) {
            region.check(file)?;
            region.file = FileId::of(file);
            self.insert(region)?;
        }
        Ok(())
    }

    /// Whether the region of `ADD_MEM_REG` is one into which a device of the VM had the front-end map a file, and not the
    /// guest's memory: it is small, and of a file of its own. Memory that is plugged into a running guest has
    /// [`MIN_PLUGGED`] or more, and so has that guest.
    pub(crate) fn is_map(&self, payload: &[u8], fds: &[OwnedFd]) -> bool {
        let (Some(region), [file]) = (only(payload), fds) else {
            return false;
        };
        let id = FileId::of(file);
        let is_known = self.0.iter().any(|other| other.file == id);
        let sizes = self.0.iter().map(|other| other.size);
        let all = sizes.fold(0, u64::saturating_add);
        region.size < MIN_PLUGGED && MIN_PLUGGED <= all && !is_known
    }

    /// `REM_MEM_REG`.
    pub(crate) fn remove(&mut self, payload: &[u8]) -> Result<(), MemoryError> {
        let Some(Region { guest, size, .. }) = only(payload) else {
            return Ok(());
        };
        let at = self
            .0
            .iter()
            .position(|r| (r.guest, r.size) == (guest, size));
        let at = at.ok_or(MemoryError::NotShared { guest, size })?;
        self.0.remove(at);
        Ok(())
    }

    fn insert(&mut self, region: Region) -> Result<(), MemoryError> {
        let Region { guest, size, .. } = region;
        if let Some(other) = self.0.iter().find(|other| other.overlaps(&region)) {
            let other = other.guest;
            return Err(MemoryError::Overlap { guest, size, other });
        }
        if self.0.len() >= MAX_REGIONS {
            return Err(MemoryError::TooManyRegions);
        }
        let at = self.0.partition_point(|other| other.guest < guest);
        self.0.insert(at, region);
        Ok(())
    }

    /// Whether the front-end's address `user` is in a region.
    pub(crate) fn contains(&self, user: u64) -> bool {
        self.0.iter().any(|region| region.contains(user))
    }

    /// The end of the last region, in the front-end's addresses.
    pub(crate) fn end(&self) -> Option<u64> {
        let last = self.0.last()?;
        last.user.checked_add(last.size)
    }
}

/// The region of `ADD_MEM_REG` or `REM_MEM_REG`.
fn only(payload: &[u8]) -> Option<Region> {
    Region::parse(payload.get(TABLE_HEADER..)?)
}

fn swap_chunks(table: &mut [u8], a: usize, b: usize) {
    let (a, b) = (a.min(b), a.max(b));
    let Some((first, second)) = table.split_at_mut_checked(b.saturating_mul(REGION)) else {
        return;
    };
    let (first, second) = (
        first.chunks_exact_mut(REGION).nth(a),
        second.first_chunk_mut::<REGION>(),
    );
    if let (Some(first), Some(second)) = (first, second) {
        first.swap_with_slice(second);
    }
}
