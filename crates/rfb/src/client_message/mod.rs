// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages of a viewer (RFC 6143, 7.5, and the community wiki's rfbproto.rst): typed, written and parsed.

mod parser;

pub use parser::{ClientMessageError, ClientMessageParser};

use crate::{Encoding, EncodingSet, Fence, PixelFormat, Rect, Screen};

/// Types of messages.
mod message_type {
    pub(super) const SET_PIXEL_FORMAT: u8 = 0;
    pub(super) const SET_ENCODINGS: u8 = 2;
    pub(super) const FRAMEBUFFER_UPDATE_REQUEST: u8 = 3;
    pub(super) const KEY_EVENT: u8 = 4;
    pub(super) const POINTER_EVENT: u8 = 5;
    pub(super) const CLIENT_CUT_TEXT: u8 = 6;
    pub(super) const ENABLE_CONTINUOUS_UPDATES: u8 = 150;
    pub(super) const FENCE: u8 = crate::Fence::MESSAGE_TYPE;
    pub(super) const SET_DESKTOP_SIZE: u8 = 251;
    pub(super) const QEMU: u8 = 255;
    /// QEMU's own number after 255.
    pub(super) const QEMU_EXTENDED_KEY_EVENT: u8 = 0;
}

/// The bit in a button mask that says that a second byte follows (community wiki: Extended Mouse Buttons).
const MORE_BUTTONS: u8 = 0x80;

/// A message of a viewer, but for `ClientCutText`, which is skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// The viewer wants pixels in this format (7.5.1).
    SetPixelFormat(PixelFormat),
    /// What the viewer takes (7.5.2).
    SetEncodings(EncodingSet),
    /// The viewer wants pixels (7.5.3). The rectangle may lie outside the framebuffer.
    FramebufferUpdateRequest {
        /// Only what changed since it was last sent.
        incremental: bool,
        /// Where.
        rect: Rect,
    },
    /// A key by its keysym (7.5.4).
    KeyEvent {
        /// Pressed, or released.
        down: bool,
        /// X11's number of the symbol.
        keysym: u32,
    },
    /// A key by its keysym and position (wiki: QEMU Extended Key Event Message).
    QemuExtendedKeyEvent {
        /// Pressed, or released.
        down: bool,
        /// X11's number of the symbol; 0 where the viewer does not know it.
        keysym: u32,
        /// XT scancode; those with the prefix 0xe0 have bit 7 set instead.
        keycode: u32,
    },
    /// Where the pointer is (7.5.5).
    PointerEvent {
        /// Bit 0 to 2: left, middle, right; 3 to 6: wheel up, down, left, right; 7, 8: back, forward.
        buttons: u16,
        /// Column.
        x: u16,
        /// Row.
        y: u16,
    },
    /// Updates without requests (wiki: EnableContinuousUpdates).
    EnableContinuousUpdates {
        /// On, or off.
        enable: bool,
        /// Where.
        rect: Rect,
    },
    /// wiki: ClientFence.
    Fence(Fence),
    /// The viewer wants another size (wiki: SetDesktopSize).
    SetDesktopSize {
        /// Width of the framebuffer.
        width: u16,
        /// Height of the framebuffer.
        height: u16,
        /// Layout of the screens, at most 255.
        screens: Vec<Screen>,
    },
}

impl ClientMessage {
    /// Appends the message. `SetEncodings` has a writer of its own, [`write_set_encodings`]: a set lacks the order
    /// of all encodings, so here it writes nothing. Of more than 255 screens the first are written. Buttons from the
    /// eighth on are written in the form of Extended Mouse Buttons.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::SetPixelFormat(format) => {
                out.extend_from_slice(&[message_type::SET_PIXEL_FORMAT, 0, 0, 0]);
                format.write(out);
            }
            Self::SetEncodings(_) => {}
            Self::FramebufferUpdateRequest { incremental, rect } => {
                let incremental = u8::from(*incremental);
                out.extend_from_slice(&[message_type::FRAMEBUFFER_UPDATE_REQUEST, incremental]);
                rect.write(out);
            }
            Self::KeyEvent { down, keysym } => {
                out.extend_from_slice(&[message_type::KEY_EVENT, u8::from(*down), 0, 0]);
                out.extend_from_slice(&keysym.to_be_bytes());
            }
            Self::QemuExtendedKeyEvent {
                down,
                keysym,
                keycode,
            } => {
                out.extend_from_slice(&[
                    message_type::QEMU,
                    message_type::QEMU_EXTENDED_KEY_EVENT,
                    0,
                    u8::from(*down),
                ]);
                out.extend_from_slice(&keysym.to_be_bytes());
                out.extend_from_slice(&keycode.to_be_bytes());
            }
            Self::PointerEvent { buttons, x, y } => write_pointer(*buttons, *x, *y, out),
            Self::EnableContinuousUpdates { enable, rect } => {
                let enable = u8::from(*enable);
                out.extend_from_slice(&[message_type::ENABLE_CONTINUOUS_UPDATES, enable]);
                rect.write(out);
            }
            Self::Fence(fence) => fence.write(out),
            Self::SetDesktopSize {
                width,
                height,
                screens,
            } => {
                out.extend_from_slice(&[message_type::SET_DESKTOP_SIZE, 0]);
                out.extend_from_slice(&width.to_be_bytes());
                out.extend_from_slice(&height.to_be_bytes());
                let count = u8::try_from(screens.len()).unwrap_or(u8::MAX);
                out.extend_from_slice(&[count, 0]);
                for screen in screens.iter().take(count.into()) {
                    screen.write(out);
                }
            }
        }
    }
}

fn write_pointer(buttons: u16, x: u16, y: u16, out: &mut Vec<u8>) {
    // Buttons 0 to 6, and those from 7 on.
    let [high, low] = (buttons << 1).to_be_bytes();
    let low = low >> 1;
    let more = high != 0;
    let marker = if more { MORE_BUTTONS } else { 0 };
    out.extend_from_slice(&[message_type::POINTER_EVENT, low | marker]);
    out.extend_from_slice(&x.to_be_bytes());
    out.extend_from_slice(&y.to_be_bytes());
    if more {
        out.push(high);
    }
}

/// Appends `SetEncodings` (RFC 6143, 7.5.2), the preferred first. Of more than 65535 the first are written.
pub fn write_set_encodings(encodings: &[Encoding], out: &mut Vec<u8>) {
    let count = u16::try_from(encodings.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&[message_type::SET_ENCODINGS, 0]);
    out.extend_from_slice(&count.to_be_bytes());
    for encoding in encodings.iter().take(count.into()) {
        out.extend_from_slice(&encoding.0.to_be_bytes());
    }
}

/// Appends `ClientCutText` (RFC 6143, 7.5.6) with a text of Latin-1. A text beyond `i32::MAX` bytes is not written.
pub fn write_cut_text(text: &[u8], out: &mut Vec<u8>) {
    if let Ok(len) = i32::try_from(text.len()) {
        out.extend_from_slice(&[message_type::CLIENT_CUT_TEXT, 0, 0, 0]);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests;
