// SPDX-License-Identifier: Apache-2.0 OR MIT
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
    /// It is one viewer too many.
    #[error("there are {0} viewers already")]
    TooMany(usize),
    /// Another user has fewer viewers, and there was no place left.
    #[error("it made room for a viewer of another user")]
    MadeRoom,
    /// It was the oldest of too many connections whose handshake is not done.
    #[error("it did not finish the handshake before too many others came")]
    Overtaken,
    /// Its end of the network has not answered for some time.
    #[error("nothing was heard of it for half a minute")]
    Vanished,
    /// It sent something that is no message.
    #[error(transparent)]
    Message(#[from] rfb::ClientMessageError),
}
