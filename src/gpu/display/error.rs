//! Why a display socket is closed.

use std::io;

/// Why a display socket is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DisplayError {
    /// The front-end closed it, as it does when the guest's driver stops using the device.
    #[error("the front-end closed the display socket")]
    Closed,
    /// It failed.
    #[error("the display socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The front-end violates the protocol.
    #[error(
        "the front-end sent an unexpected message on the display socket: \
         request {request}, flags {flags:#x}, {size} bytes"
    )]
    Protocol {
        /// The message's request code.
        request: u32,
        /// Its flags.
        flags: u32,
        /// The length of its payload in bytes.
        size: u32,
    },
}
