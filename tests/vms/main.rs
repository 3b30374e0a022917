// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A Linux guest on QEMU or libvirt, which uses the programs.

#[path = "../common/mod.rs"]
mod common;

mod console;
mod continuity;
#[cfg(feature = "virgl")]
mod dmabuf;
mod evdev;
mod evdev_outlived;
mod failed_starts;
mod faults;
mod input;
mod libvirt;
mod memory;
mod messages;
mod rng;
mod screen;
mod units;
#[cfg(feature = "virgl")]
mod virgl;
mod virtual_input;
