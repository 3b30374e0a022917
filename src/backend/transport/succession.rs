// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a process goes on with.

use crate::backend::continuity::{Continuity, Ledger, Owner, Work};
use crate::backend::virtqueue::Positions;

/// The state that outlives processes, for proxy and worker. Clones are the same.
#[derive(Clone)]
pub(crate) struct Succession {
    continuity: Continuity,
    positions: Positions,
}

impl Default for Succession {
    fn default() -> Self {
        Self::new(Continuity::default())
    }
}

impl Succession {
    pub(crate) fn new(continuity: Continuity) -> Self {
        Self {
            positions: Positions::new(continuity.ledger(Owner::Device)),
            continuity,
        }
    }

    pub(super) fn continuity(&self) -> &Continuity {
        &self.continuity
    }

    /// The records of the device.
    pub(super) fn device_ledger(&self) -> Ledger {
        self.continuity.ledger(Owner::Device)
    }

    pub(super) fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The daemon has carried out the front-end's old messages. The message that was under way follows, and new ones.
    pub(super) fn replayed(&self) {
        self.positions.replay_done();
        // All records were read.
        self.continuity.locker().forget_left();
        self.continuity.work_done(Work::Start);
    }
}
