// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells a new driver from a resumed one after the event queue was stopped.

use crate::backend::Vring;

/// Whose the event queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DriverSession {
    /// Nobody's: the queue is stopped or disabled, because the guest is paused or has no driver.
    Stopped,
    /// A new driver's: the queue starts at index 0. (Also after a multiple of 65536 buffers, which
    /// nothing tells from a new driver, and which does no harm.)
    New,
    /// The same driver's as before: the queue goes on where it was.
    Same,
}

impl DriverSession {
    /// The driver whose event queue is `vring`. It keeps the device while the front-end replaces its only memory
    /// region.
    pub(super) fn identify(vring: Option<&Vring>) -> Self {
        let running = vring.filter(|vring| vring.is_usable() && vring.has_addresses());
        match running.map(Vring::next_available) {
            None => Self::Stopped,
            Some(0) => Self::New,
            Some(_) => Self::Same,
        }
    }
}
