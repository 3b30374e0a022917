// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a viewer cannot make sense of.

use std::io;

use crate::{Encoding, PixelFormatError, Rect};

/// Why the bytes of a server cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ServerMessageError {
    /// The connection failed, or ended within a message.
    #[error("cannot read from the server: {0}")]
    Io(#[from] io::Error),
    /// The length of an unknown message is unknown too.
    #[error("the server sent a message of unknown type {0}")]
    UnknownType(u8),
    /// An encoding that the viewer did not ask for.
    #[error("the server sent a rectangle in encoding {}, which was not asked for", .0.0)]
    UnknownEncoding(Encoding),
    /// Pixels outside the framebuffer.
    #[error("the server sent the rectangle {0:?}, which lies outside the framebuffer")]
    Outside(Rect),
    /// More than the viewer is ready to keep.
    #[error("the server's {what} is too large: {rect:?}")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How large.
        rect: Rect,
    },
    /// A fence carries more than 64 bytes.
    #[error("a fence of the server carries {0} bytes; at most 64 are allowed")]
    FenceLen(u8),
    /// Pixels that are not encoded as the encoding says.
    #[error("the server's {encoding} is broken: {reason}")]
    Broken {
        /// Name of the encoding.
        encoding: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The server uses a part of an encoding that is not spoken here.
    #[error("the server's {encoding} has {reason}, which was not asked for")]
    Unsupported {
        /// Name of the encoding.
        encoding: &'static str,
        /// What is not spoken.
        reason: &'static str,
    },
    /// The pixel format cannot be.
    #[error(transparent)]
    PixelFormat(#[from] PixelFormatError),
}
