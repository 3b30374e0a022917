// SPDX-License-Identifier: Apache-2.0 OR MIT
//! 3D rendering by virglrenderer: the guest's OpenGL commands run on the host's OpenGL.
//!
//! The unsafe code is in the modules that call libraries: `egl`, `export` and `library`.

mod api;
mod command_stream;
mod contexts;
mod egl;
mod error;
mod export;
mod fences;
mod guest_iovecs;
mod holdings;
mod library;
mod limits;
mod options;
mod pixel_reader;
mod process_memory;
mod renderer;
mod resource_cost;
mod resources;
mod sandbox_policy;
mod shader_cache;
mod stream_check;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod testing;
mod texture_layout;
mod transfers;

pub use error::VirglError;
pub use options::Options;
pub(crate) use renderer::VirglRenderer;
pub(in crate::gpu::renderer) use sandbox_policy::node_policy;

#[cfg(test)]
mod tests;
