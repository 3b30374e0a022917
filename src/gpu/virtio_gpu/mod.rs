//! Executes commands (virtio 1.2, 5.7.6): changes resources, scanouts and cursors, and makes the
//! response.

use crate::backend::MemoryGuard;

use super::display_info::{DisplayQuery, DisplayReply, LastDisplayInfo};
use super::protocol::{
    Command, CursorCommand, DecodeError, Request, RequestReader, Response, Source,
};
use super::renderer::{Direction, Fence, Renderer, Renderer3d};
use super::scanout::Scanouts;
use transfers::PartialCommand;

mod commands_3d;
mod cursor;
mod error;
mod resources;
mod scanouts;
mod transfers;

pub(crate) use error::CommandError;

/// What came of executing a request of the control queue.
#[derive(Debug)]
pub(crate) struct Execution {
    pub(crate) result: Result<CommandResult, CommandError>,
    /// Work done, in bytes copied (see [`WORK`](super::renderer::WORK)).
    pub(crate) work: u64,
}

/// What becomes of a request that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CommandResult {
    /// It is complete.
    Complete(Response),
    /// It is executed, and complete once the fence is retired.
    Fenced(Response, Fence),
    /// Nothing is done: it is to be executed again with the front-end's reply.
    NeedsDisplay(DisplayQuery),
    /// A part is done: it is to be executed again for the rest.
    Incomplete,
}

impl From<Response> for CommandResult {
    fn from(response: Response) -> Self {
        Self::Complete(response)
    }
}

/// What the driver set up: resources, scanouts and cursors.
pub(crate) struct VirtioGpu {
    renderer: Box<dyn Renderer>,
    scanouts: Scanouts,
    displays: LastDisplayInfo,
    /// The control request of which a part is done.
    partial: Option<PartialCommand>,
}

impl VirtioGpu {
    /// A device without resources that draws with `renderer`.
    pub(crate) fn new(renderer: Box<dyn Renderer>) -> Self {
        Self {
            renderer,
            scanouts: Scanouts::default(),
            displays: LastDisplayInfo::default(),
            partial: None,
        }
    }

    /// Drops all that the driver set up.
    pub(crate) fn reset(&mut self) {
        self.renderer.reset();
        self.scanouts.reset();
        self.drop_partial();
    }

    /// Drops what is done of a [`CommandResult::Incomplete`] request: if it is executed again, it starts
    /// over.
    pub(crate) fn drop_partial(&mut self) {
        self.partial = None;
    }

    /// The renderer.
    #[cfg(feature = "fuzzing")]
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
    /// `data` is what follows the command's fields in the request; it is read only after the command
    /// was checked. `reply` is the front-end's reply to this request's [`DisplayQuery`], if it was
    /// executed before and made one.
    pub(crate) fn execute(
        &mut self,
        request: Request<Command>,
        data: &mut RequestReader<impl Source>,
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
                Ok(match self.fence() {
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
        data: &mut RequestReader<impl Source>,
        memory: &MemoryGuard,
        reply: Option<DisplayReply>,
        work: &mut u64,
    ) -> Result<CommandResult, CommandError> {
        let partial = self.partial.take();
        match command {
            Command::GetDisplayInfo => Ok(self.display_info(reply)),
            Command::GetEdid { scanout } => Ok(self.edid(scanout, reply)),
            Command::ResourceCreate2d(new) => self.create_2d(&new),
            Command::ResourceUnref { resource } => self.unref(resource),
            Command::SetScanout(set) => self.set_scanout(&set),
            Command::ResourceFlush(flush) => self.flush(&flush),
            Command::TransferToHost2d(transfer) => {
                self.transfer_to_host_2d(&transfer, partial, memory, work)
            }
            Command::ResourceAttachBacking(attach) => {
                self.attach_backing(&attach, partial, data, memory, work)
            }
            Command::ResourceDetachBacking { resource } => self.detach_backing(resource),
            Command::ResourceAssignUuid { resource } => self.assign_uuid(resource),
            Command::GetCapsetInfo { index } => self.capset_info(index),
            Command::GetCapset { id, version } => self.capset(id, version),
            Command::CtxCreate(new) => self.create_context(&new),
            Command::CtxDestroy { context } => self.destroy_context(context),
            Command::CtxAttachResource { context, resource } => {
                self.attach_resource(context, resource)
            }
            Command::CtxDetachResource { context, resource } => {
                self.detach_resource(context, resource)
            }
            Command::ResourceCreate3d(new) => self.create_3d(&new),
            Command::TransferToHost3d { context, transfer } => {
                self.transfer_3d(context, &transfer, Direction::ToHost, work)
            }
            Command::TransferFromHost3d { context, transfer } => {
                self.transfer_3d(context, &transfer, Direction::FromHost, work)
            }
            Command::Submit3d(submit) => self.submit_3d(&submit, data, work),
        }
    }

    /// Executes a request of the cursor queue. One that [reads pixels](CursorCommand::reads_pixels)
    /// reads those that are there now.
    pub(crate) fn execute_cursor(
        &mut self,
        command: Result<CursorCommand, DecodeError>,
    ) -> Result<Response, CommandError> {
        match command? {
            CursorCommand::Update(update) => self.update_cursor(&update),
            CursorCommand::Move(update) => Ok(self.move_cursor(&update)),
        }
    }

    /// A fence after all rendering so far; `None` if it is done already.
    fn fence(&mut self) -> Option<Fence> {
        self.renderer.as_3d().and_then(Renderer3d::fence)
    }

    /// GET_DISPLAY_INFO.
    fn display_info(&mut self, reply: Option<DisplayReply>) -> CommandResult {
        let Some(reply) = reply else {
            return CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo);
        };
        let info = *self.displays.display_info(reply);
        Response::DisplayInfo(Box::new(info)).into()
    }

    /// GET_EDID.
    fn edid(&mut self, scanout: u32, reply: Option<DisplayReply>) -> CommandResult {
        let Some(reply) = reply else {
            return CommandResult::NeedsDisplay(DisplayQuery::Edid(scanout));
        };
        Response::Edid(self.displays.edid(scanout, reply)).into()
    }
}

#[cfg(test)]
mod tests;
