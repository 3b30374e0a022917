// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a display socket is closed.

use std::io;

use display_protocol::Header;

/// Why a display socket is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DisplayError {
    /// The other side closed it, as a front-end does when the guest's driver stops using the device.
    #[error("the display socket was closed")]
    Closed,
    /// It failed.
    #[error("the display socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The other side violates the protocol.
    #[error(
        "an unexpected message came by the display socket: \
         request {}, flags {:#x}, {} bytes", .0.request, .0.flags, .0.size
    )]
    Protocol(Header),
    /// A console replied to what it was not asked.
    #[error("a reply came by the display socket that nobody asked for")]
    Unasked,
}
