// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The requests that a device makes to its front-end, of every kind.

use super::config_change::ConfigChangeLink;
use super::shared_memory::SharedMemoryLink;

/// What the device, the daemon and the proxy share of the back-end's requests to the front-end. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct RequestLinks {
    pub(crate) config_changes: ConfigChangeLink,
    pub(crate) shared_memory: SharedMemoryLink,
}

impl RequestLinks {
    /// Whether the device makes requests, so that the front-end is offered the channel for them
    /// (`VHOST_USER_PROTOCOL_F_BACKEND_REQ`).
    pub(crate) fn are_offered(&self) -> bool {
        self.config_changes.is_offered() || self.shared_memory.region().is_some()
    }
}
