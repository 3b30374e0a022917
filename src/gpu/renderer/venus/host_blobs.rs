// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blob resources in the host's memory, which the render server allocates.

use std::sync::Arc;

use super::contexts::{Contexts, context_error};
use super::exported_memory;
use super::library::ExportedType;
use super::library_thread::{CallError, LibraryThread};
use super::limits::{BLOB_COST, MAX_HOST_BLOBS};
use crate::gpu::protocol::{BlobMemory, ResourceCreateBlob};
use crate::gpu::renderer::ContextError;
use crate::gpu::resource::{Blob, BlobError, Budget, HostMemory, ResourceError, ResourceTable};

/// A blob in the host's memory.
struct HostBlob {
    /// The context that created it.
    context: u32,
    /// Whether that context has it attached, as from its creation on.
    is_home: bool,
    kind: ExportedType,
    /// Whether the library knows it. It does not once its render server is lost.
    is_known: bool,
    memory: Result<(Blob, HostMemory), Arc<BlobError>>,
}

/// All blobs in the host's memory, by their resource ids.
pub(super) struct HostBlobs {
    table: ResourceTable<HostBlob>,
}

impl HostBlobs {
    /// None; those that are created are charged to `budget`.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            table: ResourceTable::new(MAX_HOST_BLOBS, budget),
        }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.table.get(id).is_ok()
    }

    /// Checks that there can be a blob `new`.
    ///
    /// # Errors
    /// If the id is 0 or in use, or it is not only of the host's memory.
    pub(super) fn check_new(&self, new: &ResourceCreateBlob) -> Result<(), ResourceError> {
        self.table.check_new(new.id)?;
        let source = match new.memory {
            BlobMemory::Guest | BlobMemory::Host3dGuest => BlobError::GuestCopy,
            BlobMemory::Host3d if new.count != 0 => BlobError::Entries,
            BlobMemory::Host3d if new.len == 0 => BlobError::Empty,
            BlobMemory::Host3d => return Ok(()),
        };
        Err(ResourceError::Blob { id: new.id, source })
    }

    /// Creates a blob in the memory of a context.
    ///
    /// # Errors
    /// As [`HostBlobs::check_new`], and if memory is short, or the render server refuses it.
    pub(super) fn create(
        &mut self,
        library: &mut LibraryThread,
        contexts: &Contexts,
        new: &ResourceCreateBlob,
    ) -> Result<(), ResourceError> {
        self.check_new(new)?;
        let (id, context) = (new.id, new.context);
        if !contexts.has(context) {
            return Err(ResourceError::NoContext { id, context });
        }
        let charge = self.table.charge(id, new.len.saturating_add(BLOB_COST))?;
        let (exported, caching) = library.create_blob(*new).map_err(|error| match error {
            CallError::Refused(_) => ResourceError::Refused(id),
            CallError::Stuck => ResourceError::ServerEnded(id),
        })?;
        let kind = exported.kind;
        let caching = caching.unwrap_or(HostMemory::CACHED);
        let mapping = exported_memory::mapping(exported, new.len, caching);
        let blob = HostBlob {
            context,
            is_home: true,
            kind,
            is_known: true,
            memory: mapping.map_err(Arc::new).map(|mapping| {
                let memory = mapping.memory().clone();
                (Blob::on_host(mapping), memory)
            }),
        };
        self.table.insert(id, charge, blob);
        Ok(())
    }

    /// A blob, to read its pixels; `None` if there is none, or it cannot be mapped.
    pub(super) fn blob(&self, id: u32) -> Option<&Blob> {
        let (blob, _) = self.table.get(id).ok()?.memory.as_ref().ok()?;
        Some(blob)
    }

    /// The memory of a blob.
    ///
    /// # Errors
    /// If it cannot be mapped.
    pub(super) fn memory(&self, id: u32) -> Result<HostMemory, ResourceError> {
        match &self.table.get(id)?.memory {
            Ok((_, memory)) => Ok(memory.clone()),
            Err(source) => Err(ResourceError::Unmappable {
                id,
                source: source.clone(),
            }),
        }
    }

    /// Attaches a blob to a context. Its own context had it from the beginning. Others can have dmabufs only.
    ///
    /// # Errors
    /// If others cannot have it.
    pub(super) fn attach(
        &mut self,
        library: &mut LibraryThread,
        context: u32,
        id: u32,
    ) -> Result<(), ContextError> {
        let blob = self.table.get_mut(id)?;
        if !blob.is_known {
            return Err(ResourceError::ServerEnded(id).into());
        }
        if blob.context == context && blob.is_home {
            return Ok(());
        }
        if blob.kind != ExportedType::Dmabuf {
            return Err(ContextError::NotShareable {
                context,
                resource: id,
            });
        }
        library
            .attach(context, id)
            .map_err(|error| context_error(context, error))
    }

    /// Detaches a blob from a context.
    pub(super) fn detach(
        &mut self,
        library: &mut LibraryThread,
        context: u32,
        id: u32,
    ) -> Result<(), ResourceError> {
        let blob = self.table.get_mut(id)?;
        if blob.context == context {
            blob.is_home = false;
        }
        if blob.is_known {
            let _ = library.detach(context, id);
        }
        Ok(())
    }

    /// The render server is gone: what is left of the blobs is their memory, as long as the guest has mapped it.
    pub(super) fn lose(&mut self) {
        self.table.for_each_mut(|blob| {
            blob.is_home = false;
            blob.is_known = false;
        });
    }

    /// A context is gone. Another one may get its id.
    pub(super) fn context_destroyed(&mut self, context: u32) {
        self.table.for_each_mut(|blob| {
            if blob.context == context {
                blob.is_home = false;
            }
        });
    }

    /// The UUID of a blob. The first call assigns one.
    pub(super) fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        self.table.assign_uuid(id)
    }

    /// Destroys a blob.
    pub(super) fn unref(
        &mut self,
        library: &mut LibraryThread,
        id: u32,
    ) -> Result<(), ResourceError> {
        let blob = self.table.get(id)?;
        if blob.is_known {
            let home = blob.is_home.then_some(blob.context);
            let _ = library.unref(home, id);
        }
        self.table.remove(id)
    }

    /// Destroys all blobs.
    pub(super) fn clear(&mut self, library: &mut LibraryThread) {
        for (id, blob) in self.table.drain() {
            if blob.is_known {
                let _ = library.unref(None, id);
            }
        }
    }
}
