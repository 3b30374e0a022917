// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The packages of target/packages, in machines that were just installed: Debian 12 and 13 with systemd.
//!
//! "make packages" builds them; without it, these tests fail.

#[path = "../common/mod.rs"]
mod common;

mod access_control;
mod autopkgtest;
mod contents;
mod guest;
mod installed;
mod machine;
mod removal;
mod rpm;
mod upgrade;
mod vms;
