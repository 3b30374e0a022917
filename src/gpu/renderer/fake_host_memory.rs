// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A renderer in 2D whose blobs can be files, for tests of what maps them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Copied, Renderer, SoftwareRenderer};
use crate::backend::{GuestMemory, MemoryGuard, SHARED_MEMORY_PAGE};
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{BlobMemory, Format, FramebufferLayout, ResourceCreateBlob, Transfer2d};
use crate::gpu::region::Region;
use crate::gpu::resource::{
    Backing, Blob, BlobFramebuffer, Budget, Charge, CursorPixels, HostMemory, ResourceError,
    SharedImage,
};

/// `VIRTIO_GPU_MAP_CACHE_WC`.
pub(crate) const CACHING: u32 = 3;

/// A blob in memory of the host.
struct HostBlob {
    memory: HostMemory,
    _charge: Charge,
}

/// Does all by software. A HOST3D blob is a memfd, from byte `blob_id` on.
pub(crate) struct FakeHostMemory {
    software: SoftwareRenderer,
    budget: Budget,
    blobs: HashMap<u32, HostBlob>,
}

type Resource<T> = Result<T, ResourceError>;

impl FakeHostMemory {
    pub(crate) fn new(budget: Budget, memory: GuestMemory) -> Self {
        Self {
            software: SoftwareRenderer::new(budget.clone(), memory),
            budget,
            blobs: HashMap::new(),
        }
    }

    fn create_host_blob(&self, new: &ResourceCreateBlob) -> Option<HostBlob> {
        let charge = self.budget.charge(new.len)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file: OwnedFd = memfd_create("host blob", flags).ok()?;
        // As libraries do, which map it as well.
        let end = new.blob_id.checked_add(new.len)?;
        ftruncate(&file, end.checked_next_multiple_of(SHARED_MEMORY_PAGE)?).ok()?;
        Some(HostBlob {
            memory: HostMemory {
                file: Arc::new(file),
                offset: new.blob_id,
                len: new.len,
                caching: CACHING,
            },
            _charge: charge,
        })
    }
}

impl Renderer for FakeHostMemory {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Resource<()> {
        match self.blobs.contains_key(&id) {
            true => Err(ResourceError::Exists(id)),
            false => self.software.create_2d(id, format, size),
        }
    }

    fn has_blobs(&self) -> bool {
        true
    }

    fn has_host_memory(&self) -> bool {
        true
    }

    fn host_memory(&mut self, id: u32) -> Resource<HostMemory> {
        match self.blobs.get(&id) {
            Some(blob) => Ok(blob.memory.clone()),
            None => {
                self.software.size(id)?;
                Err(ResourceError::NoHostMemory(id))
            }
        }
    }

    fn new_blob_backing(&self, new: &ResourceCreateBlob) -> Resource<Backing> {
        let guest = ResourceCreateBlob {
            memory: BlobMemory::Guest,
            ..*new
        };
        match self.blobs.contains_key(&new.id) {
            true => Err(ResourceError::Exists(new.id)),
            false => self.software.new_blob_backing(&guest),
        }
    }

    fn create_blob(&mut self, new: &ResourceCreateBlob, backing: Option<Backing>) -> Resource<()> {
        self.new_blob_backing(new)?;
        if new.memory != BlobMemory::Host3d {
            return self.software.create_blob(new, backing);
        }
        let blob = self.create_host_blob(new);
        self.blobs
            .insert(new.id, blob.ok_or(ResourceError::Refused(new.id))?);
        Ok(())
    }

    fn blob(&self, id: u32) -> Option<&Blob> {
        self.software.blob(id)
    }

    fn framebuffer(
        &self,
        id: u32,
        layout: FramebufferLayout,
        rect: &Rect,
    ) -> Resource<BlobFramebuffer> {
        self.software.framebuffer(id, layout, rect)
    }

    fn unref(&mut self, id: u32) -> Resource<()> {
        match self.blobs.remove(&id) {
            Some(_) => Ok(()),
            None => self.software.unref(id),
        }
    }

    fn size(&self, id: u32) -> Resource<Size> {
        self.software.size(id)
    }

    fn new_backing(&self, id: u32, entries: u32) -> Resource<Backing> {
        self.software.new_backing(id, entries)
    }

    fn attach_backing(&mut self, id: u32, backing: Backing, memory: &MemoryGuard) -> Resource<()> {
        self.software.attach_backing(id, backing, memory)
    }

    fn detach_backing(&mut self, id: u32) -> Resource<()> {
        self.software.detach_backing(id)
    }

    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Resource<Copied> {
        self.software
            .transfer_to_host_2d(transfer, first, memory, changed)
    }

    fn image_or_create(&mut self, id: u32) -> Resource<SharedImage> {
        self.software.image_or_create(id)
    }

    fn existing_image(&self, id: u32) -> Resource<Option<SharedImage>> {
        match self.blobs.contains_key(&id) {
            true => Ok(None),
            false => self.software.existing_image(id),
        }
    }

    fn cursor(&mut self, id: u32) -> Resource<CursorPixels> {
        self.software.cursor(id)
    }

    fn assign_uuid(&mut self, id: u32) -> Resource<[u8; 16]> {
        self.software.assign_uuid(id)
    }

    fn reset(&mut self) {
        self.blobs.clear();
        self.software.reset();
    }

    fn memory_changed(&mut self, memory: &MemoryGuard) {
        self.software.memory_changed(memory);
    }
}
