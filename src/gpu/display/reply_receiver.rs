//! Receives replies from the front-end, one at a time, however their bytes arrive.

use std::io;
use std::os::unix::net::UnixStream;

use rustix::net::{RecvFlags, recv};
use vhost::vhost_user::gpu_message::{GpuBackendReq, VhostUserGpuHeaderFlag};

use super::DisplayError;
use super::outgoing_message::{FrontEndRequest, MESSAGE_HEADER_LEN};
use crate::gpu::protocol::DisplayInfo;
use crate::gpu::protocol::response::{EDID_RESPONSE_LEN, decode_edid};

const MAX_LEN: usize = MESSAGE_HEADER_LEN + EDID_RESPONSE_LEN;

/// A reply of the front-end.
#[derive(Debug)]
pub(super) enum Reply {
    /// `GET_PROTOCOL_FEATURES`: the features it offers.
    Features(u64),
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
            (GpuBackendReq::GET_PROTOCOL_FEATURES, 8) => {
                // In native byte order, like all of this protocol but for virtio's structures.
                let mut offered = [0; 8];
                offered.copy_from_slice(payload);
                Some(Self::Features(u64::from_ne_bytes(offered)))
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

/// The reply that is arriving.
#[derive(Default)]
pub(super) struct ReplyReceiver {
    bytes: Vec<u8>,
}

impl ReplyReceiver {
    /// The next whole reply; `None` while its end has not arrived.
    pub(super) fn receive(&mut self, socket: &UnixStream) -> Result<Option<Reply>, DisplayError> {
        loop {
            let wanted = match self.header() {
                None => MESSAGE_HEADER_LEN,
                Some((request, flags, size)) => {
                    let protocol = DisplayError::Protocol {
                        request,
                        flags,
                        size,
                    };
                    let reply = flags & VhostUserGpuHeaderFlag::REPLY.bits() != 0;
                    let len = MESSAGE_HEADER_LEN.saturating_add(size as usize);
                    if !reply || len > MAX_LEN {
                        return Err(protocol);
                    }
                    if self.bytes.len() == len {
                        let payload = self.bytes.get(MESSAGE_HEADER_LEN..).unwrap_or_default();
                        let parsed = GpuBackendReq::try_from(request)
                            .ok()
                            .and_then(|kind| Reply::parse(kind, payload));
                        self.bytes.clear();
                        return parsed.ok_or(protocol).map(Some);
                    }
                    len
                }
            };
            let mut buffer = [0; MAX_LEN];
            let missing = wanted.saturating_sub(self.bytes.len());
            let into = buffer.get_mut(..missing).unwrap_or_default();
            match recv(socket, into, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(DisplayError::Closed),
                Ok((count, _)) => self.bytes.extend(buffer.iter().take(count)),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(None),
                Err(rustix::io::Errno::CONNRESET) => return Err(DisplayError::Closed),
                Err(e) => return Err(io::Error::from(e).into()),
            }
        }
    }

    fn header(&self) -> Option<(u32, u32, u32)> {
        let word = |at: usize| {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().ok()?))
        };
        Some((word(0)?, word(4)?, word(8)?))
    }
}
