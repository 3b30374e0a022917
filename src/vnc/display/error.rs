// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What can go wrong with the GPU's display socket.

use std::io;

use rustix::io::Errno;

use crate::geometry::{Rect, Size};

/// Why the connection to the GPU ends.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DisplayError {
    /// The GPU closed it.
    #[error("the GPU closed the connection")]
    Closed,
    /// Reading, writing or waiting failed.
    #[error("cannot {attempt}: {error}")]
    Io {
        /// What failed.
        attempt: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The message has a number that the protocol does not have for a console.
    #[error("the GPU sent an unknown message (request {request:#x}, flags {flags:#x})")]
    Unknown {
        /// Its number.
        request: u32,
        /// Its flags.
        flags: u32,
    },
    /// The message has another size than the protocol says.
    #[error(
        "the GPU sent a message of {size} bytes (request {request:#x}), which should have {expected}"
    )]
    Size {
        /// Its number.
        request: u32,
        /// The size in its header.
        size: u32,
        /// The size that the protocol says.
        expected: u64,
    },
    /// The scanout cannot exist.
    #[error("the GPU sent a message about head {0}; there are at most 16")]
    Scanout(u32),
    /// Pixels for a head without a picture.
    #[error("the GPU sent pixels for head {0}, which is off")]
    NoPicture(u32),
    /// Pixels outside the head's picture.
    #[error("the GPU sent pixels for {rect:?} of head {scanout}, which has {size}")]
    Outside {
        /// The head.
        scanout: u32,
        /// Where.
        rect: Rect,
        /// The picture's size.
        size: Size,
    },
    /// A reply to nothing.
    #[error("the GPU answered a resize that was not requested")]
    UnexpectedReply,
    /// The GPU does not read what it asked for.
    #[error("the GPU does not read the answers to its requests")]
    NotReading,
}

impl DisplayError {
    pub(super) fn io(attempt: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| match errno {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            other => Self::Io {
                attempt,
                error: other.into(),
            },
        }
    }
}
