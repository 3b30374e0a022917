// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resources of virglrenderer, their backings and their images.

use std::collections::HashMap;
use std::sync::Arc;

use virtio_bindings::virtio_gpu as spec;

use crate::backend::{MemoryGuard, RateLimitedLog};
use crate::geometry::Size;
use crate::gpu::protocol::{Format, ResourceCreate3d};
use crate::gpu::resource::{
    Backing, Budget, Charge, Image, ImageError, ResourceError, ResourceTable, SharedImage,
};

use super::guest_iovecs::GuestIovecs;
use super::library::Library;
use super::limits::MAX_RESOURCES;
use super::process_memory::ProcessMemory;
use super::resource_cost::resource_cost;
use super::texture_layout::{TEXTURE_2D, TEXTURE_RECT};

/// `VIRGL_BIND_RENDER_TARGET` (virglrenderer, virgl_hw.h), the use of 2D resources.
const BIND_RENDER_TARGET: u32 = 1 << 1;

/// A resource of virglrenderer.
pub(super) struct Resource {
    args: ResourceCreate3d,
    /// The image that scanouts show, created for the first one.
    image: Option<SharedImage>,
}

impl Resource {
    pub(super) fn id(&self) -> u32 {
        self.args.id
    }

    /// The arguments of the command that created it.
    pub(super) fn args(&self) -> &ResourceCreate3d {
        &self.args
    }

    pub(super) fn size(&self) -> Size {
        Size::new(self.args.width, self.args.height)
    }

    /// `VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP` of the resource.
    pub(super) fn y_0_top(&self) -> bool {
        self.args.flags & spec::VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP != 0
    }

    /// The format of its pixels, if it is a picture: a texture with one layer and one sample, in a
    /// format of 2D resources.
    pub(super) fn picture_format(&self) -> Option<Format> {
        let args = &self.args;
        let is_flat = [TEXTURE_2D, TEXTURE_RECT].contains(&args.target);
        let is_single = args.depth == 1 && args.array_size == 1 && args.samples <= 1;
        Format::from_number(args.format).filter(|_| is_flat && is_single)
    }

    /// As [`Resource::picture_format`].
    ///
    /// # Errors
    /// If it is no picture.
    pub(super) fn check_picture(&self) -> Result<Format, ResourceError> {
        let (id, new) = (self.args.id, self.args);
        self.picture_format()
            .ok_or(ResourceError::NoPicture { id, new })
    }
}

/// All resources of a driver.
pub(super) struct Resources {
    table: ResourceTable<Resource>,
    /// Backings that are outside the guest's memory, but may be within it again: a front-end that
    /// changes a region first removes it (`REM_MEM_REG`, then `ADD_MEM_REG`).
    unmapped: HashMap<u32, Backing>,
    device_errors: RateLimitedLog,
}

impl Resources {
    /// No resources yet. Their memory is charged to `budget`.
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            table: ResourceTable::new(MAX_RESOURCES, budget),
            unmapped: HashMap::new(),
            device_errors: RateLimitedLog::default(),
        }
    }

    pub(super) fn budget(&self) -> &Budget {
        self.table.budget()
    }

    pub(super) fn get(&self, id: u32) -> Result<&Resource, ResourceError> {
        self.table.get(id)
    }

    pub(super) fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        self.table.assign_uuid(id)
    }

    /// As [`ResourceTable::share_charge`].
    pub(super) fn share_charge(&self, id: u32) -> Option<Arc<Charge>> {
        self.table.share_charge(id)
    }

    /// Creates a 2D resource.
    ///
    /// # Errors
    /// As [`Resources::create_3d`].
    pub(super) fn create_2d(
        &mut self,
        library: &mut Library,
        process_memory: &ProcessMemory,
        id: u32,
        format: Format,
        size: Size,
    ) -> Result<(), ResourceError> {
        let args = ResourceCreate3d {
            id,
            target: TEXTURE_2D,
            format: format.number(),
            bind: BIND_RENDER_TARGET,
            width: size.width,
            height: size.height,
            depth: 1,
            array_size: 1,
            last_level: 0,
            samples: 0,
            flags: spec::VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP,
        };
        self.create(library, process_memory, args, library_format(format))
            .map_err(|error| match error {
                ResourceError::OutOfBounds { id, .. } => ResourceError::Image {
                    id,
                    source: ImageError::Size(size),
                },
                other => other,
            })
    }

    /// Creates a 3D resource.
    ///
    /// # Errors
    /// If the id is 0 or in use, the sizes are out of bounds, or memory is short.
    pub(super) fn create_3d(
        &mut self,
        library: &mut Library,
        process_memory: &ProcessMemory,
        args: ResourceCreate3d,
    ) -> Result<(), ResourceError> {
        self.create(library, process_memory, args, args.format)
    }

    fn create(
        &mut self,
        library: &mut Library,
        process_memory: &ProcessMemory,
        args: ResourceCreate3d,
        library_format: u32,
    ) -> Result<(), ResourceError> {
        let id = args.id;
        let out_of_bounds = ResourceError::OutOfBounds { id, new: args };
        self.table.check_new(id)?;
        let Some(bytes) = resource_cost(&args) else {
            return Err(out_of_bounds);
        };
        if let Some(excess) = process_memory.excess() {
            return Err(ResourceError::Excess { id, excess });
        }
        let charge = self.table.charge(id, bytes)?;
        let library_args = ResourceCreate3d {
            format: library_format,
            ..args
        };
        library
            .create_resource(&library_args)
            .map_err(|_| out_of_bounds)?;
        self.table
            .insert(id, charge, Resource { args, image: None });
        Ok(())
    }

    /// Destroys a resource and its backing.
    pub(super) fn unref(&mut self, library: &mut Library, id: u32) -> Result<(), ResourceError> {
        self.table.remove(id)?;
        self.unmapped.remove(&id);
        library.unref_resource(id);
        Ok(())
    }

    /// Destroys all resources.
    pub(super) fn clear(&mut self, library: &mut Library) {
        for id in self.table.clear() {
            library.unref_resource(id);
        }
        self.unmapped.clear();
    }

    /// An empty backing for a resource that has none.
    pub(super) fn new_backing(&self, library: &Library, id: u32) -> Result<Backing, ResourceError> {
        self.table.get(id)?;
        if self.unmapped.contains_key(&id) || library.iovecs(id).is_some() {
            return Err(ResourceError::HasBacking(id));
        }
        Backing::new(self.budget()).map_err(|source| ResourceError::Backing { id, source })
    }

    pub(super) fn attach_backing(
        &mut self,
        library: &mut Library,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.new_backing(library, id)?;
        let iovecs = GuestIovecs::new(backing, memory, self.budget()).map_err(|failed| {
            ResourceError::Backing {
                id,
                source: failed.1,
            }
        })?;
        library
            .attach(id, iovecs)
            .map_err(|_| ResourceError::Refused(id))
    }

    pub(super) fn detach_backing(
        &mut self,
        library: &mut Library,
        id: u32,
    ) -> Result<(), ResourceError> {
        self.table.get(id)?;
        let unmapped = self.unmapped.remove(&id);
        match library.detach(id) {
            None if unmapped.is_none() => Err(ResourceError::NoBacking(id)),
            _ => Ok(()),
        }
    }

    /// Looks up all backings in `memory`.
    pub(super) fn remap_backings(&mut self, library: &mut Library, memory: &MemoryGuard) {
        let mut backings: Vec<_> = std::mem::take(&mut self.unmapped).into_iter().collect();
        for id in library.attached_ids() {
            let iovecs = library.detach(id);
            backings.extend(iovecs.map(|iovecs| (id, iovecs.into_backing())));
        }
        for (id, backing) in backings {
            let again = GuestIovecs::new(backing, memory, self.table.budget())
                .map_err(|failed| {
                    let (backing, error) = *failed;
                    (Some(Box::new(backing)), error.to_string())
                })
                .and_then(|iovecs| {
                    let attached = library.attach(id, iovecs);
                    attached.map_err(|error| (None, error.to_string()))
                });
            if let Err((backing, error)) = again {
                self.device_errors.warn(format_args!(
                    "the guest's memory changed: resource {id} has no backing: {error}"
                ));
                self.unmapped.extend(backing.map(|backing| (id, *backing)));
            }
        }
    }

    /// The image that the scanouts of a resource show. The first call creates it.
    pub(super) fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        let budget = self.table.budget().clone();
        let resource = self.table.get_mut(id)?;
        if let Some(image) = &resource.image {
            return Ok(image.clone());
        }
        resource.check_picture()?;
        let image = Image::new(resource.size(), &budget)
            .map_err(|source| ResourceError::Image { id, source })?;
        Ok(resource.image.insert(SharedImage::new(image)).clone())
    }

    /// The image that [`Resources::image_or_create`] returns; `None` if it was never created.
    pub(super) fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(self.table.get(id)?.image.clone())
    }
}

/// The library's format (`enum virgl_formats`) for a 2D resource. It has no X8B8G8R8; instead, the
/// resource has an alpha channel, which neither scanouts nor transfers use.
fn library_format(format: Format) -> u32 {
    match format {
        Format::X8B8G8R8 => Format::A8B8G8R8.number(),
        other => other.number(),
    }
}
