// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl` beside the units, in a private systemd.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod add;
mod backends;
mod change;
mod console;
mod devices;
mod documents;
mod json;
mod monitor;
mod nodes;
mod polkit;
mod readme;
mod recipes;
mod release;
mod restart;
mod status;
mod terminal;
mod values;
mod view;
mod vulkan;
