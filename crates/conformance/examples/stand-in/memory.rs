// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's memory, as the front-end shares it.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use vm_memory::mmap::MmapRegion;
use vm_memory::{
    Bytes, FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap,
};

use crate::fault;

/// A region as a message tells it: guest address, size, front-end's address, offset.
pub(crate) type Region = [u64; 4];

#[derive(Default)]
pub(crate) struct Memory {
    regions: Vec<(Region, Arc<File>)>,
    map: Option<GuestMemoryMmap>,
}

/// The other end did what it must not.
#[derive(Debug)]
pub(crate) struct Broken;

impl Memory {
    pub(crate) fn set(&mut self, regions: Vec<(Region, OwnedFd)>) -> Result<(), Broken> {
        let again = !self.regions.is_empty();
        if again && fault("protocol/memory-replaced:ignored") {
            return Ok(());
        }
        let before = std::mem::take(&mut self.regions);
        if fault("protocol/memory-leak") {
            std::mem::forget(regions.first().map(|(_, fd)| fd.try_clone()));
        }
        let kept = |region: &Region| {
            let same = before.iter().find(|(other, _)| other == region);
            same.filter(|_| fault("protocol/memory-replaced:same-address"))
        };
        let files = regions.into_iter().map(|(region, fd)| match kept(&region) {
            Some((_, file)) => (region, file.clone()),
            None => (region, Arc::new(File::from(fd))),
        });
        self.regions = files.collect();
        if fault("protocol/memory-regions") {
            self.regions.truncate(1);
        }
        if again && fault("protocol/memory-replaced") {
            self.map = None;
            return Ok(());
        }
        self.rebuild()
    }

    pub(crate) fn add(&mut self, region: Region, fd: OwnedFd) -> Result<(), Broken> {
        let is_there = self.regions.iter().any(|(other, _)| *other == region);
        if is_there && fault("protocol/memory-slots:not-removed") {
            return Ok(());
        }
        self.regions.push((region, Arc::new(File::from(fd))));
        self.rebuild()
    }

    pub(crate) fn remove(&mut self, region: Region) -> Result<(), Broken> {
        if fault("protocol/memory-slots") {
            self.regions.remove(0);
            return self.rebuild();
        }
        if fault("protocol/memory-slots:not-removed") {
            return Ok(());
        }
        if fault("protocol/memory-slots:still-mapped") {
            std::mem::forget(self.map.clone());
        }
        let before = self.regions.len();
        self.regions.retain(|(other, _)| other[..3] != region[..3]);
        match before == self.regions.len() {
            true => Err(Broken),
            false => self.rebuild(),
        }
    }

    fn rebuild(&mut self) -> Result<(), Broken> {
        self.regions.sort_by_key(|(region, _)| region[0]);
        let mut regions = Vec::new();
        for ([address, size, _, offset], file) in &self.regions {
            let offset = if fault("protocol/memory-offset") {
                0
            } else {
                *offset
            };
            let end = offset.checked_add(*size).ok_or(Broken)?;
            let length = file.metadata().map_err(|_| Broken)?.len();
            if *size == 0 || end > length || address.checked_add(*size).is_none() {
                return Err(Broken);
            }
            let place = FileOffset::from_arc(file.clone(), offset);
            let size = usize::try_from(*size).map_err(|_| Broken)?;
            let region = MmapRegion::from_file(place, size).map_err(|_| Broken)?;
            regions.push(GuestRegionMmap::new(region, GuestAddress(*address)).ok_or(Broken)?);
        }
        self.map = Some(GuestMemoryMmap::from_regions(regions).map_err(|_| Broken)?);
        Ok(())
    }

    /// The guest's address of what lies at `address` in the front-end.
    pub(crate) fn translate(&self, address: u64) -> Result<u64, Broken> {
        let found = self.regions.iter().find_map(|([guest, size, user, _], _)| {
            let within = address.checked_sub(*user)?;
            (within < *size).then(|| guest + within)
        });
        found.ok_or(Broken)
    }

    pub(crate) fn read(&self, address: u64, len: usize) -> Result<Vec<u8>, Broken> {
        // No request of the checks is larger.
        if len > 1 << 20 {
            return Err(Broken);
        }
        let mut bytes = vec![0; len];
        let map = self.map.as_ref().ok_or(Broken)?;
        map.read_slice(&mut bytes, GuestAddress(address))
            .map_err(|_| Broken)?;
        Ok(bytes)
    }

    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Broken> {
        let map = self.map.as_ref().ok_or(Broken)?;
        map.write_slice(bytes, GuestAddress(address))
            .map_err(|_| Broken)
    }

    pub(crate) fn u16(&self, address: u64) -> Result<u16, Broken> {
        let bytes = self.read(address, 2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    pub(crate) fn contains(&self, address: u64, len: u64) -> bool {
        let map = self.map.as_ref();
        map.is_some_and(|map| map.check_range(GuestAddress(address), len as usize))
    }
}
