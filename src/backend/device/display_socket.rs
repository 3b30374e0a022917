// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The socket of a GPU's display.

use std::os::unix::net::UnixStream;

use crate::backend::continuity::FdId;

/// The socket of a GPU's display (`VHOST_USER_GPU_SET_SOCKET`).
#[derive(Debug)]
pub struct DisplaySocket {
    socket: UnixStream,
    id: Option<FdId>,
}

impl DisplaySocket {
    /// The socket that is kept as `id` for a successor of this process, if it is. A successor gets it with the same id.
    pub(crate) fn new(socket: UnixStream, id: Option<FdId>) -> Self {
        Self { socket, id }
    }

    /// The socket.
    pub fn into_socket(self) -> UnixStream {
        self.socket
    }

    /// What it is kept as.
    pub(crate) fn id(&self) -> Option<FdId> {
        self.id
    }
}

impl From<UnixStream> for DisplaySocket {
    fn from(socket: UnixStream) -> Self {
        Self::new(socket, None)
    }
}
