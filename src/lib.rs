// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-gpu and vhost-user-input: a GPU and input devices for virtual machines, as ordinary
//! host processes that any VMM with a vhost-user front-end can use.
//!
//! [`backend`] holds what every such program needs, whatever its device; authors of other devices can use it as
//! well. `examples/vhost-user-rng.rs` is a whole program in under 150 lines. [`gpu`] and [`input`] are the devices
//! of this project's own programs, [`vnc`] is the console that shows a GPU's screen, and [`accept`] the program that helps backends without a listening socket.

pub mod accept;
pub mod backend;
mod evdev_event;
mod geometry;
pub mod gpu;
pub mod input;
pub mod vnc;
