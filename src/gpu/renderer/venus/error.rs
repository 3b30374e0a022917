// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Errors when Venus starts.

use std::io;
use std::path::PathBuf;

use crate::backend::HelperError;
use crate::gpu::renderer::virglrenderer::LoadError;

/// Why Venus cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VenusError {
    /// The library cannot be loaded.
    #[error(
        "--venus: {library} cannot be loaded, install it in version 1.1 or newer (Debian 13 or newer: libvirglrenderer1): {source}"
    )]
    Missing {
        /// File name of the library.
        library: &'static str,
        /// The dynamic linker's error.
        source: libloading::Error,
    },
    /// The library has no usable Venus.
    #[error(
        "--venus: Vulkan needs virglrenderer 1.1 or newer, and this host's is older (Debian has a newer one from 13 on)"
    )]
    TooOld,
    /// Nothing serves the socket of the render server.
    #[error(
        "--render-server: cannot connect to {}: {source}; start the render server there, or its socket unit",
        path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This process has another renderer.
    #[error("--venus: virglrenderer is in use by this process already")]
    Taken,
    /// virglrenderer cannot be initialised.
    #[error(
        "--venus: virglrenderer does not start with the render server at {}{}{last_message}",
        server.display(),
        if last_message.is_empty() { "" } else { ": " }
    )]
    Init {
        /// The socket.
        server: PathBuf,
        /// The library's last message.
        last_message: String,
    },
    /// The render server does not answer.
    #[error("--render-server: the render server at {} does not answer", server.display())]
    Stuck {
        /// The socket.
        server: PathBuf,
    },
    /// virglrenderer was built without Venus.
    #[error("--venus: this host's virglrenderer was built without Venus")]
    NoVenus,
    /// There is no process that connects to the next render server.
    #[error("--venus: {0}")]
    Connector(#[from] HelperError),
    /// The host has no descriptors left.
    #[error("--venus: {0}")]
    Descriptors(#[source] io::Error),
}

impl From<LoadError> for VenusError {
    fn from(LoadError { library, source }: LoadError) -> Self {
        Self::Missing { library, source }
    }
}
