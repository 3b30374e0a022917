// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl` for the QEMU of a Linux guest.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod backends;
mod console;
mod libvirt;
mod qemu_args;
mod units;
