//! Options of the renderer: the render node it uses, and whether it exports dmabufs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{sandbox_policy, shader_cache};
use crate::backend::SandboxPolicy;
use crate::gpu::render_node::{self, RenderNodeError};

/// Options of a renderer.
#[derive(Debug)]
pub struct Options {
    node: Option<(PathBuf, OwnedFd)>,
    dmabufs: bool,
}

impl Options {
    /// Renders on `render_node`, or without one on the first render node in `/dev/dri`, by name, that
    /// can be opened. Renders by software if there is none, or if the environment has
    /// `LIBGL_ALWAYS_SOFTWARE`.
    ///
    /// # Errors
    /// If `render_node` cannot be opened or is no render node.
    pub fn new(render_node: Option<&Path>) -> Result<Self, RenderNodeError> {
        shader_cache::disable_if_disk_full();
        let node = match render_node {
            Some(path) => Some((path.to_owned(), render_node::open(path)?)),
            None if prefers_software() => None,
            None => render_node::list().into_iter().find_map(|path| {
                let node = render_node::open(&path).ok()?;
                Some((path, node))
            }),
        };
        Ok(Self {
            node,
            dmabufs: true,
        })
    }

    /// What the sandbox must allow for the renderer.
    pub fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy(self.node.as_ref().map(|(path, _)| path.as_path()))
    }

    /// Shows all scanouts by their pixels, not by dmabufs.
    #[must_use]
    pub fn without_dmabufs(self) -> Self {
        Self {
            dmabufs: false,
            ..self
        }
    }

    /// Whether scanouts may be exported as dmabufs. What software renders is in this process's memory,
    /// which a display's GPU may be unable to use.
    pub(super) fn exports_dmabufs(&self) -> bool {
        self.dmabufs && self.node.is_some()
    }

    /// Path and descriptor of the render node; `None` with software rendering.
    pub(super) fn into_node(self) -> Option<(PathBuf, OwnedFd)> {
        self.node
    }
}

/// Whether Mesa's `LIBGL_ALWAYS_SOFTWARE` is set, as Mesa reads it.
fn prefers_software() -> bool {
    let value = std::env::var("LIBGL_ALWAYS_SOFTWARE").unwrap_or_default();
    ["1", "true", "y", "yes"].contains(&value.to_ascii_lowercase().as_str())
}
