// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What happens to real evdev devices, those of a Linux guest in the role of the host, while no process serves them.

use std::time::Duration;

use crate::evdev::check;

/// Keyboards and touch screens that go, come back, and are used; lamps.
#[test]
fn kernel_devices_outlive_their_programs() -> anyhow::Result<()> {
    check(" outlived", Duration::from_secs(300))
}
