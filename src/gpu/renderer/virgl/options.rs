// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the renderer: the render node it uses, and whether it exports dmabufs.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::{sandbox_policy, shader_cache};
use crate::backend::SandboxPolicy;
use crate::gpu::render_node::{self, RenderNodeError};

/// An open render node.
#[derive(Debug)]
pub(super) struct RenderNode {
    pub(super) path: PathBuf,
    pub(super) fd: OwnedFd,
}

/// Options of a renderer.
#[derive(Debug)]
pub struct Options {
    /// `None` for software rendering.
    node: Option<RenderNode>,
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
            Some(path) => Some(RenderNode {
                path: path.to_owned(),
                fd: render_node::open(path)?,
            }),
            None if prefers_software() => None,
            None => render_node::list().into_iter().find_map(|path| {
                let fd = render_node::open(&path).ok()?;
                Some(RenderNode { path, fd })
            }),
        };
        Ok(Self {
            node,
            dmabufs: true,
        })
    }

    /// What the sandbox must allow for the renderer.
    pub fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy(self.node.as_ref().map(|node| node.path.as_path()))
    }

    /// Shows all scanouts by their pixels, not by dmabufs.
    #[must_use]
    pub fn without_dmabufs(self) -> Self {
        Self {
            dmabufs: false,
            ..self
        }
    }

    /// Whether scanouts may be exported as dmabufs. Software rendering draws into this process's
    /// memory, which a display's GPU may be unable to use.
    pub(super) fn exports_dmabufs(&self) -> bool {
        self.dmabufs && self.node.is_some()
    }

    /// The render node; `None` for software rendering.
    pub(super) fn into_node(self) -> Option<RenderNode> {
        self.node
    }
}

/// Whether Mesa's `LIBGL_ALWAYS_SOFTWARE` is set, as Mesa reads it.
fn prefers_software() -> bool {
    let value = std::env::var("LIBGL_ALWAYS_SOFTWARE").unwrap_or_default();
    ["1", "true", "y", "yes"].contains(&value.to_ascii_lowercase().as_str())
}
