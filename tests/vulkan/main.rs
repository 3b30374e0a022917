// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Linux guest that uses Vulkan by Venus, on QEMU's generic device.

#[path = "../common/mod.rs"]
mod common;

mod by_hand;
mod endurance;
mod faults;
mod guest;
mod hostile;
mod machine;
mod opengl;
mod protocol;
mod units;
