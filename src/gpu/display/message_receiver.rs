// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Receives messages from a display, one at a time, however their bytes arrive: replies, and requests of consoles.

use std::io;

use display_protocol::{Features, Header, Resize, request};
use rustix::io::Errno;
use vhost::vhost_user::gpu_message::GpuBackendReq;

use super::DisplayError;
use super::outgoing_message::FrontEndRequest;
use super::stream::Stream;
use crate::gpu::protocol::DisplayInfo;
use crate::gpu::protocol::response::{EDID_RESPONSE_LEN, decode_edid};

const MAX_LEN: usize = Header::LEN + EDID_RESPONSE_LEN;

/// A reply of the front-end.
#[derive(Debug)]
pub(super) enum Reply {
    /// `GET_PROTOCOL_FEATURES`: the features it offers.
    Features(Features),
    /// `GET_DISPLAY_INFO`.
    DisplayInfo(Box<DisplayInfo>),
    /// `GET_EDID`; `None` if the front-end replied that it has none.
    Edid(Option<Vec<u8>>),
    /// The answer to `DMABUF_UPDATE`: the damage is drawn.
    DmabufUpdated,
}

impl Reply {
    /// Whether it is a reply to a request of this kind.
    pub(super) fn answers(&self, request: &FrontEndRequest) -> bool {
        matches!(
            (self, request),
            (Self::Features(_), FrontEndRequest::Features)
                | (Self::DisplayInfo(_), FrontEndRequest::DisplayInfo)
                | (Self::Edid(_), FrontEndRequest::Edid(_))
        )
    }

    fn parse(kind: GpuBackendReq, payload: &[u8]) -> Option<Self> {
        match (kind, payload.len()) {
            (GpuBackendReq::GET_PROTOCOL_FEATURES, Features::LEN) => {
                let offered = payload.try_into().ok()?;
                Some(Self::Features(Features::decode(offered)))
            }
            (GpuBackendReq::GET_DISPLAY_INFO, DisplayInfo::RESPONSE_LEN) => {
                let modes = DisplayInfo::decode_response(payload).ok()?;
                Some(Self::DisplayInfo(Box::new(modes)))
            }
            (GpuBackendReq::GET_EDID, EDID_RESPONSE_LEN) => {
                Some(Self::Edid(decode_edid(payload).ok()?))
            }
            (GpuBackendReq::DMABUF_UPDATE, 0) => Some(Self::DmabufUpdated),
            _ => None,
        }
    }
}

/// A message of a display.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A reply.
    Reply(Reply),
    /// `RESIZE` of a console.
    Resize(Resize),
}

impl Incoming {
    /// The message of a `header` that [is plausible](is_plausible).
    fn parse(header: Header, payload: &[u8]) -> Option<Self> {
        if !header.is_reply() {
            return Resize::decode(payload).map(Self::Resize);
        }
        let kind = GpuBackendReq::try_from(header.request).ok()?;
        Reply::parse(kind, payload).map(Self::Reply)
    }
}

/// Whether a message may have this header, so that its rest is worth waiting for.
fn is_plausible(header: Header, may_resize: bool) -> bool {
    if header.is_reply() {
        return header.size as usize <= MAX_LEN - Header::LEN;
    }
    let resize = Header {
        request: request::RESIZE,
        flags: 0,
        size: Resize::LEN as u32,
    };
    may_resize && header == resize
}

/// The message that is arriving.
#[derive(Default)]
pub(super) struct MessageReceiver {
    bytes: Vec<u8>,
    /// What was read and is not [taken](Stream::take) from the socket.
    read: usize,
}

impl MessageReceiver {
    /// Goes on with the beginning of a message that a predecessor had taken.
    pub(super) fn resume(bytes: Vec<u8>) -> Self {
        Self { bytes, read: 0 }
    }

    /// The next whole message; `None` while its end has not arrived. `RESIZE` only if the display `may_resize`. Before the
    /// next call, the caller records what the message changed.
    pub(super) fn receive(
        &mut self,
        stream: &mut Stream,
        may_resize: bool,
    ) -> Result<Option<Incoming>, DisplayError> {
        loop {
            let wanted = match self.header() {
                None => Header::LEN,
                Some(header) if is_plausible(header, may_resize) => {
                    let len = Header::LEN.saturating_add(header.size as usize);
                    if self.bytes.len() == len {
                        let payload = self.bytes.get(Header::LEN..).unwrap_or_default();
                        let message = Incoming::parse(header, payload);
                        self.bytes.clear();
                        return message.ok_or(DisplayError::Protocol(header)).map(Some);
                    }
                    len
                }
                Some(header) => return Err(DisplayError::Protocol(header)),
            };
            let read = std::mem::take(&mut self.read);
            stream.take(read, &self.bytes).map_err(closed)?;
            let mut buffer = [0; MAX_LEN];
            let missing = wanted.saturating_sub(self.bytes.len());
            let into = buffer.get_mut(..missing).unwrap_or_default();
            match stream.receive(into) {
                Ok(0) => return Err(DisplayError::Closed),
                Ok(count) => {
                    self.bytes.extend(buffer.iter().take(count));
                    self.read = count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(None),
                Err(e) => return Err(closed(e)),
            }
        }
    }

    fn header(&self) -> Option<Header> {
        self.bytes.first_chunk().map(Header::decode)
    }
}

fn closed(error: Errno) -> DisplayError {
    match error {
        Errno::CONNRESET => DisplayError::Closed,
        e => io::Error::from(e).into(),
    }
}
