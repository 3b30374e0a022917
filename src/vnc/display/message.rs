// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The GPU's messages as the console reads them, up to their pixels, and what the console sends.

use display_protocol::{
    CURSOR_PIXELS_LEN, CursorPosition, CursorUpdate, Features, Header, MAX_SCANOUTS, PIXEL_LEN,
    REPLY, Resize, ResizeResult, Scanout, Update, request,
};

use crate::geometry::{Rect, Size};

use super::DisplayError;

/// Most bytes of a message before its pixels.
pub(super) const HEAD_LEN: usize = Header::LEN + CursorUpdate::LEN;

/// A message of the GPU, without its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    GetProtocolFeatures,
    SetProtocolFeatures(Features),
    Cursor {
        position: CursorPosition,
        visible: bool,
    },
    /// A cursor of [`CURSOR_PIXELS_LEN`] bytes follows.
    CursorShape(CursorUpdate),
    Scanout {
        scanout: u32,
        size: Size,
    },
    /// The pixels of the rectangle follow.
    Update {
        scanout: u32,
        rect: Rect,
    },
    /// The answer to the first resize without one.
    ResizeReply(ResizeResult),
}

impl Message {
    /// Decodes the message at the start of `bytes`, and says how many bytes it has without pixels. `None` if there are
    /// not enough yet.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DisplayError> {
        let Some((header, payload)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let header = Header::decode(header);
        let Header {
            request,
            flags,
            size,
        } = header;
        let unknown = DisplayError::Unknown { request, flags };
        let fixed = match (request, flags) {
            (request::GET_PROTOCOL_FEATURES, 0) => 0,
            (request::SET_PROTOCOL_FEATURES, 0) => Features::LEN,
            (request::CURSOR_POS | request::CURSOR_POS_HIDE, 0) => CursorPosition::LEN,
            (request::CURSOR_UPDATE, 0) => CursorUpdate::LEN,
            (request::SCANOUT, 0) => Scanout::LEN,
            (request::UPDATE, 0) => Update::LEN,
            (request::RESIZE, REPLY) => ResizeResult::LEN,
            _ => return Err(unknown),
        };
        if (size as usize) < fixed {
            return Err(DisplayError::Size {
                request,
                size,
                expected: fixed as u64,
            });
        }
        let Some(payload) = payload.get(..fixed) else {
            return Ok(None);
        };
        let message = Self::decode_payload(request, payload).ok_or(unknown)?;
        if let Some(scanout) = message.scanout().filter(|id| *id as usize >= MAX_SCANOUTS) {
            return Err(DisplayError::Scanout(scanout));
        }
        // Two numbers of 32 bits and the 4 bytes of a pixel may need 66 bits.
        let expected = message.pixel_bytes().saturating_add(fixed as u64);
        if u64::from(size) != expected {
            return Err(DisplayError::Size {
                request,
                size,
                expected,
            });
        }
        Ok(Some((message, Header::LEN + fixed)))
    }

    fn decode_payload(request: u32, payload: &[u8]) -> Option<Self> {
        Some(match request {
            request::GET_PROTOCOL_FEATURES => Self::GetProtocolFeatures,
            request::SET_PROTOCOL_FEATURES => {
                Self::SetProtocolFeatures(Features::decode(*payload.first_chunk()?))
            }
            request::CURSOR_POS | request::CURSOR_POS_HIDE => Self::Cursor {
                position: CursorPosition::decode(payload)?,
                visible: request == request::CURSOR_POS,
            },
            request::CURSOR_UPDATE => Self::CursorShape(CursorUpdate::decode(payload)?),
            request::SCANOUT => {
                let scanout = Scanout::decode(payload)?;
                Self::Scanout {
                    scanout: scanout.scanout,
                    size: Size::new(scanout.width, scanout.height),
                }
            }
            request::UPDATE => {
                let Update {
                    scanout,
                    x,
                    y,
                    width,
                    height,
                } = Update::decode(payload)?;
                Self::Update {
                    scanout,
                    rect: Rect {
                        x,
                        y,
                        width,
                        height,
                    },
                }
            }
            _ => Self::ResizeReply(ResizeResult::decode(*payload.first_chunk()?)?),
        })
    }

    /// The head that it is about.
    fn scanout(&self) -> Option<u32> {
        match self {
            Self::Cursor { position, .. } => Some(position.scanout),
            Self::CursorShape(update) => Some(update.scanout),
            Self::Scanout { scanout, .. } | Self::Update { scanout, .. } => Some(*scanout),
            Self::GetProtocolFeatures | Self::SetProtocolFeatures(_) | Self::ResizeReply(_) => None,
        }
    }

    /// Bytes of the pixels that follow.
    fn pixel_bytes(&self) -> u64 {
        match self {
            Self::Update { rect, .. } => rect.area().saturating_mul(PIXEL_LEN as u64),
            Self::CursorShape(_) => CURSOR_PIXELS_LEN as u64,
            _ => 0,
        }
    }
}

/// The answer to [`Message::GetProtocolFeatures`].
pub(super) fn features_reply() -> Vec<u8> {
    message(
        request::GET_PROTOCOL_FEATURES,
        REPLY,
        &Features::RESIZE.encode(),
    )
}

/// The request to give a head another size.
pub(super) fn resize(scanout: u32, size: Size) -> Vec<u8> {
    let resize = Resize {
        scanout,
        width: size.width,
        height: size.height,
    };
    message(request::RESIZE, 0, &resize.encode())
}

fn message(request: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let header = Header {
        request,
        flags,
        // A few bytes.
        size: payload.len() as u32,
    };
    [&header.encode(), payload].concat()
}
