// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Executes commands (virtio 1.2, 5.7.6): changes resources, scanouts and cursors, and returns the
//! response as a value.

use std::time::Instant;

use crate::backend::{MemoryGuard, SharedMemoryRequest};
use crate::geometry::Size;
use crate::gpu::display_info::{DisplayQuery, DisplayReply, LastDisplayInfo, Resolutions};
use crate::gpu::kept_state::{KeptState, KeptStateError};
use crate::gpu::protocol::{
    Command, CursorCommand, DecodeError, Request, RequestBytes, RequestReader, Response, RingId,
};
use crate::gpu::renderer::{Direction, Fence, Renderer, Renderer3d};
use crate::gpu::resource::ResourceError;
use crate::gpu::scanout::{DisplayId, DmabufSupport, Scanouts};
use late_flushes::LateFlushes;
use transfers::{PartialCommand, Progress};

mod blobs;
mod commands_3d;
mod cursor;
mod error;
mod late_flushes;
mod mapping_error;
mod mappings;
mod resources;
mod scanouts;
mod transfers;

pub(crate) use error::CommandError;
pub(crate) use mappings::{Mappings, WaitingCommand};

/// The outcome of executing a request of the control queue.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) result: Result<CommandResult, CommandError>,
    /// Work done, in the unit of [`MAX_STEP_WORK`](super::renderer::MAX_STEP_WORK).
    pub(crate) work: u64,
}

/// The state of a request that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandResult {
    /// Complete.
    Complete(Response),
    /// Executed; complete once the fence is retired.
    Fenced(Response, Fence),
    /// Not executed: execute it again with the front-end's reply.
    NeedsDisplay(DisplayQuery),
    /// Executed in part: execute it again for the rest.
    Incomplete,
    /// Executed as far as the device can; [complete](Mappings::take_completed) once the front-end has done its part.
    Waits(WaitingCommand),
}

/// The state that the driver sets up by commands: resources, scanouts and cursors.
pub(crate) struct VirtioGpu {
    renderer: Box<dyn Renderer>,
    scanouts: Scanouts,
    last_display_info: LastDisplayInfo,
    /// The part of an [incomplete](CommandResult::Incomplete) request that is done.
    partial: Option<PartialCommand>,
    mappings: Mappings,
    late_flushes: LateFlushes,
}

impl VirtioGpu {
    /// The state that a predecessor left in `kept`, in which it stays; where nothing is kept, nothing was set up yet. The
    /// resources are those of `renderer`. Where no front-end tells the sizes of its heads, these are `resolutions`.
    ///
    /// # Errors
    /// If what was left cannot be used.
    pub(crate) fn resume(
        mut renderer: Box<dyn Renderer>,
        resolutions: &Resolutions,
        kept: &KeptState,
    ) -> Result<Self, KeptStateError> {
        Ok(Self {
            scanouts: Scanouts::resume(kept.clone(), &mut *renderer)?,
            renderer,
            last_display_info: LastDisplayInfo::resume(resolutions, kept.clone())?,
            // A request that was executed in part is still in its virtqueue, and starts over: copying the same rows again
            // gives the same pixels, and nothing of a backing is kept before it is attached.
            partial: None,
            // Resources that can be mapped are not kept.
            mappings: Mappings::default(),
            // All is flushed again.
            late_flushes: LateFlushes::default(),
        })
    }

    /// Drops all that the driver set up.
    pub(crate) fn reset(&mut self) {
        self.mappings.reset();
        self.late_flushes.clear();
        self.renderer.reset();
        self.scanouts.reset();
        self.last_display_info.forget_driver();
        self.drop_partial();
    }

    /// Drops the part of an [incomplete](CommandResult::Incomplete) request that is done. The request
    /// then starts over.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = None;
    }

    /// The renderer.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn renderer(&self) -> &dyn Renderer {
        &*self.renderer
    }

    /// The renderer's 3D commands, if it has them.
    pub(crate) fn renderer_3d_mut(&mut self) -> Option<&mut dyn Renderer3d> {
        self.renderer.as_3d()
    }

    /// The renderer's name, if there is a choice of renderers.
    pub(crate) fn renderer_name(&self) -> Option<&str> {
        self.renderer.name()
    }

    /// The scanouts and cursors.
    pub(crate) fn scanouts(&self) -> &Scanouts {
        &self.scanouts
    }

    /// The scanouts and cursors, to send what changed.
    pub(crate) fn scanouts_mut(&mut self) -> &mut Scanouts {
        &mut self.scanouts
    }

    /// Gives a head another size, where no front-end tells sizes. Returns whether it had another one.
    pub(crate) fn resize(&mut self, head: u32, size: Size) -> bool {
        self.last_display_info.resize(head, size)
    }

    /// Whether the driver has read the sizes of the heads.
    pub(crate) fn has_driver_read_sizes(&self) -> bool {
        self.last_display_info.is_read()
    }

    /// Whether the driver has read the sizes that the heads have now.
    pub(crate) fn does_driver_know_sizes(&self) -> bool {
        self.last_display_info.is_known()
    }

    /// Whether the driver may create blob resources.
    pub(crate) fn has_blobs(&self) -> bool {
        self.renderer.has_blobs()
    }

    /// Whether the driver may map memory of the host.
    pub(crate) fn has_host_memory(&self) -> bool {
        self.renderer.has_host_memory()
    }

    /// What the front-end maps into the guest, and for which commands.
    pub(crate) fn mappings_mut(&mut self) -> &mut Mappings {
        &mut self.mappings
    }

    /// Does what is next of the commands that wait, and returns what the front-end is to do next. Only on the renderer's
    /// thread.
    pub(crate) fn next_mapping(&mut self) -> Option<SharedMemoryRequest> {
        while let Some((resource, command)) = self.mappings.take_unref() {
            let unref = resources::unref(&mut *self.renderer, &mut self.scanouts, resource);
            self.mappings.complete(command, unref);
        }
        self.mappings.next_request()
    }

    /// Whether scanouts may be passed on as dmabufs.
    pub(crate) fn exports(&self) -> bool {
        self.renderer.exports()
    }

    /// The guest's memory was mapped again.
    pub(crate) fn memory_changed(&mut self, memory: &MemoryGuard) {
        self.renderer.memory_changed(memory);
    }

    /// Executes a request of the control queue.
    ///
    /// `data` is the rest of the request after the command's fields: entries of a backing or a command
    /// stream. It is read only after the command was checked. `reply` is the front-end's reply if the
    /// request [needed it](CommandResult::NeedsDisplay).
    pub(crate) fn execute(
        &mut self,
        request: Request<Command>,
        data: &mut RequestReader<impl RequestBytes>,
        memory: &MemoryGuard,
        reply: Option<DisplayReply>,
    ) -> Execution {
        let mut work = 0;
        let result = match request.command {
            Ok(command) => self.execute_command(command, data, memory, reply, &mut work),
            Err(error) => {
                self.drop_partial();
                Err(error.into())
            }
        };
        let result = match result {
            Ok(CommandResult::Complete(response)) if request.header.is_fenced() => {
                Ok(match self.fence(request.header.ring()) {
                    Some(fence) => CommandResult::Fenced(response, fence),
                    None => CommandResult::Complete(response),
                })
            }
            result => result,
        };
        Execution { result, work }
    }

    fn execute_command(
        &mut self,
        command: Command,
        data: &mut RequestReader<impl RequestBytes>,
        memory: &MemoryGuard,
        reply: Option<DisplayReply>,
        work: &mut u64,
    ) -> Result<CommandResult, CommandError> {
        let partial = self.partial.take();
        let scanouts = &mut self.scanouts;
        let late_flushes = &mut self.late_flushes;
        let renderer = &mut *self.renderer;
        let response = match command {
            Command::GetDisplayInfo => return Ok(self.display_info(reply)),
            Command::GetEdid { scanout } => return Ok(self.edid(scanout, reply)),
            Command::ResourceCreate2d(new) => resources::create_2d(renderer, &new),
            Command::ResourceUnref { resource } => match self.mappings.unref(resource) {
                Some(command) => return Ok(CommandResult::Waits(command)),
                None => resources::unref(renderer, scanouts, resource),
            },
            Command::SetScanout(set) => scanouts::set_scanout(renderer, scanouts, &set),
            Command::ResourceFlush(flush) => {
                scanouts::flush(renderer, scanouts, late_flushes, &flush)
            }
            Command::TransferToHost2d(transfer) => {
                let progress = transfers::transfer_to_host_2d(
                    renderer, scanouts, &transfer, partial, memory, work,
                );
                return Ok(self.progress(progress?));
            }
            Command::ResourceAttachBacking(attach) => {
                let progress =
                    transfers::attach_backing(renderer, &attach, partial, data, memory, work);
                return Ok(self.progress(progress?));
            }
            Command::ResourceDetachBacking { resource } => {
                resources::detach_backing(renderer, resource)
            }
            Command::ResourceAssignUuid { resource } => resources::assign_uuid(renderer, resource),
            Command::ResourceCreateBlob(new) => {
                let progress = blobs::create_blob(renderer, &new, partial, data, memory, work);
                return Ok(self.progress(progress?));
            }
            Command::SetScanoutBlob(set) => blobs::set_scanout_blob(renderer, scanouts, &set),
            Command::ResourceMapBlob(map) => {
                let command = blobs::map_blob(renderer, &mut self.mappings, &map)?;
                return Ok(CommandResult::Waits(command));
            }
            Command::ResourceUnmapBlob { resource } => {
                return Ok(CommandResult::Waits(self.mappings.unmap(resource)?));
            }
            Command::GetCapsetInfo { index } => commands_3d::capset_info(renderer.as_3d(), index),
            Command::GetCapset { id, version } => {
                commands_3d::capset(renderer.as_3d(), id, version)
            }
            Command::CtxCreate(new) => commands_3d::create_context(renderer_3d(renderer)?, &new),
            Command::CtxDestroy { context } => {
                commands_3d::destroy_context(renderer_3d(renderer)?, context)
            }
            Command::CtxAttachResource { context, resource } => {
                commands_3d::attach_resource(renderer_3d(renderer)?, context, resource)
            }
            Command::CtxDetachResource { context, resource } => {
                commands_3d::detach_resource(renderer_3d(renderer)?, context, resource)
            }
            Command::ResourceCreate3d(new) => commands_3d::create_3d(renderer_3d(renderer)?, &new),
            Command::TransferToHost3d { context, transfer } => {
                let renderer = renderer_3d(renderer)?;
                commands_3d::transfer_3d(renderer, context, &transfer, Direction::ToHost, work)
            }
            Command::TransferFromHost3d { context, transfer } => {
                let renderer = renderer_3d(renderer)?;
                commands_3d::transfer_3d(renderer, context, &transfer, Direction::FromHost, work)
            }
            Command::Submit3d(submit) => {
                commands_3d::submit_3d(renderer_3d(renderer)?, &submit, data, work)
            }
        };
        response.map(CommandResult::Complete)
    }

    /// Executes a request of the cursor queue. The caller orders commands that
    /// [read pixels](CursorCommand::reads_pixels) after the control requests that draw them.
    pub(crate) fn execute_cursor(
        &mut self,
        command: Result<CursorCommand, DecodeError>,
    ) -> Result<Response, CommandError> {
        match command? {
            CursorCommand::Update(update) => {
                cursor::update_cursor(&mut *self.renderer, &mut self.scanouts, &update)
            }
            CursorCommand::Move(update) => Ok(cursor::move_cursor(&mut self.scanouts, &update)),
        }
    }

    /// Sends the flushed dmabufs and blobs that are drawn, and waits for the drawing of those flushed since. Only
    /// on the renderer's thread.
    pub(crate) fn follow_drawing(&mut self) {
        scanouts::follow_drawing(&mut *self.renderer, &mut self.scanouts);
        self.late_flushes.follow(&mut self.scanouts, Instant::now());
    }

    /// When [`VirtioGpu::follow_drawing`] is due without an event.
    pub(crate) fn drawing_deadline(&self) -> Option<Instant> {
        self.late_flushes.deadline(Instant::now())
    }

    /// Sets which dmabufs `display` supports, and reads the pixels of the scanouts that it is no longer
    /// sent as dmabufs. Only on the renderer's thread.
    ///
    /// # Errors
    /// If pixels cannot be read; they are tried again with the next flush. The other scanouts are
    /// read.
    pub(crate) fn set_dmabuf_support(
        &mut self,
        display: DisplayId,
        support: DmabufSupport,
    ) -> Result<(), ResourceError> {
        scanouts::set_dmabuf_support(&mut *self.renderer, &mut self.scanouts, display, support)
    }

    fn progress(&mut self, progress: Progress) -> CommandResult {
        match progress {
            Progress::Complete => CommandResult::Complete(Response::OkNoData),
            Progress::Partial(partial) => {
                self.partial = Some(partial);
                CommandResult::Incomplete
            }
        }
    }

    /// A fence after all rendering so far, or all that is on `ring`; `None` if it is done already.
    fn fence(&mut self, ring: Option<RingId>) -> Option<Fence> {
        self.renderer.as_3d().and_then(|r| r.fence(ring))
    }

    /// GET_DISPLAY_INFO.
    fn display_info(&mut self, reply: Option<DisplayReply>) -> CommandResult {
        let Some(reply) = reply else {
            return CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo);
        };
        let info = *self.last_display_info.display_info(reply);
        CommandResult::Complete(Response::DisplayInfo(Box::new(info)))
    }

    /// GET_EDID.
    fn edid(&mut self, scanout: u32, reply: Option<DisplayReply>) -> CommandResult {
        let Some(reply) = reply else {
            return CommandResult::NeedsDisplay(DisplayQuery::Edid(scanout));
        };
        CommandResult::Complete(Response::Edid(self.last_display_info.edid(scanout, reply)))
    }
}

/// The renderer's 3D commands, if it has them.
fn renderer_3d(renderer: &mut dyn Renderer) -> Result<&mut dyn Renderer3d, CommandError> {
    renderer.as_3d().ok_or(CommandError::No3d)
}

#[cfg(test)]
mod tests;
