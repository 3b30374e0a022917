// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Native contexts: the guest has the driver of the host's own GPU, and virglrenderer passes its requests to the kernel's. They run
//! in this process; all else is as with a render server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::api::Api;
use super::fences::RetiredFences;
use super::library::Library;
use super::library_thread::{CallError, LibraryThread, PATIENCE};
use super::options::raise_descriptor_limit;
use super::render_server::RenderServer;
use super::renewal::Renewal;
use super::{VenusRenderer, sandbox_policy};
use crate::backend::{GuestMemory, SandboxPolicy};
use crate::gpu::protocol::CapsetInfo;
use crate::gpu::render_node::{self, RenderNodeError};
use crate::gpu::renderer::virgl;
use crate::gpu::renderer::virglrenderer::{self, Functions as _, Instance, LoadError};
use crate::gpu::resource::Budget;

/// Why there are no native contexts.
#[derive(Debug, thiserror::Error)]
pub enum NativeContextError {
    /// The render node cannot be opened.
    #[error(transparent)]
    Node(#[from] RenderNodeError),
    /// The library cannot be loaded.
    #[error(
        "--native-context: {library} cannot be loaded, install it in version 1.1 or newer: {source}"
    )]
    Missing {
        /// File name of the library.
        library: &'static str,
        /// The dynamic linker's error.
        source: libloading::Error,
    },
    /// The library is too old.
    #[error(
        "--native-context: native contexts need virglrenderer 1.1 or newer, and this host's is older"
    )]
    TooOld,
    /// This process has another renderer.
    #[error("--native-context: virglrenderer is in use by this process already")]
    Taken,
    /// virglrenderer has none for the node.
    #[error(
        "--native-context: virglrenderer has no native context for {}; it has to be built with those of the GPU's driver \
         (amdgpu, i915, msm, asahi), which Debian's is not{}{last_message}",
        node.display(),
        if last_message.is_empty() { "" } else { ": " }
    )]
    None {
        /// The node.
        node: PathBuf,
        /// The library's last message.
        last_message: String,
    },
    /// The GPU's driver does not answer.
    #[error("--native-context: the driver of {} does not answer", .0.display())]
    Stuck(PathBuf),
    /// The host has no descriptors or threads left.
    #[error("--native-context: {0}")]
    Resources(#[source] io::Error),
}

impl From<LoadError> for NativeContextError {
    fn from(LoadError { library, source }: LoadError) -> Self {
        Self::Missing { library, source }
    }
}

/// Options of a renderer with native contexts.
#[derive(Debug)]
pub struct NativeContextOptions {
    api: Api,
    node: PathBuf,
}

impl NativeContextOptions {
    /// Loads virglrenderer for the render node `node`. Allows the process as many descriptors as a guest may need.
    ///
    /// # Errors
    /// If the node cannot be opened, or the library is missing or too old.
    pub fn new(node: &Path) -> Result<Self, NativeContextError> {
        // Early, for its error: each context opens it anew.
        drop(render_node::open(node)?);
        let (api, library) = Api::load()?;
        if !virglrenderer::is_1_1(library) {
            return Err(NativeContextError::TooOld);
        }
        virglrenderer::attach(library);
        raise_descriptor_limit();
        Ok(Self {
            api,
            node: node.to_owned(),
        })
    }

    /// What the sandbox must allow for the renderer: what it needs with Vulkan, and the node, its requests and its properties in
    /// /sys as with OpenGL.
    pub fn sandbox_policy(&self) -> SandboxPolicy {
        let mut policy = virgl::node_policy(&self.node);
        let venus = sandbox_policy::sandbox_policy();
        for rule in venus.calls {
            if !policy.calls.contains(&rule) {
                policy.calls.push(rule);
            }
        }
        policy
    }
}

/// A renderer with native contexts, for which it initialises virglrenderer. Resources are charged to `budget`; `memory` is the guest's.
///
/// # Errors
/// If the library has none for the node's driver.
pub(crate) fn renderer(
    options: NativeContextOptions,
    budget: Budget,
    memory: GuestMemory,
) -> Result<VenusRenderer, NativeContextError> {
    let NativeContextOptions { api, node } = options;
    let instance = Instance::take().ok_or(NativeContextError::Taken)?;
    let retired = RetiredFences::new().map_err(NativeContextError::Resources)?;
    let retired = Arc::new(retired);
    let opened = node.clone();
    let starting = LibraryThread::start(Arc::clone(&retired), false, move |retired| {
        Library::open_native(api, Some(instance), opened, retired)
    });
    let failed = |error| match error {
        CallError::Refused(_) => NativeContextError::None {
            node: node.clone(),
            last_message: virglrenderer::last_message(),
        },
        CallError::Stuck => NativeContextError::Stuck(node.clone()),
    };
    let library = starting
        .map_err(NativeContextError::Resources)?
        .wait(PATIENCE);
    let library = library.unwrap_or(Err(CallError::Stuck));
    let mut library = library.map_err(failed)?;
    virglrenderer::limit();
    let capset = library.capset(CapsetInfo::DRM).map_err(failed)?;
    let capset = capset.ok_or_else(|| NativeContextError::None {
        node: node.clone(),
        last_message: String::new(),
    })?;
    let name = format!("native context on {}", node.display());
    log::info!("{name}");
    let server = RenderServer::here();
    let renewal = Renewal::impossible(retired);
    VenusRenderer::with_library(library, server, renewal, capset, name, budget, memory)
        .map_err(NativeContextError::Resources)
}

#[cfg(test)]
mod tests;
