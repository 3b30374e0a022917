// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The records of the connection to the VMM's display. Consoles connect again.

use super::{Record, RecordError};
use crate::backend::continuity::{ValueError, ValueReader, ValueWriter};

/// A request to the display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptRequest {
    Features,
    /// With these features.
    SetFeatures(u64),
    DisplayInfo,
    /// Of this scanout.
    Edid(u32),
}

impl KeptRequest {
    fn encode(self, writer: &mut ValueWriter) {
        let (kind, argument) = match self {
            Self::Features => (0, 0),
            Self::SetFeatures(features) => (1, features),
            Self::DisplayInfo => (2, 0),
            Self::Edid(scanout) => (3, scanout.into()),
        };
        writer.u8(kind);
        writer.u64(argument);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let (kind, argument) = (reader.u8()?, reader.u64()?);
        let scanout = u32::try_from(argument).ok();
        match (kind, argument, scanout) {
            (0, 0, _) => Ok(Self::Features),
            (1, features, _) => Ok(Self::SetFeatures(features)),
            (2, 0, _) => Ok(Self::DisplayInfo),
            (3, _, Some(scanout)) => Ok(Self::Edid(scanout)),
            _ => Err(RecordError::Field("request")),
        }
    }

    fn encode_all(requests: &[Self], writer: &mut ValueWriter) {
        // There are a few: see `MAX_UNANSWERED` of the displays.
        writer.u32(requests.len() as u32);
        for request in requests {
            request.encode(writer);
        }
    }

    fn decode_all(reader: &mut ValueReader<'_>) -> Result<Vec<Self>, RecordError> {
        let count = reader.u32()?;
        (0..count).map(|_| Self::decode(reader)).collect()
    }
}

/// What the VMM's display is and was asked. There is one, with the id 0, once there was a display.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct StreamRecord {
    /// What its socket is kept as; 0 if it is closed.
    pub(crate) socket: u64,
    /// The protocol features in use, once they are negotiated.
    pub(crate) features: Option<u64>,
    /// The scanouts that it has a display for, as far as it said: a bit for each.
    pub(crate) heads: u16,
    /// Whether it left a reply out of late.
    pub(crate) is_silent: bool,
    /// What the driver asked and the display has not answered: the modes, or an EDID.
    pub(crate) query: Option<KeptRequest>,
    /// Requests without a reply, oldest first.
    pub(crate) unanswered: Vec<KeptRequest>,
}

impl Record for StreamRecord {
    const TABLE: u16 = 32;
    const NAME: &'static str = "connection of display";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u64(self.socket);
        writer.bool(self.features.is_some());
        writer.u64(self.features.unwrap_or_default());
        writer.u16(self.heads);
        writer.bool(self.is_silent);
        KeptRequest::encode_all(self.query.as_slice(), writer);
        KeptRequest::encode_all(&self.unanswered, writer);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let socket = reader.u64()?;
        let features = match (reader.bool()?, reader.u64()?) {
            (true, features) => Some(features),
            (false, 0) => None,
            (false, _) => return Err(RecordError::Field("features")),
        };
        Ok(Self {
            socket,
            features,
            heads: reader.u16()?,
            is_silent: reader.bool()?,
            query: match KeptRequest::decode_all(reader)?[..] {
                [] => None,
                [query @ (KeptRequest::DisplayInfo | KeptRequest::Edid(_))] => Some(query),
                _ => return Err(RecordError::Field("query")),
            },
            unanswered: KeptRequest::decode_all(reader)?,
        })
    }
}

/// The requests that wait to be sent, oldest first. There is one record, with the id 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WaitingRecord(pub(crate) Vec<KeptRequest>);

impl Record for WaitingRecord {
    const TABLE: u16 = 33;
    const NAME: &'static str = "requests to display";

    fn encode(&self, writer: &mut ValueWriter) {
        KeptRequest::encode_all(&self.0, writer);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        KeptRequest::decode_all(reader).map(Self)
    }
}

/// The message that is being sent, or was sent last. There is one, with the id 0, once there was a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageRecord {
    /// Bytes that were sent ever, by all processes, before its first one.
    pub(crate) start: u64,
    head: [u8; Self::MAX_HEAD_LEN],
    head_len: usize,
}

impl MessageRecord {
    /// Most bytes of a message before its pixels.
    const MAX_HEAD_LEN: usize = 40;

    /// The message that begins with `head`, which is all but its pixels; none if that is too long.
    pub(crate) fn new(start: u64, head: &[u8]) -> Option<Self> {
        let mut record = Self {
            start,
            head: [0; Self::MAX_HEAD_LEN],
            head_len: head.len(),
        };
        record.head.get_mut(..head.len())?.copy_from_slice(head);
        Some(record)
    }

    /// All of it but its pixels.
    pub(crate) fn head(&self) -> &[u8] {
        self.head.get(..self.head_len).unwrap_or_default()
    }
}

impl Record for MessageRecord {
    const TABLE: u16 = 34;
    const NAME: &'static str = "message to display";
    const PUT_OFTEN: Option<usize> = Some(0);

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u64(self.start);
        writer.bytes(self.head());
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        let start = reader.u64()?;
        Self::new(start, reader.rest()).ok_or(ValueError::TooLong.into())
    }
}

/// What came from the display. There is one, with the id 0, once something came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct IncomingRecord {
    /// Bytes that are taken from its socket, of all that processes received ever: those that are there still are to be
    /// dropped.
    pub(crate) taken: u64,
    /// The beginning of a message.
    pub(crate) bytes: Vec<u8>,
}

impl Record for IncomingRecord {
    const TABLE: u16 = 35;
    const NAME: &'static str = "message of display";

    fn encode(&self, writer: &mut ValueWriter) {
        writer.u64(self.taken);
        writer.bytes(&self.bytes);
    }

    fn decode(reader: &mut ValueReader<'_>) -> Result<Self, RecordError> {
        Ok(Self {
            taken: reader.u64()?,
            bytes: reader.rest().to_vec(),
        })
    }
}
