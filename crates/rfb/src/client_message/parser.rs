// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::{ClientMessage, MORE_BUTTONS, message_type};
use crate::input::{skip, take, take_slice};
use crate::{Encoding, EncodingSet, Fence, PixelFormat, PixelFormatError, Rect, Screen};

/// Why the bytes of a viewer cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientMessageError {
    /// The length of an unknown message is unknown too.
    #[error("the viewer sent a message of unknown type {0}")]
    UnknownType(u8),
    /// The same for QEMU's messages.
    #[error("the viewer sent a QEMU message of unknown type {0}")]
    UnknownQemuType(u8),
    /// A pixel format that cannot be.
    #[error("the viewer asks for an impossible pixel format: {0}")]
    PixelFormat(#[from] PixelFormatError),
    /// The wiki allows 64 bytes.
    #[error("a fence of the viewer carries {0} bytes; at most 64 are allowed")]
    FenceLen(u8),
}

/// Reads the messages of a viewer.
///
/// It keeps no bytes: what a call leaves in its input ([`ClientMessageParser::MAX_LEFT`] at most) the caller passes
/// again with more behind. Long messages are read piece by piece, so memory is bounded whatever a
/// viewer sends: encodings are counted into an [`EncodingSet`], `ClientCutText` is dropped as it arrives.
#[derive(Debug, Default)]
pub struct ClientMessageParser {
    state: State,
    extended_mouse_buttons: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Before a message.
    #[default]
    Between,
    /// Within `SetEncodings`.
    Encodings { left: u16, set: EncodingSet },
    /// Within `ClientCutText`.
    CutText { left: u32 },
    /// Within `SetDesktopSize`.
    Screens {
        left: u8,
        width: u16,
        height: u16,
        screens: Vec<Screen>,
    },
}

impl ClientMessageParser {
    /// The most bytes that a call leaves in its input: a fence but for its last byte.
    pub const MAX_LEFT: usize = 4 + 4 + 1 + Fence::PAYLOAD_MAX - 1;

    /// Whether pointer events may have a second byte of buttons: once the server said that it takes Extended Mouse
    /// Buttons.
    pub fn set_extended_mouse_buttons(&mut self, on: bool) {
        self.extended_mouse_buttons = on;
    }

    /// Takes the next message off `input`. `None`: more has to come.
    ///
    /// # Errors
    /// Where the connection cannot go on.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<ClientMessage>, ClientMessageError> {
        loop {
            match &mut self.state {
                State::Between => {
                    let mut rest = *input;
                    let Some(message) = begin(&mut rest, self.extended_mouse_buttons)? else {
                        return Ok(None);
                    };
                    *input = rest;
                    match message {
                        Begun::Whole(message) => return Ok(Some(message)),
                        Begun::Part(state) => self.state = state,
                    }
                }
                State::CutText { left } => {
                    *left = skip(input, *left);
                    if *left > 0 {
                        return Ok(None);
                    }
                    self.state = State::Between;
                }
                State::Encodings { left, set } => {
                    while *left > 0 {
                        let Some(encoding) = take(input) else {
                            return Ok(None);
                        };
                        set.add(Encoding(i32::from_be_bytes(encoding)));
                        *left -= 1;
                    }
                    let message = ClientMessage::SetEncodings(*set);
                    self.state = State::Between;
                    return Ok(Some(message));
                }
                State::Screens {
                    left,
                    width,
                    height,
                    screens,
                } => {
                    while *left > 0 {
                        let Some(screen) = take(input) else {
                            return Ok(None);
                        };
                        screens.push(Screen::read(screen));
                        *left -= 1;
                    }
                    let message = ClientMessage::SetDesktopSize {
                        width: *width,
                        height: *height,
                        screens: std::mem::take(screens),
                    };
                    self.state = State::Between;
                    return Ok(Some(message));
                }
            }
        }
    }
}

enum Begun {
    Whole(ClientMessage),
    Part(State),
}

/// A short message, or the beginning of a long one.
fn begin(
    input: &mut &[u8],
    extended_mouse_buttons: bool,
) -> Result<Option<Begun>, ClientMessageError> {
    let Some([kind]) = take(input) else {
        return Ok(None);
    };
    let message = match kind {
        message_type::SET_PIXEL_FORMAT => {
            let Some((_, format)) = take::<3>(input).zip(take(input)) else {
                return Ok(None);
            };
            Some(ClientMessage::SetPixelFormat(PixelFormat::read(format)?))
        }
        message_type::FRAMEBUFFER_UPDATE_REQUEST => {
            flag_and_rect(input).map(|(incremental, rect)| {
                ClientMessage::FramebufferUpdateRequest { incremental, rect }
            })
        }
        message_type::ENABLE_CONTINUOUS_UPDATES => flag_and_rect(input)
            .map(|(enable, rect)| ClientMessage::EnableContinuousUpdates { enable, rect }),
        message_type::KEY_EVENT => {
            take(input).map(
                |[down, _, _, keysym @ ..]: [u8; 7]| ClientMessage::KeyEvent {
                    down: down != 0,
                    keysym: u32::from_be_bytes(keysym),
                },
            )
        }
        message_type::POINTER_EVENT => pointer(input, extended_mouse_buttons),
        message_type::FENCE => return fence(input),
        message_type::QEMU => return qemu(input),
        message_type::SET_ENCODINGS
        | message_type::CLIENT_CUT_TEXT
        | message_type::SET_DESKTOP_SIZE => return Ok(begin_long(kind, input).map(Begun::Part)),
        _ => return Err(ClientMessageError::UnknownType(kind)),
    };
    Ok(message.map(Begun::Whole))
}

fn begin_long(kind: u8, input: &mut &[u8]) -> Option<State> {
    match kind {
        message_type::SET_ENCODINGS => take(input).map(|[_, c0, c1]| State::Encodings {
            left: u16::from_be_bytes([c0, c1]),
            set: EncodingSet::default(),
        }),
        message_type::CLIENT_CUT_TEXT => take(input).map(|[_, _, _, len @ ..]: [u8; 7]| {
            State::CutText {
                // The Extended Clipboard has negative lengths (wiki).
                left: i32::from_be_bytes(len).unsigned_abs(),
            }
        }),
        _ => take(input).map(|[_, w0, w1, h0, h1, left, _]| State::Screens {
            left,
            width: u16::from_be_bytes([w0, w1]),
            height: u16::from_be_bytes([h0, h1]),
            screens: Vec::new(),
        }),
    }
}

fn flag_and_rect(input: &mut &[u8]) -> Option<(bool, Rect)> {
    take(input).map(|[flag, rect @ ..]: [u8; 9]| (flag != 0, Rect::read(rect)))
}

fn pointer(input: &mut &[u8], extended_mouse_buttons: bool) -> Option<ClientMessage> {
    let [low, x0, x1, y0, y1] = take(input)?;
    let mut buttons = u16::from(low);
    if extended_mouse_buttons && low & MORE_BUTTONS != 0 {
        let [high] = take(input)?;
        buttons = u16::from(low & !MORE_BUTTONS) | (u16::from(high) << 7);
    }
    Some(ClientMessage::PointerEvent {
        buttons,
        x: u16::from_be_bytes([x0, x1]),
        y: u16::from_be_bytes([y0, y1]),
    })
}

fn fence(input: &mut &[u8]) -> Result<Option<Begun>, ClientMessageError> {
    let Some([_, _, _, f0, f1, f2, f3, len]) = take(input) else {
        return Ok(None);
    };
    if usize::from(len) > Fence::PAYLOAD_MAX {
        return Err(ClientMessageError::FenceLen(len));
    }
    let flags = u32::from_be_bytes([f0, f1, f2, f3]);
    let fence = take_slice(input, len.into()).and_then(|payload| Fence::new(flags, payload));
    Ok(fence.map(|fence| Begun::Whole(ClientMessage::Fence(fence))))
}

fn qemu(input: &mut &[u8]) -> Result<Option<Begun>, ClientMessageError> {
    let Some([kind]) = take(input) else {
        return Ok(None);
    };
    if kind != message_type::QEMU_EXTENDED_KEY_EVENT {
        return Err(ClientMessageError::UnknownQemuType(kind));
    }
    let event = take(input).map(|[d0, d1, s0, s1, s2, s3, c0, c1, c2, c3]| {
        Begun::Whole(ClientMessage::QemuExtendedKeyEvent {
            down: [d0, d1] != [0, 0],
            keysym: u32::from_be_bytes([s0, s1, s2, s3]),
            keycode: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    });
    Ok(event)
}
