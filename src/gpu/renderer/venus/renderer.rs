// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The renderer with Venus, and how commands map to its parts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::epoll;

use super::contexts::{CONNECTOR_EVENT, Contexts, Happened, context_error};
use super::fences::PendingFences;
use super::host_blobs::HostBlobs;
use super::library_thread::LibraryThread;
use super::limits::MAX_RINGS;
use super::render_server::RenderServer;
use super::renewal::{Renewal, Renewed};
use super::startup::{self, Started};
use super::{Options, VenusError};
use crate::backend::{GuestMemory, MemoryGuard, RateLimitedLog};
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{
    BlobMemory, CapsetInfo, Format, FramebufferLayout, ResourceCreate3d, ResourceCreateBlob,
    RingId, Transfer2d, Transfer3d,
};
use crate::gpu::region::Region;
use crate::gpu::renderer::software::blobs;
use crate::gpu::renderer::{
    ContextError, Copied, Direction, Fence, Renderer, Renderer3d, SoftwareRenderer,
};
use crate::gpu::resource::{
    Backing, Blob, BlobFramebuffer, Budget, CursorPixels, HostMemory, ResourceError, SharedImage,
};

/// Draws in 2D by software, and runs Vulkan in a render server.
pub(crate) struct VenusRenderer {
    /// All resources but the blobs in the host's memory.
    software: SoftwareRenderer,
    library: LibraryThread,
    /// As long as Vulkan is not lost.
    name: String,
    /// How Vulkan was lost, until there is a new server.
    lost: Option<String>,
    capset: [CapsetInfo; 1],
    /// In its newest version.
    capset_data: Vec<u8>,
    contexts: Contexts,
    blobs: HostBlobs,
    fences: PendingFences,
    /// `None` once it has ended.
    server: Option<RenderServer>,
    renewal: Renewal,
    /// Readable when a fence is retired, when the server or a context ends, and when there is news of the next server.
    events: Arc<OwnedFd>,
    budget: Budget,
    log: RateLimitedLog,
}

impl VenusRenderer {
    /// Initialises virglrenderer with the render server. Resources are charged to `budget`; `memory` is the guest's.
    ///
    /// # Errors
    /// If the render server does not answer, or the library has no Venus.
    pub(crate) fn new(
        options: Options,
        budget: Budget,
        memory: GuestMemory,
    ) -> Result<Self, VenusError> {
        let Started {
            library,
            server,
            renewal,
            capset,
            name,
        } = startup::start(options)?;
        Self::with_library(library, server, renewal, capset, name, budget, memory)
            .map_err(VenusError::Descriptors)
    }

    /// A renderer with an initialised library, and its capability set.
    ///
    /// # Errors
    /// If the host has no descriptors left.
    pub(super) fn with_library(
        library: LibraryThread,
        server: RenderServer,
        renewal: Renewal,
        (capset, capset_data): (CapsetInfo, Vec<u8>),
        name: String,
        budget: Budget,
        memory: GuestMemory,
    ) -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&events, &**library.retired(), data, epoll::EventFlags::IN)?;
        if let Some(socket) = server.socket() {
            epoll::add(&events, socket, data, epoll::EventFlags::RDHUP)?;
        }
        if let Some(event) = renewal.event() {
            let data = epoll::EventData::new_u64(CONNECTOR_EVENT);
            epoll::add(&events, event, data, epoll::EventFlags::IN)?;
        }
        let events = Arc::new(events);
        Ok(Self {
            software: SoftwareRenderer::new(budget.clone(), memory),
            library,
            name,
            lost: None,
            capset: [capset],
            capset_data,
            contexts: Contexts::new(capset.id, budget.clone(), Arc::clone(&events)),
            blobs: HostBlobs::new(budget.clone()),
            fences: PendingFences::default(),
            server: Some(server),
            renewal,
            events,
            budget,
            log: RateLimitedLog::default(),
        })
    }

    /// Checks that `id` is not of a blob in the host's memory, which has no image and no backing.
    fn check_in_software(&self, id: u32) -> Result<(), ResourceError> {
        match self.blobs.contains(id) {
            true => Err(ResourceError::IsBlob(id)),
            false => Ok(()),
        }
    }

    /// Checks that no resource has the id.
    fn check_free(&self, id: u32) -> Result<(), ResourceError> {
        match self.blobs.contains(id) || self.software.contains(id) {
            true => Err(ResourceError::Exists(id)),
            false => Ok(()),
        }
    }

    /// Checks that a resource exists.
    fn check_known(&self, id: u32) -> Result<(), ResourceError> {
        match self.blobs.contains(id) || self.software.contains(id) {
            true => Ok(()),
            false => Err(ResourceError::Unknown(id)),
        }
    }

    /// Destroys all contexts, with what they had begun.
    fn clear_contexts(&mut self) {
        for context in self.contexts.clear(&mut self.library) {
            self.forget_context(context);
        }
    }

    fn forget_context(&mut self, context: u32) {
        self.fences.forget_context(context, self.library.retired());
        self.blobs.context_destroyed(context);
    }

    /// Checks that the render server is there.
    fn check_server(&self) -> Result<(), ContextError> {
        match self.server {
            Some(_) => Ok(()),
            None => Err(ContextError::ServerEnded),
        }
    }

    /// Ends a context of which nothing is left at the server, or which does not know what was said to it.
    fn end_context(&mut self, context: u32) {
        self.contexts.end(&mut self.library, context);
        self.forget_context(context);
    }

    /// Ends the contexts whose connections have.
    fn end_contexts(&mut self, ended: Vec<u32>) {
        for context in ended {
            self.log.warn(format_args!(
                "the render server's process for context {context} has ended"
            ));
            self.end_context(context);
        }
    }

    /// Finds out whether the render server has ended or does not answer. All contexts have ended with it then.
    fn look_at_server(&mut self) {
        let Some(server) = &self.server else {
            return;
        };
        let how = match (server.has_ended(), self.library.is_stuck()) {
            (true, _) => "has ended",
            (false, true) => "does not answer",
            (false, false) => return,
        };
        let lost = self.contexts.lose(&self.library);
        let is_followed = self.renewal.is_possible();
        self.lost = Some(server.log_end(how, !lost.is_empty(), is_followed));
        // The library has duplicates of the socket, so that to close this one does not take it out of the events.
        if let Some(socket) = server.socket() {
            let _ = epoll::delete(&*self.events, socket);
        }
        server.shut_down();
        self.server = None;
        for context in lost {
            self.fences.forget_context(context, self.library.retired());
        }
        self.blobs.lose();
        self.renewal.lost(self.library.close());
    }

    /// Has a new server in place of one that ended, if it is there.
    fn look_for_new_server(&mut self) {
        let renewed = self.renewal.advance();
        self.adopt(renewed);
    }

    /// Has a new server in place of one that ended, if one can be had soon; one that has had its time makes room for it.
    fn need_server(&mut self) {
        self.look_at_server();
        self.look_for_new_server();
        if self.server.is_none() {
            self.renewal.begin();
            let renewed = self.renewal.wait();
            self.adopt(renewed);
        }
    }

    fn adopt(&mut self, renewed: Option<Renewed>) {
        let Some(Renewed { library, server }) = renewed else {
            return;
        };
        let data = epoll::EventData::new_u64(0);
        let watched = server
            .socket()
            .map(|socket| epoll::add(&*self.events, socket, data, epoll::EventFlags::RDHUP));
        if let Some(Err(e)) = watched {
            log::warn!("the end of the render server will not be noticed: {e}");
        }
        self.library = library;
        self.server = Some(server);
        self.lost = None;
        log::info!("there is Vulkan again, by a new render server");
    }
}

impl Renderer for VenusRenderer {
    fn create_2d(&mut self, id: u32, format: Format, size: Size) -> Result<(), ResourceError> {
        self.check_free(id)?;
        self.software.create_2d(id, format, size)
    }

    fn has_blobs(&self) -> bool {
        true
    }

    fn new_blob_backing(&self, new: &ResourceCreateBlob) -> Result<Backing, ResourceError> {
        self.check_free(new.id)?;
        if new.memory == BlobMemory::Guest {
            return self.software.new_blob_backing(new);
        }
        self.blobs.check_new(new)?;
        // It stays empty.
        let id = new.id;
        Backing::new(&self.budget).map_err(|source| ResourceError::Backing { id, source })
    }

    fn create_blob(
        &mut self,
        new: &ResourceCreateBlob,
        backing: Option<Backing>,
    ) -> Result<(), ResourceError> {
        self.check_free(new.id)?;
        if new.memory == BlobMemory::Guest {
            return self.software.create_blob(new, backing);
        }
        let (library, contexts) = (&mut self.library, &self.contexts);
        self.blobs.create(library, contexts, new)
    }

    fn blob(&self, id: u32) -> Option<&Blob> {
        match self.blobs.contains(id) {
            true => self.blobs.blob(id),
            false => self.software.blob(id),
        }
    }

    fn has_host_memory(&self) -> bool {
        true
    }

    fn host_memory(&mut self, id: u32) -> Result<HostMemory, ResourceError> {
        match self.software.contains(id) {
            true => Err(ResourceError::NoHostMemory(id)),
            false => self.blobs.memory(id),
        }
    }

    fn framebuffer(
        &self,
        id: u32,
        layout: FramebufferLayout,
        rect: &Rect,
    ) -> Result<BlobFramebuffer, ResourceError> {
        if !self.blobs.contains(id) {
            return self.software.framebuffer(id, layout, rect);
        }
        // For its error.
        self.blobs.memory(id)?;
        let blob = self.blobs.blob(id).ok_or(ResourceError::Unknown(id))?;
        blobs::framebuffer(id, blob, layout, rect, self.budget.limit())
    }

    fn unref(&mut self, id: u32) -> Result<(), ResourceError> {
        match self.blobs.contains(id) {
            true => self.blobs.unref(&mut self.library, id),
            false => self.software.unref(id),
        }
    }

    fn size(&self, id: u32) -> Result<Size, ResourceError> {
        self.check_in_software(id)?;
        self.software.size(id)
    }

    fn new_backing(&self, id: u32, entries: u32) -> Result<Backing, ResourceError> {
        self.check_in_software(id)?;
        self.software.new_backing(id, entries)
    }

    fn attach_backing(
        &mut self,
        id: u32,
        backing: Backing,
        memory: &MemoryGuard,
    ) -> Result<(), ResourceError> {
        self.check_in_software(id)?;
        self.software.attach_backing(id, backing, memory)
    }

    fn detach_backing(&mut self, id: u32) -> Result<(), ResourceError> {
        self.check_in_software(id)?;
        self.software.detach_backing(id)
    }

    fn transfer_to_host_2d(
        &mut self,
        transfer: &Transfer2d,
        first: u32,
        memory: &MemoryGuard,
        changed: &mut Region,
    ) -> Result<Copied, ResourceError> {
        self.check_in_software(transfer.id)?;
        self.software
            .transfer_to_host_2d(transfer, first, memory, changed)
    }

    fn image_or_create(&mut self, id: u32) -> Result<SharedImage, ResourceError> {
        self.check_in_software(id)?;
        self.software.image_or_create(id)
    }

    fn existing_image(&self, id: u32) -> Result<Option<SharedImage>, ResourceError> {
        match self.blobs.contains(id) {
            true => Ok(None),
            false => self.software.existing_image(id),
        }
    }

    fn cursor(&mut self, id: u32) -> Result<CursorPixels, ResourceError> {
        match self.blobs.blob(id) {
            Some(blob) => blobs::cursor(id, blob),
            None => {
                self.check_in_software(id)?;
                self.software.cursor(id)
            }
        }
    }

    fn assign_uuid(&mut self, id: u32) -> Result<[u8; 16], ResourceError> {
        match self.blobs.contains(id) {
            true => self.blobs.assign_uuid(id),
            false => self.software.assign_uuid(id),
        }
    }

    fn reset(&mut self) {
        // The contexts first, which hear of no blob any more.
        self.clear_contexts();
        self.blobs.clear(&mut self.library);
        self.software.reset();
    }

    fn memory_changed(&mut self, memory: &MemoryGuard) {
        self.software.memory_changed(memory);
    }

    fn name(&self) -> Option<&str> {
        Some(self.lost.as_ref().unwrap_or(&self.name))
    }

    fn as_3d(&mut self) -> Option<&mut dyn Renderer3d> {
        Some(self)
    }
}

impl Renderer3d for VenusRenderer {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capset
    }

    fn capset(&mut self, id: u32, version: u32) -> Option<Vec<u8>> {
        let [set] = &self.capset;
        (id == set.id && version == set.max_version).then(|| self.capset_data.clone())
    }

    fn has_context_init(&self) -> bool {
        true
    }

    fn create_context(&mut self, id: u32, name: &[u8], capset: u32) -> Result<(), ContextError> {
        self.need_server();
        self.check_server()?;
        self.contexts.create(&mut self.library, id, name, capset)
    }

    fn destroy_context(&mut self, id: u32) -> Result<(), ContextError> {
        self.contexts.destroy(&mut self.library, id)?;
        self.forget_context(id);
        Ok(())
    }

    fn attach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.contexts.check(context)?;
        self.check_known(id)?;
        match self.blobs.contains(id) {
            true => self.blobs.attach(&mut self.library, context, id),
            // Drivers attach everything to every context. Vulkan has no use for it.
            false => Ok(()),
        }
    }

    fn detach_resource(&mut self, context: u32, id: u32) -> Result<(), ContextError> {
        self.contexts.check(context)?;
        self.check_known(id)?;
        if self.blobs.contains(id) {
            self.blobs.detach(&mut self.library, context, id)?;
        }
        Ok(())
    }

    fn create_3d(&mut self, new: &ResourceCreate3d) -> Result<(), ResourceError> {
        Err(ResourceError::No3d(new.id))
    }

    fn transfer_3d(
        &mut self,
        context: u32,
        transfer: &Transfer3d,
        _direction: Direction,
    ) -> Result<u64, ContextError> {
        self.contexts.check(context)?;
        self.check_known(transfer.id)?;
        Err(ResourceError::No3d(transfer.id).into())
    }

    fn submit(&mut self, context: u32, stream: &mut [u32]) -> Result<(), ContextError> {
        self.contexts.check(context)?;
        let submitted = self.library.submit(context, stream);
        submitted.map_err(|error| {
            self.end_context(context);
            context_error(context, error)
        })
    }

    /// The device's own timeline is of 2D, which is done at once.
    fn fence(&mut self, ring: Option<RingId>) -> Option<Fence> {
        let ring = ring.filter(|ring| ring.index < MAX_RINGS && self.contexts.has(ring.context))?;
        let library = &mut self.library;
        self.fences
            .add(ring.context, |fence| library.create_fence(ring, fence))
    }

    fn poll_fences(&mut self) {
        let Happened { ended, is_answered } = self.contexts.happened();
        self.end_contexts(ended);
        self.fences.update(self.library.retired());
        self.look_at_server();
        if is_answered || self.server.is_none() {
            self.look_for_new_server();
        }
    }

    fn is_retired(&self, fence: Fence) -> bool {
        self.fences.is_retired(fence)
    }

    fn fence_event(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}
