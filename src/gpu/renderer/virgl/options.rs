//! On what it draws, as the command line and the environment say.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::super::super::render_node::{self, RenderNodeError};
use super::{sandbox_policy, shader_cache};
use crate::backend::SandboxPolicy;

/// What a renderer runs on.
#[derive(Debug)]
pub struct Options {
    pub(super) node: Option<(PathBuf, OwnedFd)>,
    /// Whether screens may be passed on as dmabufs.
    pub(super) dmabufs: bool,
}

impl Options {
    /// On `render_node` and no other. Without one: on the first render node in `/dev/dri`, by name,
    /// that may be opened; where there is none, or the environment has `LIBGL_ALWAYS_SOFTWARE`, by
    /// software.
    ///
    /// # Errors
    /// Where `render_node` is not there, is something else, or may not be opened.
    pub fn new(render_node: Option<&Path>) -> Result<Self, RenderNodeError> {
        shader_cache::give_up_if_full();
        let node = match render_node {
            Some(path) => Some((path.to_owned(), render_node::open(path)?)),
            None if software_is_asked_for() => None,
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

    /// What a renderer on it needs of the system.
    pub fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy(self.node.as_ref().map(|(path, _)| path.as_path()))
    }

    /// Has all screens shown by their pixels.
    #[must_use]
    pub fn without_dmabufs(self) -> Self {
        Self {
            dmabufs: false,
            ..self
        }
    }
}

/// Mesa's own switch, read as Mesa reads it.
fn software_is_asked_for() -> bool {
    let value = std::env::var("LIBGL_ALWAYS_SOFTWARE").unwrap_or_default();
    ["1", "true", "y", "yes"].contains(&value.to_ascii_lowercase().as_str())
}
