//! Whether a driver uses the device.

use crate::backend::{GuestMemory, QueuePass, Vring};

/// What the event queue says of the guest's driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Driver {
    /// The queue is stopped or disabled: no driver, or a paused guest.
    Stopped,
    /// The queue runs from its beginning: a new driver. (Also one of which a multiple of 65536 buffers
    /// were used: nothing tells it from a new one.)
    New,
    /// The queue goes on where it was.
    Running,
}

impl Driver {
    /// The driver whose event queue is `vring`.
    pub(super) fn of(vring: Option<&Vring>, memory: &GuestMemory) -> Self {
        match vring.and_then(|vring| QueuePass::begin(vring, memory)) {
            None => Self::Stopped,
            Some(pass) if pass.is_untouched() => Self::New,
            Some(_) => Self::Running,
        }
    }
}
