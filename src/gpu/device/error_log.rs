// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Log messages about the guest and the device, limited in rate.

use std::fmt::Display;

use crate::backend::RateLimitedLog;

/// Where the parts of the device report errors.
#[derive(Default)]
pub(super) struct ErrorLog {
    guest: RateLimitedLog,
    device: RateLimitedLog,
}

impl ErrorLog {
    /// The guest did something wrong.
    pub(super) fn guest(&mut self, message: impl Display) {
        self.guest.warn(message);
    }

    /// The device or the front-end did, or a queue is broken.
    pub(super) fn device(&mut self, message: impl Display) {
        self.device.warn(message);
    }
}
