// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Real surroundings for the backends: a private systemd ([`systemd`]), QEMU with a
//! small Linux guest ([`qemu`], [`artifacts`]), a host of another architecture ([`arm64_host`]), mock input devices ([`mock`]) and viewers
//! of a console ([`viewers`]).
//!
//! Nothing here changes the machine it runs on: what has to be fetched goes to the
//! build folder, what has to be mounted is mounted in namespaces that end with the
//! test. Every wait has an end.

pub mod apt;
pub mod arm64_host;
pub mod artifacts;
pub mod board;
pub mod compression;
pub mod console;
pub mod debian_root;
pub mod documents;
pub mod guarded;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod keyboard_layouts;
pub mod libvirt;
pub mod manual;
pub mod mock;
pub mod opengl;
pub mod packages;
pub mod paths;
pub mod qemu;
pub mod qmp;
pub mod run;
pub mod staging;
pub mod systemd;
pub mod typing;
pub mod viewers;
pub mod vulkan;
