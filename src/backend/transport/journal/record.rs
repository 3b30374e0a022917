// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The tables of the proxy's ledger, and what their records have in common.

use crate::backend::continuity::{
    FdId, InvalidRecord, RecordKey, ValueError, ValueReader, ValueWriter,
};

/// The tables of [`Owner::Proxy`](crate::backend::continuity::Owner::Proxy).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend::transport) enum Table {
    /// The front-end's connection.
    Connection = 1,
    /// The message under way.
    UnderWay = 2,
    /// Messages that set the device up, by request and virtqueue.
    Setup = 3,
    /// Regions of the guest's memory, by guest address.
    Memory = 4,
    /// The channel back to the front-end.
    Channel = 5,
}

impl Table {
    /// The key of the record `id`.
    pub(in crate::backend::transport) fn key(self, id: u64) -> RecordKey {
        RecordKey {
            table: self as u16,
            id,
        }
    }
}

/// Why the records of a predecessor cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("what was kept of the front-end's messages is damaged: {0}")]
    Damaged(#[from] InvalidRecord),
    #[error("more was received of a message of the front-end than was kept")]
    UnderWay,
    #[error("a file descriptor of the front-end was not kept")]
    Descriptor,
}

/// A descriptor that is kept: a packet of the locker, and its place in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::backend::transport) struct KeptFd {
    pub(in crate::backend::transport) packet: FdId,
    pub(in crate::backend::transport) index: u8,
}

impl KeptFd {
    /// Writes where a descriptor is kept, or that there is none.
    pub(in crate::backend::transport) fn write(fd: Option<Self>, value: &mut ValueWriter) {
        let packet = fd.map_or(0, |fd| fd.packet.to_bits());
        value.u64(packet).u8(fd.map_or(0, |fd| fd.index));
    }

    /// Reads where a descriptor is kept, if there is one.
    ///
    /// # Errors
    /// If the value is too short.
    pub(in crate::backend::transport) fn read_optional(
        value: &mut ValueReader<'_>,
    ) -> Result<Option<Self>, ValueError> {
        let (packet, index) = (FdId::from_bits(value.u64()?), value.u8()?);
        Ok(packet.map(|packet| Self { packet, index }))
    }

    /// Reads where a descriptor is kept.
    ///
    /// # Errors
    /// If the value is too short, or there is none.
    pub(in crate::backend::transport) fn read(
        value: &mut ValueReader<'_>,
    ) -> Result<Self, ValueError> {
        let fd = Self::read_optional(value)?;
        fd.ok_or(ValueError::Content("a file descriptor is missing"))
    }
}
