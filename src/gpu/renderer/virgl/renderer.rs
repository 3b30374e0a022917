// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderer with virglrenderer, and how commands map to its parts.

use std::os::fd::BorrowedFd;

use crate::backend::MemoryGuard;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{CapsetInfo, Format, ResourceCreate3d, RingId, Transfer2d, Transfer3d};
use crate::gpu::region::Region;
use crate::gpu::renderer::damage_collector::DamageCollector;
use crate::gpu::renderer::{ContextError, Copied, Direction, Fence, Renderer, Renderer3d};
use crate::gpu::resource::{
    Backing, Budget, CURSOR_LEN, CURSOR_SIDE, CursorPixels, Dmabuf, PIXEL_LEN, ResourceError,
    SharedImage,
};

use super::contexts::Contexts;
use super::export::Exporter;
use super::fences::{self, Fences};
use super::library::Library;
use super::pixel_reader::{PixelReader, flat_box};
use super::process_memory::ProcessMemory;
use super::resources::Resources;
use super::{Options, VirglError, egl, transfers};

/// Renders in 3D by virglrenderer. It belongs to the thread that created it.
pub(crate) struct VirglRenderer {
    library: Library,
    name: String,
    capsets: Vec<CapsetInfo>,
    /// `None` if the EGL driver cannot export textures.
    exporter: Option<Exporter>,
    resources: Resources,
    contexts: Contexts,
    fences: Fences,
    pixel_reader: PixelReader,
    process_memory: ProcessMemory,
}

impl VirglRenderer {
    /// Initialises virglrenderer on this thread, to which the renderer belongs from now on. Its
    /// resources are charged to `budget`.
    ///
    /// # Errors
    /// If a library is missing, or no driver works.
    pub(crate) fn new(options: Options, budget: Budget) -> Result<Self, VirglError> {
        let exports = options.exports_dmabufs();
        let (place, node) = match options.into_node() {
            Some(node) => (node.path.display().to_string(), Some(node.fd)),
            None => ("no GPU".to_owned(), None),
        };
        let library = Library::open(node)?;
        library.make_current();
        let gl = egl::gl_renderer_name().unwrap_or_else(|| "an unknown GL".to_owned());
        let name = format!("virgl on {place} ({gl})");
        log::info!("{name}");
        let exporter = exports.then(Exporter::new).and_then(|exporter| {
            exporter
                .inspect_err(|missing| {
                    log::info!("scanouts are read back: the EGL driver lacks {missing}");
                })
                .ok()
        });
        let process_memory = ProcessMemory::new(&budget);
        Ok(Self::with_library(
            library,
            name,
            exporter,
            process_memory,
            budget,
        ))
    }

    /// A renderer with an initialised library.
    pub(super) fn with_library(
        library: Library,
        name: String,
        exporter: Option<Exporter>,
        process_memory: ProcessMemory,
        budget: Budget,
    ) -> Self {
        let capsets = CapsetInfo::VIRGL.map(|id| library.capset(id));
        Self {
            library,
            name,
            capsets: capsets.into_iter().flatten().collect(),
            exporter,
            resources: Resources::new(budget),
            contexts: Contexts::default(),
            fences: Fences::default(),
            pixel_reader: PixelReader::default(),
            process_memory,
        }
    }
}

impl Renderer for VirglRenderer {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.resources
            .create_2d(&mut self.library, &self.process_memory, id, format, size)
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.unref(&mut self.library, id)
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        Ok(self.resources.get(id)?.size())
    }

    fn new_backing(&self, id: u32, _entries: u32) -> Result<Backing, ResourceError> {
        self.resources.new_backing(&self.library, id)
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.resources
            .attach_backing(&mut self.library, id, backing, memory)
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        self.resources.detach_backing(&mut self.library, id)
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
        self.library
            .iovecs(id)
            .ok_or(ResourceError::NoBacking(id))?;
        if rect.is_empty() {
            return Ok(Copied {
                rows: rect.height,
                work: 0,
            });
        }
        let transfer = Transfer3d {
            part: flat_box(rect),
            offset,
            id,
            level: 0,
            stride: 0,
            layer_stride: 0,
        };
        let resource = self.resources.get(id)?;
        transfers::check(&self.library, resource, &transfer)?;
        let direction = Direction::ToHost;
        transfers::execute(&mut self.library, resource, 0, &transfer, direction, first)
    }

    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        self.resources.image_or_create(id)
    }

    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        self.resources.existing_image(id)
    }

    fn read_back(
        &mut self,
        id: u32,
        wanted: &Region,
        changed: &mut Region,
    ) -> Result<(), ResourceError> {
        let Some(image) = self.resources.existing_image(id)? else {
            return Ok(());
        };
        let resource = self.resources.get(id)?;
        for rect in wanted.rects() {
            let mut damage = DamageCollector::new(changed);
            self.pixel_reader
                .read(&mut self.library, resource, *rect, |part, pixels| {
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
        let resource = self.resources.get(id).ok()?;
        resource.picture_format()?;
        let exported = exporter.export(self.library.texture(id)?)?;
        Some(Dmabuf {
            fd: exported.fd,
            size: resource.size(),
            stride: exported.stride,
            fourcc: exported.fourcc,
            modifier: exported.modifier,
            y_0_top: resource.y_0_top(),
        })
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        let resource = self.resources.get(id)?;
        let size = resource.size();
        if size != Size::new(CURSOR_SIDE, CURSOR_SIDE) {
            return Err(ResourceError::NoCursor { id, size });
        }
        let mut cursor = Box::new([0; CURSOR_LEN]);
        // A cursor is one band.
        self.pixel_reader.read(
            &mut self.library,
            resource,
            Rect::from(size),
            |_, pixels| {
                for (to, from) in cursor.iter_mut().zip(pixels) {
                    *to = *from;
                }
            },
        )?;
        Ok(cursor)
    }

    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        self.resources.assign_uuid(id)
    }

    fn reset(&mut self) {
        self.contexts.clear(&mut self.library);
        self.resources.clear(&mut self.library);
        self.pixel_reader.clear();
    }

    fn memory_changed(&mut self, memory: &MemoryGuard) {
        self.resources.remap_backings(&mut self.library, memory);
    }

    #[cfg(feature = "fuzzing")]
    fn leaked(&self) -> u64 {
        self.contexts.leaked()
    }

    fn name(&self) -> Option<&str> {
        Some(&self.name)
    }

    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        Some(self)
    }
}

impl Renderer3d for VirglRenderer {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capsets
    }

    fn capset(&mut self, id: u32, version: u32) -> Option<Vec<u8>> {
        let set = self.capsets.iter().find(|set| set.id == id)?;
        (version <= set.max_version).then(|| self.library.capset_data(set, version))
    }

    fn create_context(&mut self, id: u32, name: &[u8], _capset: u32) -> Result<(), ContextError> {
        let (resources, process_memory) = (&self.resources, &self.process_memory);
        self.contexts
            .create(&mut self.library, resources, process_memory, id, name)
    }

    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError> {
        self.contexts.destroy(&mut self.library, id)
    }

    fn attach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.contexts.check(context)?;
        self.resources.get(id)?;
        self.library.context_attach(context, id);
        Ok(())
    }

    fn detach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.contexts.check(context)?;
        self.resources.get(id)?;
        self.library.context_detach(context, id);
        Ok(())
    }

    fn create_3d(&mut self, new: &ResourceCreate3d) -> Result<(), ResourceError> {
        self.resources
            .create_3d(&mut self.library, &self.process_memory, *new)
    }

    fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        direction: Direction,
    ) -> Result<u64, ContextError> {
        // Never in the library's own context 0: an error there would last, and stop the screen too.
        self.contexts.check(context)?;
        let resource = self.resources.get(transfer.id)?;
        transfers::check(&self.library, resource, transfer)?;
        let library = &mut self.library;
        let (mut rows, mut work): (u32, u64) = (0, 0);
        while rows < transfer.part.height {
            let copied = transfers::execute(library, resource, context, transfer, direction, rows)?;
            rows = rows.saturating_add(copied.rows.max(1));
            work = work.saturating_add(copied.work);
        }
        Ok(work)
    }

    fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), ContextError> {
        self.contexts.submit(
            &mut self.library,
            &self.resources,
            &mut self.process_memory,
            context,
            stream,
        )
    }

    fn fence(&mut self, _ring: Option<RingId>) -> Option<Fence> {
        self.fences.create(&mut self.library)
    }

    fn poll_fences(&mut self) {
        self.library.poll();
    }

    fn is_retired(&self, fence: Fence) -> bool {
        fences::is_retired(&self.library, fence)
    }

    fn fence_event(&self) -> BorrowedFd<'_> {
        self.library.fence_event()
    }
}
