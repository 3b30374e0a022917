// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The version of the state, in the file of each program.

use std::hint::black_box;

use conventions::StateVersion;

use super::layout;

/// `vhostctl` reads it, also for needrestart(1), in the files of the running and of the installed program.
static VERSION: StateVersion = StateVersion::new(layout::VERSION);

/// The version of the states that this program writes and understands: what its file says, so that the two are one.
pub(super) fn version() -> u32 {
    black_box(&VERSION).get()
}
