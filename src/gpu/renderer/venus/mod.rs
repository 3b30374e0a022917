// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Vulkan by Venus: virglrenderer passes the guest's Vulkan commands to a render server, another process, which runs them
//! on the host's Vulkan. This process draws in 2D by software.
//!
//! The unsafe code is in `library`.

mod api;
mod connector;
mod contexts;
mod error;
mod exported_memory;
mod fences;
mod host_blobs;
mod library;
mod library_thread;
mod limits;
pub(crate) mod native_context;
mod options;
mod render_server;
mod renderer;
mod renewal;
mod sandbox_policy;
mod startup;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;

pub use error::VenusError;
pub use native_context::{NativeContextError, NativeContextOptions};
pub use options::Options;
pub(crate) use renderer::VenusRenderer;

#[cfg(test)]
mod tests;
