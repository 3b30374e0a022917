//! The test guest and the demo, on QEMU.

mod boot;
mod demo;
mod rfb;
mod viewers;
