// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The units, in a private systemd.

#[path = "../common/mod.rs"]
mod common;

mod backends;
mod confined;
mod console;
mod continuity;
mod failed_starts;
mod faults;
mod host;
#[cfg(feature = "virgl")]
mod virgl;
#[cfg(feature = "virgl")]
mod vulkan;
