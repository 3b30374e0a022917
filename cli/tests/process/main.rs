// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl` as a process, on mock devices and a mock system bus: no systemd and no VM.

#[path = "../common/mod.rs"]
mod common;

mod check;
mod completion;
mod list;
mod list_devices;
mod manual;
mod monitor;
mod terminal;
mod usage;
