//! The display socket of a GPU, on its way around the daemon.

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use crate::backend::lock::lock;

/// Where the proxy leaves the newest display socket for the device (`VHOST_USER_GPU_SET_SOCKET`).
///
/// `vhost-user-backend` gives a device only a `GpuBackend`, which blocks on replies and hides its descriptor, so the
/// proxy keeps a duplicate.
#[derive(Clone, Default)]
pub(crate) struct DisplaySocketMailbox(Arc<Mutex<Option<UnixStream>>>);

impl DisplaySocketMailbox {
    pub(crate) fn put(&self, socket: UnixStream) {
        *lock(&self.0) = Some(socket);
    }

    pub(crate) fn take(&self) -> Option<UnixStream> {
        lock(&self.0).take()
    }
}
