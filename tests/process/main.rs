//! The programs as processes, driven over their sockets by the crate `frontend`: no systemd and no VM.

#[path = "../common/mod.rs"]
mod common;

mod accept;
mod consoles;
mod conventions;
mod cve;
mod faults;
mod front_ends;
mod gpu_2d;
mod hostile;
mod log;
mod memory_slots;
mod notify;
#[cfg(feature = "virgl")]
mod virgl;
mod virtual_input;
mod vnc;
mod vnc_hostile;
