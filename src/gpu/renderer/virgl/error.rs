// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors when 3D starts.

use crate::gpu::render_node::RenderNodeError;
use crate::gpu::renderer::virglrenderer::LoadError;

/// Why 3D cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VirglError {
    /// The render node cannot be opened.
    #[error(transparent)]
    Node(#[from] RenderNodeError),
    /// A library cannot be loaded.
    #[error(
        "--virgl: {library} cannot be loaded, install it (Debian: libvirglrenderer1, libegl1, libgl1, libgl1-mesa-dri): {source}"
    )]
    Missing {
        /// File name of the library.
        library: &'static str,
        /// The dynamic linker's error.
        source: libloading::Error,
    },
    /// This process has another renderer.
    #[error("--virgl: virglrenderer is in use by this process already")]
    Taken,
    /// virglrenderer cannot be initialised.
    #[error(
        "--virgl: virglrenderer finds no usable OpenGL by EGL; check the GPU's driver, or Mesa (Debian: libegl-mesa0, libgl1-mesa-dri){}{last_message}",
        if last_message.is_empty() { "" } else { ": " }
    )]
    Init {
        /// The library's last message.
        last_message: String,
    },
    /// virglrenderer has no event that tells when work is done.
    #[error("--virgl: virglrenderer has no event for its fences; unset VIRGL_DISABLE_MT")]
    NoFences,
}

impl From<LoadError> for VirglError {
    fn from(LoadError { library, source }: LoadError) -> Self {
        Self::Missing { library, source }
    }
}
