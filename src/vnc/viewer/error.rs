//! Why a viewer is disconnected.

use std::io;

/// Why a viewer is disconnected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ViewerError {
    /// It closed the connection.
    #[error("it disconnected")]
    Closed,
    /// Its socket failed.
    #[error("cannot {attempt}: {error}")]
    Io {
        /// What failed.
        attempt: &'static str,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It did not get through the handshake.
    #[error(transparent)]
    Handshake(#[from] rfb::HandshakeError),
    /// It took too long over the handshake.
    #[error("it did not finish the handshake within {0} s")]
    TooSlow(u64),
    /// It sent something that is no message.
    #[error(transparent)]
    Message(#[from] rfb::ClientMessageError),
}
