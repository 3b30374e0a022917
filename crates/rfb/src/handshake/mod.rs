// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From the first byte to `ServerInit` (RFC 6143, 7.1 to 7.3), for both sides, without I/O.

mod client;
mod server;

pub use client::ClientHandshake;
pub use server::{Established, ServerHandshake};

use crate::PixelFormatError;

/// Security type None (RFC 6143, 7.2.1), the only one here.
const SECURITY_NONE: u8 = 1;
/// Bytes of `ProtocolVersion`.
const VERSION_LEN: usize = 12;
/// The most bytes of a desktop's name that are taken of a server, and the most of a reason that are written.
const TEXT_LIMIT: usize = 4096;

/// Why two sides do not come together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// Something else than `RFB 003.00x`.
    #[error(
        "the peer does not speak RFB: its first 12 bytes are not a version such as RFB 003.008"
    )]
    NotRfb,
    /// The viewer chose a security type that it was not offered.
    #[error("the viewer chose security type {0}; only None (1) is offered")]
    SecurityNotOffered(u8),
    /// The server wants something else than security type None.
    #[error("the server offers no security type but {0:?}; only None (1) is spoken here")]
    SecurityNotSpoken(Vec<u8>),
    /// The server says no.
    #[error("the server refuses the connection: {0}")]
    Refused(String),
    /// This side said no.
    #[error("the viewer was refused: {0}")]
    Refusing(String),
    /// The server's pixel format cannot be.
    #[error(transparent)]
    PixelFormat(#[from] PixelFormatError),
    /// The name of the desktop is too long.
    #[error("the desktop's name has {0} bytes; at most {TEXT_LIMIT} are taken")]
    NameLen(u32),
}

/// What both sides speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// RFB 3.3.
    V3_3,
    /// RFB 3.7.
    V3_7,
    /// RFB 3.8.
    V3_8,
}

impl Version {
    /// The highest version that a peer with this `ProtocolVersion` message speaks too. RFC 6143, 7.1.1: unknown
    /// ones below 3.7 are 3.3; those above 3.8 exist (Apple's 3.889) and speak 3.8.
    fn of_peer(message: &[u8; VERSION_LEN]) -> Result<Self, HandshakeError> {
        let minor = match message {
            [
                b'R',
                b'F',
                b'B',
                b' ',
                b'0',
                b'0',
                b'3',
                b'.',
                minor @ ..,
                b'\n',
            ] => minor,
            _ => return Err(HandshakeError::NotRfb),
        };
        let minor = std::str::from_utf8(minor).map_err(|_| HandshakeError::NotRfb)?;
        if !minor.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(HandshakeError::NotRfb);
        }
        Ok(match minor.parse::<u16>() {
            Ok(0..=6) => Self::V3_3,
            Ok(7) => Self::V3_7,
            Ok(8..) => Self::V3_8,
            Err(_) => return Err(HandshakeError::NotRfb),
        })
    }

    fn message(self) -> &'static [u8; VERSION_LEN] {
        match self {
            Self::V3_3 => b"RFB 003.003\n",
            Self::V3_7 => b"RFB 003.007\n",
            Self::V3_8 => b"RFB 003.008\n",
        }
    }
}

/// Appends a text with its length, cut at [`TEXT_LIMIT`] bytes.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(TEXT_LIMIT);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    let text = text.get(..len).unwrap_or_default();
    out.extend_from_slice(&u32::try_from(len).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// `ServerInit` (RFC 6143, 7.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerInit {
    /// Width of the framebuffer.
    pub width: u16,
    /// Height of the framebuffer.
    pub height: u16,
    /// The server's own pixel format, used until the viewer asks for another.
    pub format: crate::PixelFormat,
    /// Name of the desktop.
    pub name: String,
}

impl ServerInit {
    /// Appends the message. At most 4096 bytes of the name are written.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.width.to_be_bytes());
        out.extend_from_slice(&self.height.to_be_bytes());
        self.format.write(out);
        write_text(out, &self.name);
    }
}

#[cfg(test)]
mod tests;
