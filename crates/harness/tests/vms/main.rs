//! The test guest and the demo, on QEMU.

mod boot;
mod demo;
mod viewers;
