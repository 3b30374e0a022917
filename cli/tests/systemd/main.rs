//! `vhostctl` beside the units, in a private systemd.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod add;
mod backends;
mod change;
mod console;
mod devices;
mod monitor;
mod polkit;
mod readme;
mod recipes;
mod status;
mod terminal;
mod values;
mod view;
