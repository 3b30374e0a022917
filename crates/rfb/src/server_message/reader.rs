// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::Read;

use super::message_type;
use crate::read;
use crate::{Encoding, Fence, Rect, ServerMessageError};

/// A message of a server, as far as it is read at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// So many rectangles follow (7.6.1); [`UNTIL_LAST_RECT`](super::UNTIL_LAST_RECT): up to a LastRect.
    FramebufferUpdate(u16),
    /// Colours of a map (7.6.2): red, green and blue of 16 bits.
    SetColourMapEntries {
        /// The first colour's index.
        first: u16,
        /// The colours.
        colours: Vec<[u16; 3]>,
    },
    /// 7.6.3.
    Bell,
    /// A text was copied (7.6.4), of which up to 64 KiB are kept; none of the Extended Clipboard's.
    ServerCutText(Vec<u8>),
    /// wiki: EndOfContinuousUpdates.
    EndOfContinuousUpdates,
    /// wiki: ServerFence.
    Fence(Fence),
}

const CUT_TEXT_MAX: u32 = 64 << 10;

impl ServerMessage {
    /// Reads a message. Rectangles follow, each with [`read_rect_header`].
    ///
    /// # Errors
    /// Where reading fails, or the message is unknown or impossible.
    pub fn read(reader: &mut impl Read) -> Result<Self, ServerMessageError> {
        match read::u8(reader)? {
            message_type::FRAMEBUFFER_UPDATE => {
                let [_, c0, c1] = read::array(reader)?;
                Ok(Self::FramebufferUpdate(u16::from_be_bytes([c0, c1])))
            }
            message_type::SET_COLOUR_MAP_ENTRIES => {
                let [_, f0, f1, c0, c1] = read::array(reader)?;
                let count = u16::from_be_bytes([c0, c1]);
                let mut colours = Vec::new();
                for _ in 0..count {
                    let [r0, r1, g0, g1, b0, b1] = read::array(reader)?;
                    colours.push([[r0, r1], [g0, g1], [b0, b1]].map(u16::from_be_bytes));
                }
                Ok(Self::SetColourMapEntries {
                    first: u16::from_be_bytes([f0, f1]),
                    colours,
                })
            }
            message_type::BELL => Ok(Self::Bell),
            message_type::SERVER_CUT_TEXT => {
                let [_, _, _, len @ ..]: [u8; 7] = read::array(reader)?;
                let len = i32::from_be_bytes(len);
                let kept = if len < 0 { 0 } else { CUT_TEXT_MAX };
                let text = read::cut(reader, len.unsigned_abs(), kept)?;
                Ok(Self::ServerCutText(text))
            }
            message_type::END_OF_CONTINUOUS_UPDATES => Ok(Self::EndOfContinuousUpdates),
            message_type::FENCE => {
                let [_, _, _, flags @ .., len]: [u8; 8] = read::array(reader)?;
                let payload = read::cut(reader, len.into(), u32::from(u8::MAX))?;
                Fence::new(u32::from_be_bytes(flags), &payload)
                    .map(Self::Fence)
                    .ok_or(ServerMessageError::FenceLen(len))
            }
            unknown => Err(ServerMessageError::UnknownType(unknown)),
        }
    }
}

/// Reads the header of a rectangle (7.6.1).
///
/// # Errors
/// Where reading fails.
pub fn read_rect_header(reader: &mut impl Read) -> Result<(Rect, Encoding), ServerMessageError> {
    let rect = Rect::read(read::array(reader)?);
    let encoding = i32::from_be_bytes(read::array(reader)?);
    Ok((rect, Encoding(encoding)))
}
