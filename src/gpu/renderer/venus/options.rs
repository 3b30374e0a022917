// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options of the renderer: the library, and the connection to its render server.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::api::Api;
use super::connector::Connector;
use super::limits::DESCRIPTORS;
use super::{VenusError, render_server, sandbox_policy};
use crate::backend::{SandboxMode, SandboxPolicy};
use crate::gpu::renderer::virglrenderer::{self, Functions as _};

/// Options of a renderer.
#[derive(Debug)]
pub struct Options {
    pub(super) api: Api,
    pub(super) server: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) connector: Connector,
}

impl Options {
    /// Loads virglrenderer and connects to the render server that listens at `path`, also later by a process whose sandbox is
    /// as `mode` says. Allows the process as many descriptors as a guest may need.
    ///
    /// # Errors
    /// If the library is missing or too old, or no render server listens there.
    pub fn new(path: &Path, mode: SandboxMode) -> Result<Self, VenusError> {
        // First, as the process is small then.
        let connector = Connector::start(path, mode)?;
        let (api, library) = Api::load()?;
        if !virglrenderer::is_1_1(library) {
            return Err(VenusError::TooOld);
        }
        virglrenderer::attach(library);
        let server = render_server::connect_to(path).map_err(|source| VenusError::Connect {
            path: path.to_owned(),
            source,
        })?;
        raise_descriptor_limit();
        Ok(Self {
            api,
            server,
            path: path.to_owned(),
            connector,
        })
    }

    /// What the sandbox must allow for the renderer.
    pub fn sandbox_policy(&self) -> SandboxPolicy {
        sandbox_policy::sandbox_policy()
    }
}

/// Lets the process have [`DESCRIPTORS`], or as many as it may. With fewer, blobs beyond them are refused.
pub(super) fn raise_descriptor_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let most = maximum.unwrap_or(u64::MAX);
    let wanted = DESCRIPTORS.min(most);
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if let Err(e) = setrlimit(Resource::Nofile, limit) {
            log::debug!("cannot raise the limit on open files to {wanted}: {e}");
        }
    }
}
