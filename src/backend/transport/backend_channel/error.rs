// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why the channel is given up.

use std::io;

use rustix::io::Errno;

/// Why the channel is given up.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("VHOST_USER_SET_BACKEND_REQ_FD came without a stream socket")]
    NoSocket,
    #[error("it does not read what it was sent")]
    Full,
    #[error("it closed the channel")]
    Closed,
    #[error("it answered with {0}")]
    Refused(u64),
    #[error("it sent what is no answer")]
    NoAnswer,
    #[error("{0}")]
    Socket(#[source] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::AGAIN => Self::Full,
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            error => Self::Socket(error.into()),
        }
    }
}
