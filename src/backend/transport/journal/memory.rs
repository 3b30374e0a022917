// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The regions of the guest's memory that the front-end shares, for a successor.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};

use super::record::{KeptFd, RecordError, Table};
use crate::backend::continuity::{
    FdId, Ledger, Locker, RecordKey, ValueError, ValueReader, ValueWriter,
};

/// Bytes of the header before the regions of a message, and of a region.
const HEADER: usize = 8;
const REGION: usize = 32;
/// Most regions of a `SET_MEM_TABLE`, and descriptors in a packet of the locker.
pub(super) const MAX_TABLE: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Region {
    size: u64,
    user: u64,
    /// In its file.
    offset: u64,
    file: KeptFd,
}

/// A region as a message has it.
pub(super) struct WireRegion {
    pub(super) bytes: [u8; REGION],
    pub(super) file: KeptFd,
}

/// The regions by guest address.
#[derive(Debug, Default)]
pub(super) struct MemoryJournal {
    regions: BTreeMap<u64, Region>,
    /// Regions whose files are each kept alone: by guest address. The locker has room for fewer packets than there can be
    /// regions.
    loose: BTreeMap<u64, OwnedFd>,
}

impl MemoryJournal {
    pub(super) fn read(ledger: &Ledger) -> Result<Self, RecordError> {
        let regions = ledger.read_table(Table::Memory as u16, |guest, value| {
            Ok((guest, Region::decode(value)?))
        })?;
        Ok(Self {
            regions: regions.into_iter().collect(),
            loose: BTreeMap::new(),
        })
    }

    /// `SET_MEM_TABLE`, whose descriptors are kept as `files`.
    pub(super) fn replace(&mut self, payload: &[u8], files: &[KeptFd], ledger: &Ledger) {
        ledger.remove_table(Table::Memory as u16);
        self.regions.clear();
        self.loose.clear();
        let (_, regions) = payload.split_at(HEADER.min(payload.len()));
        for (bytes, file) in regions.chunks_exact(REGION).zip(files) {
            self.insert(bytes, *file, ledger);
        }
    }

    /// `ADD_MEM_REG`. `file` is the descriptor itself.
    pub(super) fn add(
        &mut self,
        payload: &[u8],
        kept: &[KeptFd],
        file: Option<OwnedFd>,
        ledger: &Ledger,
        locker: &Locker,
    ) {
        let (Some(bytes), [kept]) = (payload.get(HEADER..), kept) else {
            return;
        };
        let guest = self.insert(bytes, *kept, ledger);
        if let (Some(guest), Some(file)) = (guest, file) {
            self.loose.insert(guest, file);
            if self.loose.len() >= MAX_TABLE {
                self.bundle(ledger, locker);
            }
        }
    }

    /// `REM_MEM_REG`. Returns where the file was kept.
    pub(super) fn remove(&mut self, payload: &[u8], ledger: &Ledger) -> Option<KeptFd> {
        let guest = payload.get(HEADER..).and_then(|region| word(region, 0))?;
        self.loose.remove(&guest);
        ledger.remove(key(guest));
        self.regions.remove(&guest).map(|region| region.file)
    }

    fn insert(&mut self, bytes: &[u8], file: KeptFd, ledger: &Ledger) -> Option<u64> {
        let guest = word(bytes, 0)?;
        let region = Region {
            size: word(bytes, 8)?,
            user: word(bytes, 16)?,
            offset: word(bytes, 24)?,
            file,
        };
        self.regions.insert(guest, region);
        ledger.write(key(guest), |value| region.encode(value));
        Some(guest)
    }

    /// Keeps the files that are kept one by one together.
    fn bundle(&mut self, ledger: &Ledger, locker: &Locker) {
        let loose = std::mem::take(&mut self.loose);
        let files: Vec<_> = loose.values().map(|file| file.as_fd()).collect();
        match locker.keep(&files) {
            Ok(Some(packet)) => {
                for (index, guest) in (0..).zip(loose.keys()) {
                    if let Some(region) = self.regions.get_mut(guest) {
                        region.file = KeptFd { packet, index };
                        ledger.write(key(*guest), |value| region.encode(value));
                    }
                }
            }
            Ok(None) => {}
            // They stay kept as they are.
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Packets of the locker that regions are in.
    pub(super) fn packets(&self, into: &mut BTreeSet<FdId>) {
        into.extend(self.regions.values().map(|region| region.file.packet));
    }

    /// The regions as messages have them, by guest address.
    pub(super) fn regions(&self) -> impl Iterator<Item = WireRegion> + '_ {
        self.regions.iter().map(|(guest, region)| {
            let mut bytes = [0; REGION];
            let fields = [*guest, region.size, region.user, region.offset];
            for (to, field) in bytes.chunks_exact_mut(8).zip(fields) {
                to.copy_from_slice(&field.to_ne_bytes());
            }
            WireRegion {
                bytes,
                file: region.file,
            }
        })
    }

    pub(super) fn len(&self) -> usize {
        self.regions.len()
    }

    /// The guest's address at the front-end's address `user`.
    pub(super) fn guest_address(&self, user: u64) -> Option<u64> {
        self.regions.iter().find_map(|(guest, region)| {
            let offset = user.checked_sub(region.user)?;
            (offset < region.size).then(|| guest.saturating_add(offset))
        })
    }

    /// The front-end's address of the guest's address `guest`.
    pub(super) fn user_address(&self, guest: u64) -> Option<u64> {
        let (start, region) = self.regions.range(..=guest).next_back()?;
        let offset = guest.checked_sub(*start)?;
        (offset < region.size).then(|| region.user.saturating_add(offset))
    }
}

impl Region {
    fn encode(&self, value: &mut ValueWriter) {
        value.u64(self.size).u64(self.user).u64(self.offset);
        KeptFd::write(Some(self.file), value);
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        Ok(Self {
            size: value.u64()?,
            user: value.u64()?,
            offset: value.u64()?,
            file: KeptFd::read(value)?,
        })
    }
}

fn key(guest: u64) -> RecordKey {
    Table::Memory.key(guest)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}
