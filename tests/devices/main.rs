// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs as processes on mock evdev devices, which umockdev plays.

#[path = "../common/mod.rs"]
mod common;

mod hostile_input;
mod input;
#[cfg(target_arch = "x86_64")]
mod sandbox;
