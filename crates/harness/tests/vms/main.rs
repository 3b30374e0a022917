// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The test guest and the demo, on QEMU.

mod boot;
mod demo;
mod rfb;
mod viewers;
