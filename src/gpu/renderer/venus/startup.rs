// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The library's start with the first render server.

use std::io;
use std::sync::Arc;

use super::fences::RetiredFences;
use super::library::Library;
use super::library_thread::{CallError, LibraryThread, PATIENCE};
use super::render_server::RenderServer;
use super::renewal::{OpenLibrary, Renewal};
use super::{Options, VenusError};
use crate::gpu::protocol::CapsetInfo;
use crate::gpu::renderer::virglrenderer::{self, Instance, Refused};

/// An initialised library, its server, and how that is followed by others.
pub(super) struct Started {
    pub(super) library: LibraryThread,
    pub(super) server: RenderServer,
    pub(super) renewal: Renewal,
    /// Venus's capability set, and its data in the newest version.
    pub(super) capset: (CapsetInfo, Vec<u8>),
    /// For the log and the status.
    pub(super) name: String,
}

/// Initialises virglrenderer with the render server.
///
/// # Errors
/// If the render server does not answer, or the library has no Venus.
pub(super) fn start(options: Options) -> Result<Started, VenusError> {
    let Options {
        api,
        server,
        path,
        connector,
    } = options;
    let descriptors = |e: io::Error| VenusError::Descriptors(e);
    let instance = Instance::take().ok_or(VenusError::Taken)?;
    let ours = server.try_clone().map_err(descriptors)?;
    let retired = Arc::new(RetiredFences::new().map_err(descriptors)?);
    let starting = LibraryThread::start(Arc::clone(&retired), false, move |retired| {
        Library::open(api, Some(instance), server, retired)
    });
    let open: Arc<OpenLibrary> = Arc::new(move |server, retired| {
        let instance = Instance::take().ok_or(Refused::BUSY)?;
        Library::open(api, Some(instance), server, retired)
    });
    let failed = |error| match error {
        CallError::Refused(_) => VenusError::Init {
            server: path.clone(),
            last_message: virglrenderer::last_message(),
        },
        CallError::Stuck => VenusError::Stuck {
            server: path.clone(),
        },
    };
    let library = starting.map_err(descriptors)?.wait(PATIENCE);
    let library = library.unwrap_or(Err(CallError::Stuck));
    let mut library = library.map_err(failed)?;
    virglrenderer::limit();
    let capset = library.capset(CapsetInfo::VENUS).map_err(failed)?;
    let capset = capset.ok_or(VenusError::NoVenus)?;
    let name = format!("venus by {}", path.display());
    log::info!("{name}");
    Ok(Started {
        library,
        server: RenderServer::new(ours),
        renewal: Renewal::new(connector, open, retired),
        capset,
        name,
    })
}
