// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs as processes, driven over their sockets by the crate `frontend`: no systemd and no VM.

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod conformance;
mod consoles;
#[cfg(target_arch = "x86_64")]
mod continuity;
mod conventions;
mod cve;
mod faults;
mod front_ends;
mod gpu_2d;
mod gpu_check;
mod hostile;
mod log;
mod memory_slots;
mod notify;
mod takeover;
#[cfg(feature = "virgl")]
mod virgl;
mod virtual_input;
mod vnc;
mod vnc_hostile;
