// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The display socket of a GPU, on its way around the daemon.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use crate::backend::continuity::FdId;
use crate::backend::device::display_socket::DisplaySocket;
use crate::backend::lock::lock;

/// Where the proxy leaves the newest display socket for the device (`VHOST_USER_GPU_SET_SOCKET`).
///
/// `vhost-user-backend` gives a device only a `GpuBackend`, which blocks on replies and hides its descriptor, so the
/// proxy keeps a duplicate.
#[derive(Clone, Default)]
pub(crate) struct DisplaySocketMailbox(Arc<Mutex<Option<DisplaySocket>>>);

impl DisplaySocketMailbox {
    /// Leaves a duplicate of the `socket` of a message, which is kept as `kept`.
    pub(super) fn duplicate(&self, socket: Option<&OwnedFd>, kept: Option<FdId>) {
        match socket.map(OwnedFd::try_clone) {
            Some(Ok(socket)) => self.put(DisplaySocket::new(UnixStream::from(socket), kept)),
            Some(Err(e)) => log::error!("cannot keep the front-end's display socket: {e}"),
            None => {
                log::warn!("the front-end sent VHOST_USER_GPU_SET_SOCKET without a socket");
            }
        }
    }

    pub(crate) fn put(&self, socket: DisplaySocket) {
        *lock(&self.0) = Some(socket);
    }

    pub(crate) fn take(&self) -> Option<DisplaySocket> {
        lock(&self.0).take()
    }
}
