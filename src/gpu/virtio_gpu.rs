//! From a request's bytes to a change of the device's state and a response.

use std::io::{self, Read};
use std::sync::Arc;

use rustix::rand::{GetRandomFlags, getrandom};

use crate::backend::MemoryGuard;

use super::edid;
use super::protocol::{
    Begun, DisplayInfo, Format, Header, RequestReader, Response, Source, command,
};
use super::region::{Rect, Region, Size};
use super::renderer::{Fence, Renderer, Renderer3d};
use super::scanout::{DisplayId, DmabufSupport, Position, ScanoutSource, Scanouts, Shape};

mod commands_3d;
mod copies;
mod error;

use copies::InPart;
use error::CommandError;

/// Which of the two queues a request came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueKind {
    /// The control queue.
    Control,
    /// The cursor queue.
    Cursor,
}

/// What only the front-end can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisplayQuery {
    /// The sizes of all displays.
    DisplayInfo,
    /// The EDID of the display on this scanout.
    Edid(u32),
}

/// What the front-end said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DisplayReply {
    /// The sizes; also to a [`DisplayQuery::Edid`] that the front-end cannot answer.
    DisplayInfo(Box<DisplayInfo>),
    /// The EDID.
    Edid(Vec<u8>),
    /// Nothing, or there is no front-end to ask.
    Nothing,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandResult {
    /// It is done; the bytes of its response.
    Complete(Vec<u8>),
    /// It is begun; the bytes of its response, for when the renderer has come so far.
    Fenced(Vec<u8>, Fence),
    /// It is to be executed again with the answer to this.
    NeedsDisplay(DisplayQuery),
    /// A part of it is done, and it is to be executed again for the rest.
    InPart,
    /// It reads pixels, and is to be executed again once the control queue has gone on.
    AfterControl,
}

/// Features of the device that commands depend on, as the driver accepted them.
///
/// `VIRTIO_GPU_F_EDID` and `VIRTIO_GPU_F_RESOURCE_UUID` are not among them: Windows' driver sends
/// GET_EDID because the device offers the feature, and never accepts it. QEMU answers it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// `VIRTIO_GPU_F_VIRGL`. Without it there is no 3D, also where the front-end hides the feature
    /// from the guest.
    pub virgl: bool,
}

enum Done {
    Answered(Response),
    Ask(DisplayQuery),
    AfterControl,
    InPart,
}

impl From<Response> for Done {
    fn from(response: Response) -> Self {
        Self::Answered(response)
    }
}

/// Bytes of a request that are read at once: its header, and the fields of any command but for lists
/// and streams.
const HEAD_LEN: usize = 96;

/// What the driver set up, and what it is to see of it.
pub struct VirtioGpu {
    /// The resources.
    renderer: Box<dyn Renderer>,
    /// The scanouts and cursors.
    pub screen: Scanouts,
    /// The features that the driver accepted.
    pub features: Features,
    /// The answer to what the last request asked, for its second execution.
    pub answer: Option<DisplayReply>,
    /// What is done of a control request that takes long.
    begun: Option<InPart>,
    /// Whether the control requests that came before the next cursor request are done.
    pub control_is_done: bool,
    modes: DisplayInfo,
    moved: u64,
    complaint: Option<String>,
}

impl VirtioGpu {
    /// A device to which nothing was done yet.
    pub fn new(renderer: Box<dyn Renderer>) -> Self {
        Self {
            renderer,
            screen: Scanouts::default(),
            features: Features::default(),
            answer: None,
            begun: None,
            control_is_done: false,
            modes: DisplayInfo::default(),
            moved: 0,
            complaint: None,
        }
    }

    /// Forgets all that a driver set up.
    pub fn reset(&mut self) {
        self.renderer.reset();
        self.screen.reset();
        self.forget_request();
    }

    /// Forgets what is known of the request that is executed next: the control queue stops.
    pub fn forget_request(&mut self) {
        self.answer = None;
        self.begun = None;
    }

    /// What draws.
    #[cfg(feature = "fuzzing")]
    pub fn renderer(&self) -> &dyn Renderer {
        &*self.renderer
    }

    /// The renderer's 3D commands, where it has them.
    pub fn renderer_3d_mut(&mut self) -> Option<&mut dyn Renderer3d> {
        self.renderer.as_3d()
    }

    /// What draws, in words, where there is a choice.
    pub fn renderer_name(&self) -> Option<&str> {
        self.renderer.name()
    }

    /// Has buffers sent whose drawing is done, and waits for what was flushed since. On the
    /// renderer's thread only.
    pub fn follow_drawing(&mut self) {
        if let Some(fence) = self.screen.fence()
            && self.renderer.as_3d().is_none_or(|r| r.is_retired(fence))
        {
            self.screen.flush_done();
        }
        if self.screen.wants_fence() {
            let fence = self.renderer.as_3d().and_then(Renderer3d::fence);
            self.screen.await_flush(fence);
            if fence.is_none() {
                self.screen.flush_done();
            }
        }
    }

    /// `display` can be passed other dmabufs from now on; pixels that take the place of a dmabuf are
    /// read back. On the renderer's thread only.
    pub fn set_dmabuf_support(&mut self, display: DisplayId, support: DmabufSupport) {
        self.screen.set_dmabuf_support(display, support);
        while let Some(readback) = self.screen.needs_readback() {
            let mut wanted = Region::default();
            wanted.add(readback.rect);
            let mut changed = Region::default();
            let read = self
                .renderer
                .read_back(readback.resource, &wanted, &mut changed);
            // Others that show a part of it are by pixels, and sent this with their next flush.
            if let Ok(Some(image)) = self.renderer.scanout_image(readback.resource) {
                self.screen.add_damage(&image, &changed);
            }
            if let Err(error) = &read {
                self.complaint = Some(format!("a screen cannot be read: {error}"));
            }
            self.screen.readback_done(&readback, read.is_ok());
        }
    }

    /// Whether screens may be passed on as buffers.
    pub fn exports(&self) -> bool {
        self.renderer.exports()
    }

    /// The guest's memory was mapped anew.
    pub fn memory_changed(&mut self, memory: &MemoryGuard) {
        self.renderer.memory_changed(memory);
    }

    /// Bytes copied out of the guest since this was asked last: how much work a pass has done.
    pub fn take_moved(&mut self) -> u64 {
        std::mem::take(&mut self.moved)
    }

    /// Why the last request was refused, once.
    pub fn take_complaint(&mut self) -> Option<String> {
        self.complaint.take()
    }

    /// Executes the request that `source` holds.
    pub fn execute(
        &mut self,
        queue: QueueKind,
        memory: &MemoryGuard,
        mut source: impl Source,
    ) -> CommandResult {
        // virtio-queue allocates for each read: one for all the fields of most commands.
        let mut head = [0; HEAD_LEN];
        let got = source.read(&mut head).unwrap_or(0);
        let head = head.get(..got).unwrap_or_default();
        let mut fields = RequestReader::new(Begun::new(head, source));
        let header = match fields.header() {
            Ok(header) => header,
            Err(e) => {
                let refusal = CommandError::Short(e);
                let header = Header::default();
                return CommandResult::Complete(self.refuse(&header, &refusal).to_bytes(&header));
            }
        };
        let done = match queue {
            QueueKind::Control => self.control(&header, memory, &mut fields),
            QueueKind::Cursor => self.cursor(header.kind, &mut fields),
        };
        let response = match done {
            Ok(Done::Ask(question)) => return CommandResult::NeedsDisplay(question),
            Ok(Done::AfterControl) => return CommandResult::AfterControl,
            Ok(Done::InPart) => return CommandResult::InPart,
            Ok(Done::Answered(response)) => response,
            Err(refusal) => self.refuse(&header, &refusal),
        };
        // An answer is for one request only.
        if queue == QueueKind::Control {
            self.answer = None;
        }
        let bytes = response.to_bytes(&header);
        // What was refused began nothing.
        if queue == QueueKind::Control
            && header.is_fenced()
            && !response.is_error()
            && let Some(fence) = self.renderer.as_3d().and_then(Renderer3d::fence)
        {
            return CommandResult::Fenced(bytes, fence);
        }
        CommandResult::Complete(bytes)
    }

    fn refuse(&mut self, header: &Header, refusal: &CommandError) -> Response {
        self.complaint = Some(format!("command {:#06x} refused: {refusal}", header.kind));
        Response::Plain(refusal.kind())
    }

    fn control(
        &mut self,
        header: &Header,
        memory: &MemoryGuard,
        fields: &mut RequestReader<impl Source>,
    ) -> Result<Done, CommandError> {
        let begun = self.begun.take();
        match header.kind {
            command::GET_DISPLAY_INFO => Ok(self.display_info()),
            command::GET_EDID => self.edid(fields),
            command::RESOURCE_CREATE_2D => self.create_2d(fields),
            command::RESOURCE_UNREF => self.unref(fields),
            command::SET_SCANOUT => self.set_scanout(fields),
            command::RESOURCE_FLUSH => self.flush(fields),
            command::TRANSFER_TO_HOST_2D => self.transfer(begun, memory, fields),
            command::RESOURCE_ATTACH_BACKING => self.attach_backing(begun, memory, fields),
            command::RESOURCE_DETACH_BACKING => {
                self.renderer.detach_backing(fields.u32()?)?;
                Ok(Response::OK.into())
            }
            command::RESOURCE_ASSIGN_UUID => self.assign_uuid(fields),
            command::GET_CAPSET_INFO => self.capset_info(fields),
            command::GET_CAPSET => self.capset(fields),
            command::CTX_CREATE | command::CTX_DESTROY => self.context(header, fields),
            command::CTX_ATTACH_RESOURCE | command::CTX_DETACH_RESOURCE => {
                self.context_resource(header, fields)
            }
            command::RESOURCE_CREATE_3D => self.create_3d(fields),
            command::TRANSFER_TO_HOST_3D | command::TRANSFER_FROM_HOST_3D => {
                self.transfer_3d(header, fields)
            }
            command::SUBMIT_3D => self.submit(header, fields),
            _ => Err(CommandError::Unknown),
        }
    }

    fn display_info(&mut self) -> Done {
        match self.answer.take() {
            None => Done::Ask(DisplayQuery::DisplayInfo),
            Some(answer) => {
                if let DisplayReply::DisplayInfo(modes) = answer {
                    self.modes = *modes;
                }
                Response::DisplayInfo(Box::new(self.modes)).into()
            }
        }
    }

    fn edid(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let scanout = fields.u32()?;
        if !Scanouts::has(scanout) {
            return Err(CommandError::Scanout(scanout));
        }
        match self.answer.take() {
            None => return Ok(Done::Ask(DisplayQuery::Edid(scanout))),
            Some(DisplayReply::Edid(edid)) => return Ok(Response::Edid(edid).into()),
            Some(DisplayReply::DisplayInfo(modes)) => self.modes = *modes,
            Some(DisplayReply::Nothing) => {}
        }
        let fallback = DisplayInfo::default();
        let preferred = self
            .modes
            .enabled(scanout)
            .filter(|mode| !mode.rect.is_empty())
            .or(fallback.enabled(0))
            .map_or(Rect::default(), |mode| mode.rect);
        let edid = edid::edid(scanout, preferred.width, preferred.height);
        Ok(Response::Edid(edid.to_vec()).into())
    }

    fn create_2d(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let id = fields.u32()?;
        let format = fields.u32()?;
        let size = Size::new(fields.u32()?, fields.u32()?);
        let format = Format::from_number(format).ok_or(CommandError::Format(format))?;
        self.renderer.create_2d(id, format, size)?;
        Ok(Response::OK.into())
    }

    fn unref(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let id = fields.u32()?;
        if let Some(image) = self.renderer.scanout_image(id)? {
            self.screen.forget_image(&image);
        }
        self.renderer.unref(id)?;
        Ok(Response::OK.into())
    }

    fn set_scanout(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let rect = fields.rect()?;
        let (scanout, id) = (fields.u32()?, fields.u32()?);
        if !Scanouts::has(scanout) {
            return Err(CommandError::Scanout(scanout));
        }
        if id == 0 {
            self.screen.disable(scanout);
            return Ok(Response::OK.into());
        }
        let size = self.renderer.check_within(id, rect)?;
        if rect.is_empty() {
            return Err(CommandError::EmptyScanout(rect));
        }
        let image = self.renderer.image(id)?;
        if !self.screen.shows(scanout, &image, &rect) {
            // Front-ends show all of a buffer, whatever part they are told.
            let dmabuf = if rect == Rect::from(size) {
                self.renderer.export(id).map(Arc::new)
            } else {
                None
            };
            let view = ScanoutSource {
                resource: id,
                image,
                rect,
                dmabuf,
            };
            self.screen.show(scanout, view);
        }
        Ok(Response::OK.into())
    }

    fn flush(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let rect = fields.rect()?;
        let id = fields.u32()?;
        self.renderer.check_within(id, rect)?;
        let Some(image) = self.renderer.scanout_image(id)? else {
            // It never was on a scanout.
            return Ok(Response::OK.into());
        };
        let wanted = self.screen.region_to_flush(&image, &rect);
        let mut changed = Region::default();
        let result = self.renderer.read_back(id, &wanted, &mut changed);
        self.screen.add_damage(&image, &changed);
        result?;
        self.screen.flush(&image, &rect);
        self.follow_drawing();
        Ok(Response::OK.into())
    }

    fn assign_uuid(&mut self, fields: &mut RequestReader<impl Read>) -> Result<Done, CommandError> {
        let known = self.renderer.uuid(fields.u32()?)?;
        let uuid = match *known {
            Some(uuid) => uuid,
            None => *known.insert(random_uuid()?),
        };
        Ok(Response::Uuid(uuid).into())
    }

    fn cursor(
        &mut self,
        kind: u32,
        fields: &mut RequestReader<impl Read>,
    ) -> Result<Done, CommandError> {
        if kind != command::UPDATE_CURSOR && kind != command::MOVE_CURSOR {
            return Err(CommandError::Unknown);
        }
        let scanout = fields.u32()?;
        let (x, y, _padding) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let id = fields.u32()?;
        let (hot_x, hot_y) = (fields.u32()?, fields.u32()?);
        if !Scanouts::has(scanout) {
            return Err(CommandError::Scanout(scanout));
        }
        let visible = id != 0;
        let position = Position { x, y, visible };
        if kind == command::UPDATE_CURSOR && visible {
            if !self.control_is_done {
                return Ok(Done::AfterControl);
            }
            let pixels = self.renderer.cursor(id)?;
            let shape = Shape {
                hot_x,
                hot_y,
                pixels,
            };
            self.screen.shape_cursor(scanout, position, shape);
        } else {
            self.screen.move_cursor(scanout, position);
        }
        Ok(Response::OK.into())
    }
}

/// A version 4 UUID (RFC 9562).
fn random_uuid() -> Result<[u8; 16], CommandError> {
    let mut uuid = [0; 16];
    let got = getrandom(&mut uuid, GetRandomFlags::NONBLOCK)
        .map_err(|e| CommandError::Random(e.into()))?;
    if got != uuid.len() {
        return Err(CommandError::Random(io::ErrorKind::UnexpectedEof.into()));
    }
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}

#[cfg(test)]
mod tests;
