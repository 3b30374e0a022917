// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An event that a device sends itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// Makes the worker call [`Device::handle_event`](crate::backend::Device::handle_event) again after the events
/// that are ready now. [`DeviceContext::wake_event`](crate::backend::DeviceContext::wake_event) makes it.
#[derive(Debug)]
pub struct WakeEvent(OwnedFd);

impl WakeEvent {
    pub(super) fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(eventfd(0, flags)?))
    }

    /// Asks for the event, from any thread. It comes until [`WakeEvent::clear`], however often it is asked for.
    pub fn set(&self) {
        // Fails only where it is set already.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Takes note that the event came. One that did not come is not waited for.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.0, &mut [0_u8; 8]);
    }
}

impl AsFd for WakeEvent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
