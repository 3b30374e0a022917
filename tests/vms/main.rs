//! A Linux guest on QEMU or libvirt, which uses the programs.

#[path = "../common/mod.rs"]
mod common;

mod console;
#[cfg(feature = "virgl")]
mod dmabuf;
mod evdev;
mod failed_starts;
mod faults;
mod input;
mod libvirt;
mod memory;
mod rng;
mod screen;
mod units;
#[cfg(feature = "virgl")]
mod virgl;
mod virtual_input;
