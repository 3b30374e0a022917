//! 3D by virglrenderer: the guest's OpenGL commands on the host's OpenGL.
//!
//! All that is unsafe about it is in the rooms below; in here is what a resource, a context and a
//! fence are. The renderer belongs to the thread that made it.

use std::collections::HashMap;

use virtio_bindings::virtio_gpu as spec;

use super::super::protocol::{Box3, CapsetInfo, Create3d, Format, Transfer2d, Transfer3d};
use super::super::region::{Rect, Region, Size};
use super::super::render_node::RenderNodeError;
use super::damage_collector::DamageCollector;
use super::row_copy::to_display_order;
use super::{ContextError, Copied, Direction, Renderer, Renderer3d};
use crate::backend::{MemoryGuard, RateLimitedLog};
use crate::gpu::resource::{
    Backing, Budget, CURSOR_LEN, CURSOR_SIDE, CursorPixels, Dmabuf, Image, ImageError, PIXEL_LEN,
    ResourceError, ResourceTable, SharedImage,
};
use export::Exporter;
use guest_iovecs::Pages;
use holdings::{Holdings, Kept};
use library::Library;
#[cfg(any(test, feature = "fuzzing"))]
pub use library::fake_virglrenderer;
pub use options::Options;
use resident::Resident;

mod api;
mod command_stream;
mod egl;
mod export;
mod guest_iovecs;
mod holdings;
mod library;
mod limits;
mod log;
mod options;
mod resident;
mod sandbox_policy;
mod shader_cache;
mod three_d;
mod transfers;

/// Most resources a VM has at a time.
const MAX_RESOURCES: usize = 65536;
/// Most contexts a VM has at a time: one for each program that draws.
const MAX_CONTEXTS: usize = 256;
/// Most bytes that are read back at a time.
const BAND_LEN: u32 = 4 << 20;

/// `VIRGL_BIND_RENDER_TARGET`, for what 2D commands make.
const BIND_RENDER_TARGET: u32 = 1 << 1;

/// Why there is no 3D.
#[derive(Debug, thiserror::Error)]
pub enum VirglError {
    /// The render node that was asked for cannot be had.
    #[error(transparent)]
    Node(#[from] RenderNodeError),
    /// A library cannot be loaded.
    #[error(
        "--virgl: {library} cannot be loaded, install it (Debian: libvirglrenderer1, libegl1, libgl1, libgl1-mesa-dri): {error}"
    )]
    Missing {
        /// Its name.
        library: &'static str,
        /// What the loader says.
        error: libloading::Error,
    },
    /// There is another renderer in this process.
    #[error("--virgl: virglrenderer is in use by this process already")]
    Taken,
    /// The library does not begin.
    #[error(
        "--virgl: virglrenderer finds no usable OpenGL by EGL; check the GPU's driver, or Mesa (Debian: libegl-mesa0, libgl1-mesa-dri){}{said}",
        if said.is_empty() { "" } else { ": " }
    )]
    Init {
        /// What it said last.
        said: String,
    },
    /// The library does not tell when work is done.
    #[error("--virgl: virglrenderer has no event for its fences; unset VIRGL_DISABLE_MT")]
    NoFences,
}

struct Resource {
    new: Create3d,
    /// What scanouts show of it, once one did.
    image: Option<SharedImage>,
}

impl Resource {
    /// The format of its pixels, where it is a picture.
    fn format(&self) -> Option<Format> {
        let new = &self.new;
        let flat = [limits::TEXTURE_2D, limits::TEXTURE_RECT].contains(&new.target);
        let single = new.depth == 1 && new.array_size == 1 && new.samples <= 1;
        Format::from_number(new.format).filter(|_| flat && single)
    }
}

/// The library's format for a 2D resource of `format`. It has no X8B8G8R8: there it has an alpha,
/// which neither a scanout nor a copy looks at.
fn library_format(format: Format) -> u32 {
    match format {
        Format::X8B8G8R8 => Format::A8B8G8R8.number(),
        other => other.number(),
    }
}

/// The renderer with virglrenderer.
pub struct VirglRenderer {
    library: Library,
    /// Where pictures can be passed on.
    exporter: Option<Exporter>,
    capsets: Vec<CapsetInfo>,
    description: String,
    resources: ResourceTable<Resource>,
    /// Backings that are not in the guest's memory now, but may be again: a front-end that changes a
    /// region (`REM_MEM_REG`, `ADD_MEM_REG`) takes it back first.
    away: HashMap<u32, Backing>,
    contexts: HashMap<u32, Holdings>,
    /// What the library does not give back any more.
    lost: Kept,
    /// Where the process may look at itself.
    resident: Option<Resident>,
    /// How many streams came; the number wraps around.
    streams: u32,
    last_fence: u32,
    /// Pixels that are read back, kept for the next.
    band: Vec<u8>,
    device_errors: RateLimitedLog,
}

impl VirglRenderer {
    /// Initialises virglrenderer on this thread, to which the renderer belongs from now on. Its
    /// resources take their memory from `budget`.
    ///
    /// # Errors
    /// Where a library is missing, or none of the drivers works.
    pub fn new(options: Options, budget: Budget) -> Result<Self, VirglError> {
        // What software draws is in this process anyway, and a GPU may not take it.
        let dmabufs = options.dmabufs && options.node.is_some();
        let (place, node) = match options.node {
            Some((path, node)) => (path.display().to_string(), Some(node)),
            None => ("no GPU".to_owned(), None),
        };
        let library = Library::open(node)?;
        library.make_current();
        let gl = egl::renderer().unwrap_or_else(|| "an unknown GL".to_owned());
        let description = format!("virgl on {place} ({gl})");
        ::log::info!("{description}");
        let exporter = dmabufs.then(Exporter::new);
        let exporter = exporter.and_then(|exporter| {
            exporter
                .inspect_err(|missing| {
                    ::log::info!("screens are read back: the EGL driver lacks {missing}");
                })
                .ok()
        });
        let capsets = CapsetInfo::VIRGL.map(|id| library.capset(id));
        Ok(Self {
            capsets: capsets.into_iter().flatten().collect(),
            library,
            exporter,
            description,
            resident: Resident::new(budget.limit()).ok(),
            streams: 0,
            resources: ResourceTable::new(MAX_RESOURCES, budget),
            away: HashMap::new(),
            contexts: HashMap::new(),
            lost: Kept::default(),
            last_fence: 0,
            band: Vec::new(),
            device_errors: RateLimitedLog::default(),
        })
    }

    fn context(&self, id: u32) -> Result<(), ContextError> {
        if self.contexts.contains_key(&id) {
            Ok(())
        } else {
            Err(ContextError::Unknown(id))
        }
    }

    /// Makes a resource, whose format the library knows as `format`.
    fn create(&mut self, new: Create3d, format: u32) -> Result<(), ResourceError> {
        let id = new.id;
        self.resources.check_new(id)?;
        let bytes = limits::cost(&new).ok_or(ResourceError::OutOfBounds { id, new })?;
        if let Some(excess) = self.resident.as_ref().and_then(Resident::excess) {
            return Err(ResourceError::Excess { id, excess });
        }
        let charge = self.resources.charge(id, bytes)?;
        self.library
            .create_resource(&Create3d { format, ..new })
            .map_err(|_| ResourceError::OutOfBounds { id, new })?;
        let resource = Resource { new, image: None };
        self.resources.insert(id, charge, resource);
        Ok(())
    }

    /// Reads `rect` of a resource in the display's order of bytes, in bands of whole rows. `take`
    /// gets the rectangle of each and its rows.
    fn read(
        &mut self,
        id: u32,
        rect: Rect,
        mut take: impl FnMut(Rect, &[u8]),
    ) -> Result<(), ResourceError> {
        let resource = self.resources.get(id)?;
        let new = resource.new;
        let format = resource.format();
        let format = format.ok_or(ResourceError::NoPicture { id, new })?;
        let stride = rect.width.saturating_mul(PIXEL_LEN as u32);
        let rows = BAND_LEN.checked_div(stride).unwrap_or(0).max(1);
        let mut done = 0;
        while done < rect.height {
            let height = rows.min(rect.height.saturating_sub(done));
            let part = Rect {
                y: rect.y.saturating_add(done),
                height,
                ..rect
            };
            let band = Box3 {
                x: part.x,
                y: part.y,
                z: 0,
                width: part.width,
                height: part.height,
                depth: 1,
            };
            let len = part.area() as usize * PIXEL_LEN;
            self.band.resize(len, 0);
            self.library
                .read(id, &band, stride, &mut self.band)
                .map_err(|_| ResourceError::Refused(id))?;
            to_display_order(format, &mut self.band);
            take(part, &self.band);
            done = done.saturating_add(height);
        }
        Ok(())
    }
}

impl Renderer for VirglRenderer {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.create(
            Create3d {
                id,
                target: limits::TEXTURE_2D,
                format: format.number(),
                bind: BIND_RENDER_TARGET,
                width: size.width,
                height: size.height,
                depth: 1,
                array_size: 1,
                last_level: 0,
                samples: 0,
                flags: spec::VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP,
            },
            library_format(format),
        )
        .map_err(|error| match error {
            ResourceError::OutOfBounds { id, .. } => ResourceError::Image {
                id,
                source: ImageError::Size(size),
            },
            other => other,
        })
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.remove(id)?;
        self.away.remove(&id);
        self.library.unref_resource(id);
        Ok(())
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        let new = &self.resources.get(id)?.new;
        Ok(Size::new(new.width, new.height))
    }

    fn new_backing(&self, id: u32) -> Result<Backing, ResourceError> {
        self.resources.get(id)?;
        match self.library.pages(id) {
            _ if self.away.contains_key(&id) => Err(ResourceError::HasBacking(id)),
            Some(_) => Err(ResourceError::HasBacking(id)),
            None => Backing::new(self.resources.budget())
                .map_err(|source| ResourceError::Backing { id, source }),
        }
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.new_backing(id)?;
        let pages = Pages::new(backing, memory, self.resources.budget())
            .map_err(|(_, source)| ResourceError::Backing { id, source })?;
        self.library
            .attach(id, pages)
            .map_err(|_| ResourceError::Refused(id))
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.get(id)?;
        let away = self.away.remove(&id);
        match self.library.detach(id) {
            None if away.is_none() => Err(ResourceError::NoBacking(id)),
            _ => Ok(()),
        }
    }

    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        _memory: &MemoryGuard,
        _changed: &mut Region,
    ) -> Result<Copied, ResourceError> {
        let Transfer2d { id, rect, offset } = *transfer;
        self.check_within(id, rect)?;
        self.library.pages(id).ok_or(ResourceError::NoBacking(id))?;
        if rect.is_empty() {
            return Ok(Copied {
                rows: rect.height,
                work: 0,
            });
        }
        let transfer = Transfer3d {
            part: Box3 {
                x: rect.x,
                y: rect.y,
                z: 0,
                width: rect.width,
                height: rect.height,
                depth: 1,
            },
            offset,
            id,
            level: 0,
            stride: 0,
            layer_stride: 0,
        };
        self.check_transfer(&transfer)?;
        self.transfer_from(0, &transfer, Direction::ToHost, first)
    }

    fn image(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        let budget = self.resources.budget().clone();
        let resource = self.resources.get_mut(id)?;
        if let Some(image) = &resource.image {
            return Ok(image.clone());
        }
        let new = resource.new;
        if resource.format().is_none() {
            return Err(ResourceError::NoPicture { id, new });
        }
        let image = Image::new(Size::new(new.width, new.height), &budget)
            .map_err(|source| ResourceError::Image { id, source })?;
        Ok(resource.image.insert(SharedImage::new(image)).clone())
    }

    fn scanout_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        Ok(self.resources.get(id)?.image.clone())
    }

    fn read_back(
        &mut self,
        id: u32,
        wanted: &Region,
        changed: &mut Region,
    ) -> Result<(), ResourceError> {
        let Some(image) = self.scanout_image(id)? else {
            return Ok(());
        };
        for rect in wanted.rects() {
            let mut damage = DamageCollector::new(changed);
            self.read(id, *rect, |part, pixels| {
                let mut image = image.lock();
                let rows = pixels.chunks_exact(part.width as usize * PIXEL_LEN);
                for (y, row) in (part.y..).zip(rows) {
                    if let Some(columns) = image.merge_row(part.x, y, row) {
                        damage.add_row(y, columns);
                    }
                }
            })?;
        }
        Ok(())
    }

    fn exports(&self) -> bool {
        self.exporter.is_some()
    }

    fn export(&mut self, id: u32) -> Option<Dmabuf> {
        let exporter = self.exporter.as_ref()?;
        let new = self.resources.get(id).ok()?.new;
        self.resources.get(id).ok()?.format()?;
        let exported = exporter.export(self.library.texture(id)?)?;
        Some(Dmabuf {
            fd: exported.fd,
            size: Size::new(new.width, new.height),
            stride: exported.stride,
            fourcc: exported.fourcc,
            modifier: exported.modifier,
            y_0_top: new.flags & spec::VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP != 0,
        })
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        let size = self.size(id)?;
        if size != Size::new(CURSOR_SIDE, CURSOR_SIDE) {
            return Err(ResourceError::NoCursor { id, size });
        }
        let mut cursor = Box::new([0; CURSOR_LEN]);
        // A cursor is one band.
        self.read(id, Rect::from(size), |_, pixels| {
            for (to, from) in cursor.iter_mut().zip(pixels) {
                *to = *from;
            }
        })?;
        Ok(cursor)
    }

    fn uuid(&mut self, id: u32) -> Result<&mut Option<[u8; 16]>, ResourceError> {
        self.resources.uuid(id)
    }

    fn reset(&mut self) {
        for (id, holdings) in std::mem::take(&mut self.contexts) {
            self.library.destroy_context(id);
            drop(holdings);
        }
        for id in self.resources.clear() {
            self.library.unref_resource(id);
        }
        self.away.clear();
        self.band = Vec::new();
    }

    fn memory_changed(&mut self, memory: &MemoryGuard) {
        let mut backings: Vec<_> = std::mem::take(&mut self.away).into_iter().collect();
        for id in self.library.with_pages() {
            let pages = self.library.detach(id);
            backings.extend(pages.map(|pages| (id, pages.into_backing())));
        }
        for (id, backing) in backings {
            let again = Pages::new(backing, memory, self.resources.budget())
                .map_err(|(backing, error)| (Some(backing), error.to_string()))
                .and_then(|pages| {
                    let attached = self.library.attach(id, pages);
                    attached.map_err(|error| (None, error.to_string()))
                });
            if let Err((backing, error)) = again {
                self.device_errors.warn(format_args!(
                    "the guest's memory changed: resource {id} has no backing: {error}"
                ));
                self.away.extend(backing.map(|backing| (id, backing)));
            }
        }
    }

    #[cfg(feature = "fuzzing")]
    fn lost(&self) -> u64 {
        self.lost.bytes()
    }

    fn name(&self) -> Option<&str> {
        Some(&self.description)
    }

    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
