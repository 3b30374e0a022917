// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device's handler does when the front-end sets a virtqueue.

use std::os::fd::RawFd;

use crate::backend::continuity::Ledger;
use crate::backend::virtqueue::VringObserver;

/// Commits what the front-end sets, as the device's handler does.
pub(crate) struct Committing(Ledger);

impl Committing {
    /// In the ledger of the device.
    pub(crate) fn new(ledger: Ledger) -> Self {
        Self(ledger)
    }
}

impl VringObserver for Committing {
    fn disabled(&self, _index: u32) {}

    fn forget_kick(&self, _kick: RawFd) {}

    fn position_set(&self) {
        self.0.commit();
    }
}
