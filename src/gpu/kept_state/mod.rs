// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device's state as records of its ledger, for a successor of this process.
//!
//! Only this module reads and writes their bytes. Each part of the device puts its own records while it executes a request,
//! and makes itself of them when a successor builds the device. The records of a request become valid together with its
//! completion ([`QueuePass::add_used`]), all others at the end of the event or message.
//!
//! A successor trusts no record: it may be of another version, or of a process that a guest broke into. What the device
//! would refuse a guest is refused here too. A state that is refused is an error of the device's builder.
//!
//! [`QueuePass::add_used`]: crate::backend::QueuePass::add_used

use crate::backend::continuity::{Arena, Ledger, RecordKey, ValueReader, ValueWriter, value};

mod encoding;
mod error;
mod records;
mod stream_records;

pub(crate) use error::{KeptStateError, RecordError};
pub(crate) use records::{
    BackingRecord, BlobRecord, CursorPositionRecord, CursorShapeRecord, DisplayRecord,
    DriverRecord, ResourceRecord, ScanoutRecord, SentScanout, SizesRecord,
};
pub(crate) use stream_records::{
    IncomingRecord, KeptRequest, MessageRecord, StreamRecord, WaitingRecord,
};

/// A kind of record.
pub(crate) trait Record: Sized {
    /// The number of its table. Those of the GPU are 16 to 31; its displays' connections have 32 to 47.
    const TABLE: u16;
    /// What its table contains, for errors.
    const NAME: &'static str;
    /// If many requests put one, for how many others it leaves a place: see [`Ledger::write_often`].
    const PUT_OFTEN: Option<usize> = None;

    /// Writes its fields.
    fn encode(&self, writer: &mut ValueWriter);

    /// Reads its fields.
    ///
    /// # Errors
    /// If they are none that `encode` writes.
    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError>;
}

/// The records of a device. Clones are the same; the default keeps nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeptState {
    ledger: Ledger,
    arena: Option<Arena>,
}

impl KeptState {
    /// Records in `ledger`. What they say of pixels is where these lie in `arena`.
    pub(crate) fn new(ledger: Ledger, arena: Option<Arena>) -> Self {
        Self { ledger, arena }
    }

    /// Where pixels are kept, if they are.
    pub(crate) fn arena(&self) -> Option<&Arena> {
        self.arena.as_ref()
    }

    /// Whether anything is kept. Who has to gather a record asks first.
    pub(crate) fn is_kept(&self) -> bool {
        self.ledger.is_kept()
    }

    /// Puts a record in place of the one with this id.
    pub(crate) fn put<R: Record>(&self, id: u32, record: &R) {
        let fields = |value: &mut ValueWriter| record.encode(value);
        match R::PUT_OFTEN {
            Some(others) => self.ledger.write_often(key::<R>(id), others, fields),
            None => self.ledger.write(key::<R>(id), fields),
        }
    }

    /// Makes valid what was put and removed. Only where no request is being executed.
    pub(crate) fn commit(&self) {
        self.ledger.commit();
    }

    /// Removes a record, if there is one.
    pub(crate) fn remove<R: Record>(&self, id: u32) {
        self.ledger.remove(key::<R>(id));
    }

    /// Removes all records of a kind.
    pub(crate) fn clear<R: Record>(&self) {
        self.ledger.remove_table(R::TABLE);
    }

    /// The record with this id, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn get<R: Record>(&self, id: u32) -> Result<Option<R>, KeptStateError> {
        let value = self.ledger.get(key::<R>(id));
        let record = value.map(|value| read(u64::from(id), &value));
        record.transpose()
    }

    /// All records of a kind, by id.
    ///
    /// # Errors
    /// If one of them cannot be read.
    pub(crate) fn all<R: Record>(&self) -> Result<Vec<(u32, R)>, KeptStateError> {
        let records = self.ledger.table(R::TABLE).into_iter();
        let records = records.map(|(id, value)| {
            let record = read(id, &value)?;
            let small = u32::try_from(id).map_err(|_| error::<R>(id, RecordError::Id))?;
            Ok((small, record))
        });
        records.collect()
    }
}

fn key<R: Record>(id: u32) -> RecordKey {
    RecordKey::new(R::TABLE, id.into())
}

fn error<R: Record>(id: u64, source: RecordError) -> KeptStateError {
    KeptStateError::Record {
        name: R::NAME,
        id,
        source,
    }
}

fn read<R: Record>(id: u64, value: &[u8]) -> Result<R, KeptStateError> {
    value::read(value, R::decode).map_err(|source| error::<R>(id, source))
}

#[cfg(test)]
mod tests;
