// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderers: they hold the resources of a driver and execute its drawing commands, by software
//! or by virglrenderer: in OpenGL (virgl) or in Vulkan (Venus).

use std::os::fd::BorrowedFd;

use crate::backend::MemoryGuard;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{
    CapsetInfo, Format, FramebufferLayout, ResourceCreate3d, ResourceCreateBlob, RingId,
    Transfer2d, Transfer3d,
};
use crate::gpu::region::Region;
use crate::gpu::resource::{
    Backing, Blob, BlobFramebuffer, CursorPixels, Dmabuf, HostMemory, ResourceError, SharedImage,
};

#[cfg(feature = "fuzzing")]
pub(crate) mod benchmarks;
mod context_error;
mod damage_collector;
#[cfg(test)]
pub(crate) mod fake_host_memory;
mod row_copy;
mod software;
#[cfg(test)]
mod testing;
#[cfg(feature = "virgl")]
pub(crate) mod venus;
#[cfg(feature = "virgl")]
pub(crate) mod virgl;
#[cfg(feature = "virgl")]
mod virglrenderer;
mod work;

pub(crate) use context_error::ContextError;
pub(crate) use software::SoftwareRenderer;
#[cfg(feature = "virgl")]
pub(crate) use venus::VenusRenderer;
#[cfg(feature = "virgl")]
pub(crate) use virgl::VirglRenderer;
pub(crate) use work::{Copied, ENTRY_COST, MAX_STEP_WORK, PIECE_COST, STREAM_WORD_COST};

/// A point in a renderer's work. The driver's fences wait for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fence(pub(crate) u32);

/// The direction of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the guest's memory into the resource.
    ToHost,
    /// From the resource into the guest's memory.
    FromHost,
}

/// The commands that both renderers execute (virtio 1.2, 5.7.6.8). Resources are known by the driver's
/// ids. Every method with an id fails with [`ResourceError::Unknown`] if there is no such resource.
pub(crate) trait Renderer: Send + Sync {
    /// Creates a black 2D resource.
    ///
    /// # Errors
    /// If the id is 0 or in use, `size` is out of bounds, or memory is short.
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError>;

    /// Whether there are blob resources (`VIRTIO_GPU_F_RESOURCE_BLOB`). Without them the methods about blobs are not called,
    /// or fail.
    fn has_blobs(&self) -> bool {
        false
    }

    /// Whether blobs can lie in memory of the host that the guest maps (`VIRTIO_GPU_BLOB_MEM_HOST3D`).
    fn has_host_memory(&self) -> bool {
        false
    }

    /// The memory of the host that a blob lies in.
    ///
    /// # Errors
    /// If it lies in none that can be mapped.
    fn host_memory(&mut self, id: u32) -> Result<HostMemory, ResourceError> {
        Err(ResourceError::NoHostMemory(id))
    }

    /// An empty backing for a new blob, as [`Renderer::new_backing`].
    ///
    /// # Errors
    /// If the blob cannot be created.
    fn new_blob_backing(&self, new: &ResourceCreateBlob) -> Result<Backing, ResourceError> {
        Err(ResourceError::Refused(new.id))
    }

    /// Creates a blob resource.
    ///
    /// # Errors
    /// If the id is 0 or in use, its memory cannot be had, or memory is short.
    fn create_blob(
        &mut self,
        new: &ResourceCreateBlob,
        _backing: Option<Backing>,
    ) -> Result<(), ResourceError> {
        Err(ResourceError::Refused(new.id))
    }

    /// A resource, if it is a blob.
    fn blob(&self, _id: u32) -> Option<&Blob> {
        None
    }

    /// The framebuffer that lies in a blob resource as `layout` says, of which scanouts show the part `rect`.
    ///
    /// # Errors
    /// If it is not within the resource, or a display would need more memory for it than the budget has.
    fn framebuffer(
        &self,
        id: u32,
        _layout: FramebufferLayout,
        _rect: &Rect,
    ) -> Result<BlobFramebuffer, ResourceError> {
        Err(ResourceError::IsNoBlob(id))
    }

    /// Destroys a resource. Its image lives on while a message to the display uses it.
    fn unref(&mut self, id: u32) -> Result<(), ResourceError>;

    /// Columns and rows of a resource.
    fn size(&self, id: u32) -> Result<Size, ResourceError>;

    /// Checks that `rect` is within a resource, and returns the resource's size.
    fn check_within(&self, id: u32, rect: Rect) -> Result<Size, ResourceError> {
        let size = self.size(id)?;
        if rect.lies_within(size) {
            return Ok(size);
        }
        Err(ResourceError::Outside { id, rect, size })
    }

    /// An empty backing for a resource, of up to `entries` pieces. The caller adds these, then attaches it.
    ///
    /// # Errors
    /// If the resource has a backing.
    fn new_backing(&self, id: u32, entries: u32) -> Result<Backing, ResourceError>;

    /// Attaches a backing to a resource.
    ///
    /// # Errors
    /// As [`Renderer::new_backing`], and if the backing is outside the guest's memory.
    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError>;

    /// Detaches the backing of a resource.
    ///
    /// # Errors
    /// If the resource has no backing.
    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError>;

    /// Copies rows of `transfer` from the backing: from `first` on, at least one, and about as many as
    /// [`MAX_STEP_WORK`] allows. Adds the pixels that changed to `changed`, also if it fails half-way.
    ///
    /// # Errors
    /// If the whole rectangle is outside the resource or the backing.
    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<Copied, ResourceError>;

    /// The image that the scanouts of the resource show. The first call creates it.
    ///
    /// # Errors
    /// If a display cannot show the resource.
    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError>;

    /// The image that [`Renderer::image_or_create`] returns; `None` if it was never created.
    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError>;

    /// Updates the resource's image within `wanted`, which is within the resource. Adds the pixels that
    /// changed to `changed`, also if it fails half-way.
    ///
    /// # Errors
    /// If the pixels cannot be read.
    fn read_back(
        &mut self,
        _id: u32,
        _wanted: &Region,
        _changed: &mut Region,
    ) -> Result<(), ResourceError> {
        Ok(())
    }

    /// Whether [`Renderer::export`] can succeed.
    fn exports(&self) -> bool {
        false
    }

    /// Exports the resource as a dmabuf, which later drawing changes too; `None` if that is not
    /// possible.
    fn export(&mut self, _id: u32) -> Option<Dmabuf> {
        None
    }

    /// The pixels of a resource as a cursor.
    ///
    /// # Errors
    /// If the resource is not 64x64 pixels.
    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError>;

    /// The UUID of the resource. The first call assigns one, and the resource keeps it
    /// (`VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID`).
    ///
    /// # Errors
    /// If the host has no random numbers.
    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError>;

    /// Destroys all that the driver created.
    fn reset(&mut self);

    /// Looks up the backings in `memory`, after the front-end changed the guest's memory.
    fn memory_changed(&mut self, _memory: &MemoryGuard) {}

    /// Bytes of the budget that never return, because the library behind the renderer leaked them.
    #[cfg(feature = "fuzzing")]
    fn leaked(&self) -> u64 {
        0
    }

    /// A name of the renderer for the log and the status, where there is a choice.
    fn name(&self) -> Option<&str> {
        None
    }

    /// The same renderer's 3D commands, if it has them.
    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        None
    }
}

/// The commands of a 3D renderer (virtio 1.2, 5.7.6.9). Contexts, too, are known by the driver's ids.
/// Every method with a context's or a resource's id fails with an `Unknown` error if there is none.
pub(crate) trait Renderer3d {
    /// The capability sets, by their index.
    fn capsets(&self) -> &[CapsetInfo];

    /// A capability set in one of its versions; `None` if there is no such set or version.
    fn capset(&mut self, id: u32, version: u32) -> Option<Vec<u8>>;

    /// Whether contexts are of several kinds, or of one that drivers have to ask for
    /// (`VIRTIO_GPU_F_CONTEXT_INIT`).
    fn has_context_init(&self) -> bool {
        false
    }

    /// Creates a rendering context for the protocol of a capability set; 0 is the renderer's default.
    ///
    /// # Errors
    /// If the id is 0 or in use, there is no such set, there are too many contexts, or memory is short.
    fn create_context(&mut self, id: u32, name: &[u8], capset: u32) -> Result<(), ContextError>;

    /// Destroys a context.
    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError>;

    /// Attaches a resource to a context, which may use it from then on.
    fn attach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError>;

    /// Detaches a resource from a context.
    fn detach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError>;

    /// Creates a 3D resource.
    ///
    /// # Errors
    /// If the id is 0 or in use, the sizes are out of bounds, or memory is short.
    fn create_3d(&mut self, new: &ResourceCreate3d) -> Result<(), ResourceError>;

    /// Copies between a resource and its backing, and returns the work done, in the unit of
    /// [`MAX_STEP_WORK`].
    ///
    /// # Errors
    /// If the transfer is outside either.
    fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<u64, ContextError>;

    /// Checks a command stream and executes it in a context. The renderer may overwrite `stream`.
    ///
    /// # Errors
    /// If the stream is refused, or a command in it fails: those before it were executed.
    fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), ContextError>;

    /// Creates a fence after all work submitted so far, or all that is on `ring`; `None` if that is done already.
    fn fence(&mut self, ring: Option<RingId>) -> Option<Fence>;

    /// Updates what [`Renderer3d::is_retired`] returns.
    fn poll_fences(&mut self);

    /// Whether all work before `fence` is done.
    fn is_retired(&self, fence: Fence) -> bool;

    /// Readable when [`Renderer3d::poll_fences`] should be called.
    fn fence_event(&self) -> BorrowedFd<'_>;
}
