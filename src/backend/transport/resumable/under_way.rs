// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The record of the message under way.

use crate::backend::continuity::{
    InvalidRecord, Ledger, RecordKey, ValueError, ValueReader, ValueWriter,
};
use crate::backend::transport::journal::{KeptFd, Table};

const RECEIVED: u8 = 1;
const REPLIED: u8 = 2;

/// The message of the front-end that is under way, and how far it is. Its successor starts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum UnderWay {
    /// A part of it, or all, was received. It is carried out once it is there, and again if it was already.
    Received {
        /// The count of the front-end's bytes where it begins.
        start: u64,
        fds: Vec<KeptFd>,
        bytes: Vec<u8>,
        /// How many of the last descriptors may be the next message's. All bytes of this one are there then.
        doubtful: usize,
    },
    /// It was carried out, and this is the reply.
    Replied {
        /// The count of the bytes to the front-end where the reply begins.
        start: u64,
        bytes: Vec<u8>,
    },
}

fn key() -> RecordKey {
    Table::UnderWay.key(0)
}

impl UnderWay {
    pub(super) fn read(ledger: &Ledger) -> Result<Option<Self>, InvalidRecord> {
        ledger.read(key(), Self::decode)
    }

    /// Sets the record; it is valid after the next commit.
    pub(super) fn put(&self, ledger: &Ledger) {
        ledger.write(key(), |value| self.encode(value));
    }

    /// No message is under way.
    pub(super) fn remove(ledger: &Ledger) {
        ledger.remove(key());
    }

    fn encode(&self, value: &mut ValueWriter) {
        match self {
            Self::Received {
                start,
                fds,
                bytes,
                doubtful,
            } => {
                // Two packets of 32 at most.
                let count = u8::try_from(fds.len()).unwrap_or(u8::MAX);
                let doubtful = u8::try_from(*doubtful).unwrap_or(u8::MAX);
                value.u8(RECEIVED).u64(*start).u8(count).u8(doubtful);
                for fd in fds.iter().take(count.into()) {
                    KeptFd::write(Some(*fd), value);
                }
                value.bytes(bytes);
            }
            Self::Replied { start, bytes } => {
                value.u8(REPLIED).u64(*start).bytes(bytes);
            }
        }
    }

    fn decode(value: &mut ValueReader<'_>) -> Result<Self, ValueError> {
        match value.u8()? {
            RECEIVED => {
                let start = value.u64()?;
                let count = value.u8()?;
                let doubtful = value.u8()?.into();
                let fds = (0..count).map(|_| KeptFd::read(value));
                let fds = fds.collect::<Result<_, _>>()?;
                let bytes = value.rest().to_vec();
                Ok(Self::Received {
                    start,
                    fds,
                    bytes,
                    doubtful,
                })
            }
            REPLIED => Ok(Self::Replied {
                start: value.u64()?,
                bytes: value.rest().to_vec(),
            }),
            _ => Err(ValueError::Content("a message is in no such stage")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::continuity::value::testing::assert_version;
    use crate::backend::continuity::{FdId, value};

    fn decode(record: &[u8]) -> Result<UnderWay, ValueError> {
        value::read(record, UnderWay::decode)
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        let fd = |bits, index| KeptFd {
            packet: FdId::from_bits(bits).unwrap(),
            index,
        };
        let mut all = Vec::new();
        for under_way in [
            UnderWay::Received {
                start: u64::MAX,
                fds: vec![fd(1, 0), fd(u64::MAX, 31)],
                bytes: b"bytes".to_vec(),
                doubtful: 0,
            },
            UnderWay::Received {
                start: 3,
                fds: vec![fd(1, 0), fd(2, 0), fd(2, 1)],
                bytes: b"whole".to_vec(),
                doubtful: 2,
            },
            UnderWay::Received {
                start: 0,
                fds: Vec::new(),
                bytes: Vec::new(),
                doubtful: 0,
            },
            UnderWay::Replied {
                start: 7,
                bytes: vec![0; 20],
            },
        ] {
            let mut writer = ValueWriter::default();
            under_way.encode(&mut writer);
            let record = writer.as_bytes();
            all.extend(record);
            assert_eq!(decode(record), Ok(under_way));
            for cut in 0..9 {
                assert_eq!(decode(&record[..cut]), Err(ValueError::TooShort));
            }
        }
        assert_version(&all, (3, 0x1df3_35af_b7d2_0d85));
        assert!(decode(&[3; 20]).is_err());
        // A packet of 0.
        let empty = [&[RECEIVED][..], &[0; 8], &[1, 0], &[0; 9]].concat();
        assert!(decode(&empty).is_err());
    }
}
