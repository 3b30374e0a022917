// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The GPU's display socket: the console is a display of it (QEMU's docs/interop/vhost-user-gpu.rst).
//!
//! The GPU sends sizes, pixels and cursors of all heads; the console answers what has to be answered, and may ask for
//! another size of a head where the GPU knows our extension `RESIZE`. A GPU that breaks the protocol loses its
//! connection; the console connects again.

mod connection;
mod decoder;
mod error;
mod message;

pub(crate) use connection::Display;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use decoder::{Decoder, Progress};
pub(crate) use error::DisplayError;
