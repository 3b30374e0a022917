//! Tells a new driver from a resumed one after the event queue was stopped.

use crate::backend::{GuestMemory, QueuePass, Vring};

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
    /// The driver whose event queue is `vring`.
    pub(super) fn identify(vring: Option<&Vring>, memory: &GuestMemory) -> Self {
        match vring.and_then(|vring| QueuePass::begin(vring, memory)) {
            None => Self::Stopped,
            Some(pass) if pass.is_untouched() => Self::New,
            Some(_) => Self::Same,
        }
    }
}
