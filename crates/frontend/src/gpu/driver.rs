// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's virtio-gpu driver: the commands of virtio 1.2, section 5.7.6.

use std::os::fd::AsFd;

use virtio_bindings::virtio_gpu as v;

use super::commands::{EDID_RESPONSE_SIZE, HEADER_SIZE};
use super::{CommandQueue, Format, Response, ResponseKind, Ticket};
use crate::features::{EVENT_IDX, INDIRECT_DESC, PROTOCOL_FEATURES, VERSION_1};
use crate::{Error, Memory, Offer, Queue, Result, Session};

/// Queue 0 carries commands, queue 1 the cursor's.
const CONTROL: u32 = 0;
const CURSOR: u32 = 1;
const DISPLAY_INFO_SIZE: usize = size_of::<v::virtio_gpu_resp_display_info>();
const UUID_SIZE: usize = size_of::<v::virtio_gpu_resp_resource_uuid>();
/// Features without which no driver starts.
const ALWAYS: u64 = VERSION_1 | PROTOCOL_FEATURES;

/// A rectangle in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Rect {
    /// A rectangle.
    pub const fn new(x: u32, y: u32, width: u32, height: u32) -> Self {
        Self {
            x,
            y,
            width,
            height,
        }
    }

    /// A rectangle at the origin.
    pub const fn sized(width: u32, height: u32) -> Self {
        Self::new(0, 0, width, height)
    }

    fn words(self) -> [u32; 4] {
        [self.x, self.y, self.width, self.height]
    }
}

/// What GET_DISPLAY_INFO says of a scanout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DisplayInfo {
    /// Where it lies and how large it wants to be.
    pub rect: Rect,
    /// Whether it is to be used.
    pub enabled: bool,
}

/// How a driver is set up.
#[derive(Clone, Copy, Debug)]
pub struct GpuOptions {
    /// The virtio features the driver takes, where they are offered. VERSION_1 always is.
    pub features: u64,
    /// Entries of the control queue.
    pub control_size: u16,
    /// Entries of the cursor queue.
    pub cursor_size: u16,
}

impl Default for GpuOptions {
    /// As Linux and QEMU have it, without virgl: EDID, indirect descriptors and event indices where
    /// they are offered; 64 and 16 entries.
    fn default() -> Self {
        Self {
            features: 1 << v::VIRTIO_GPU_F_EDID | INDIRECT_DESC | EVENT_IDX,
            control_size: 64,
            cursor_size: 16,
        }
    }
}

impl GpuOptions {
    /// As Linux on a front-end that passes every feature on: with blob resources.
    #[must_use]
    pub fn with_blobs() -> Self {
        let default = Self::default();
        Self {
            features: default.features | 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB,
            ..default
        }
    }
}

/// How the pixels of a scanout lie in a blob resource.
#[derive(Clone, Copy, Debug)]
pub struct Framebuffer {
    /// Format of the pixels.
    pub format: Format,
    /// Columns and rows.
    pub size: (u32, u32),
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Where the first row begins, in bytes.
    pub offset: u32,
}

/// A guest with a virtio-gpu driver.
#[derive(Debug)]
pub struct Gpu {
    /// The connection.
    pub session: Session,
    /// The control queue.
    pub control: CommandQueue,
    /// The cursor queue.
    pub cursor: CommandQueue,
    /// What the backend offered.
    pub offer: Offer,
    memory: Memory,
    features: u64,
    fence: Option<u64>,
}

impl Gpu {
    /// Brings a backend up as QEMU does: negotiates, hands over the display socket if there is one,
    /// gives it the memory and starts both rings.
    ///
    /// # Errors
    /// As [`Session::request`]; [`Error::Protocol`] if VERSION_1 is not offered.
    pub fn start(
        mut session: Session,
        memory: &Memory,
        display: Option<impl AsFd>,
        options: GpuOptions,
    ) -> Result<Self> {
        let offer = session.negotiate(Session::usual_protocol_features())?;
        let mut gpu = Self::on(session, offer, memory, options)?;
        gpu.run(display)?;
        Ok(gpu)
    }

    /// A driver on a connection that its caller negotiated and starts the rings of.
    ///
    /// # Errors
    /// As [`Queue::new`]; [`Error::Protocol`] if VERSION_1 is not offered.
    pub fn on(
        session: Session,
        offer: Offer,
        memory: &Memory,
        options: GpuOptions,
    ) -> Result<Self> {
        if offer.features & ALWAYS != ALWAYS {
            let features = offer.features;
            return Err(Error::Protocol(format!(
                "features {features:#x} lack VERSION_1"
            )));
        }
        let features = offer.features & (options.features | ALWAYS);
        let event_idx = features & EVENT_IDX != 0;
        let queue = |size| Queue::new(memory, size, event_idx).map(CommandQueue::new);
        Ok(Self {
            session,
            control: queue(options.control_size)?,
            cursor: queue(options.cursor_size)?,
            offer,
            memory: memory.clone(),
            features,
            fence: None,
        })
    }

    /// The features both sides agreed on.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Stops both rings, as QEMU does when the guest resets the device.
    ///
    /// # Errors
    /// As [`Session::stop_queue`].
    pub fn stop(&mut self) -> Result<()> {
        for index in [CONTROL, CURSOR] {
            self.session.stop_queue(index)?;
        }
        Ok(())
    }

    /// Begins anew after [`Gpu::stop`], as a driver that is loaded again or a guest that booted
    /// again, with a new display socket.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn restart(&mut self, display: Option<impl AsFd>) -> Result<()> {
        self.control.reset()?;
        self.cursor.reset()?;
        self.run(display)
    }

    /// Hands over the display socket, the features and the memory, and starts both rings.
    ///
    /// # Errors
    /// As [`Session::request`].
    pub fn run(&mut self, display: Option<impl AsFd>) -> Result<()> {
        if let Some(display) = display {
            self.session.set_gpu_socket(display)?;
        }
        self.session.set_features(self.features)?;
        self.session.set_memory(&self.memory)?;
        self.session.start_queue(CONTROL, &self.control.queue)?;
        self.session.start_queue(CURSOR, &self.cursor.queue)
    }

    /// Fences the next command with this number.
    pub fn fence_next(&mut self, id: u64) {
        self.fence = Some(id);
    }

    /// `num_scanouts` and `num_capsets` of the device's configuration.
    ///
    /// # Errors
    /// As [`Session::config`].
    pub fn config(&mut self) -> Result<(u32, u32)> {
        let bytes = self.session.config(0, 16)?;
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| bytes[n + i]));
        Ok((word(8), word(12)))
    }

    /// The bytes of a command: the header, these words.
    pub fn request(&mut self, command: u32, words: &[u32]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_SIZE + 4 * words.len());
        let fence = self.fence.take();
        let flags = fence.map_or(0, |_| v::VIRTIO_GPU_FLAG_FENCE);
        bytes.extend_from_slice(&command.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        bytes.extend_from_slice(&fence.unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        bytes
    }

    /// Sends any command with an answer of no more than a header.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn command(&mut self, command: u32, words: &[u32]) -> Result<Response> {
        let request = self.request(command, words);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// Puts a command into the control queue without showing it to the device, for many a kick.
    ///
    /// # Errors
    /// As [`CommandQueue::push`].
    pub fn push(&mut self, command: u32, words: &[u32]) -> Result<Ticket> {
        let request = self.request(command, words);
        self.control.push(&request, HEADER_SIZE as u32)
    }

    /// GET_DISPLAY_INFO: all 16 scanouts, those that do not exist too.
    ///
    /// # Errors
    /// As [`CommandQueue::command`] and [`Response::expect`].
    pub fn get_display_info(&mut self) -> Result<Vec<DisplayInfo>> {
        let request = self.request(v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO, &[]);
        let response = self.control.command(&request, DISPLAY_INFO_SIZE as u32)?;
        let response = response.expect("GET_DISPLAY_INFO", ResponseKind::OkDisplayInfo)?;
        if response.written as usize != DISPLAY_INFO_SIZE {
            return Err(short("GET_DISPLAY_INFO", &response));
        }
        let modes = response
            .body
            .chunks(size_of::<
                v::virtio_gpu_resp_display_info_virtio_gpu_display_one,
            >())
            .map(|mode| {
                let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| mode[4 * n + i]));
                let rect = Rect::new(word(0), word(1), word(2), word(3));
                DisplayInfo {
                    rect,
                    enabled: word(4) != 0,
                }
            });
        Ok(modes.collect())
    }

    /// GET_EDID of a scanout.
    ///
    /// # Errors
    /// As [`CommandQueue::command`] and [`Response::expect`].
    pub fn get_edid(&mut self, scanout: u32) -> Result<Vec<u8>> {
        let response = self
            .try_get_edid(scanout)?
            .expect("GET_EDID", ResponseKind::OkEdid)?;
        let size = response
            .body
            .first_chunk()
            .map_or(0, |b| u32::from_le_bytes(*b)) as usize;
        match response.body.get(8..8 + size) {
            Some(edid) => Ok(edid.to_vec()),
            None => Err(short("GET_EDID", &response)),
        }
    }

    /// GET_EDID of a scanout, whatever is answered.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn try_get_edid(&mut self, scanout: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
        let request = self.request(command, &[scanout, 0]);
        self.control.command(&request, EDID_RESPONSE_SIZE as u32)
    }

    /// RESOURCE_CREATE_2D.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn create_2d(&mut self, id: u32, format: Format, w: u32, h: u32) -> Result<Response> {
        self.create_2d_raw(id, format as u32, w, h)
    }

    /// RESOURCE_CREATE_2D with any number as the format.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn create_2d_raw(&mut self, id: u32, format: u32, w: u32, h: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
        self.command(command, &[id, format, w, h])
    }

    /// RESOURCE_CREATE_BLOB of guest memory: `len` bytes, in these pieces of it.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn create_blob(&mut self, id: u32, len: u64, entries: &[(u64, u32)]) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB;
        let (memory, flags) = (
            v::VIRTIO_GPU_BLOB_MEM_GUEST,
            v::VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE,
        );
        let count = entries.len() as u32;
        let words = [
            id,
            memory,
            flags,
            count,
            0,
            0,
            len as u32,
            (len >> 32) as u32,
        ];
        let mut request = self.request(command, &words);
        append_entries(&mut request, entries);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// SET_SCANOUT_BLOB: scanout `scanout` shows this part of a framebuffer in resource `id`.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn set_scanout_blob(
        &mut self,
        scanout: u32,
        id: u32,
        rect: Rect,
        framebuffer: &Framebuffer,
    ) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT_BLOB;
        let [x, y, w, h] = rect.words();
        let Framebuffer {
            format,
            size: (width, height),
            stride,
            offset,
        } = *framebuffer;
        let words = [
            [x, y, w, h, scanout, id],
            [width, height, format as u32, 0, stride, 0],
            [0, 0, offset, 0, 0, 0],
        ];
        self.command(command, words.as_flattened())
    }

    /// RESOURCE_UNREF.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn unref(&mut self, id: u32) -> Result<Response> {
        self.command(
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
            &[id, 0],
        )
    }

    /// RESOURCE_ATTACH_BACKING with these pieces of guest memory: address and length in bytes.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn attach_backing(&mut self, id: u32, entries: &[(u64, u32)]) -> Result<Response> {
        self.attach_backing_raw(id, entries.len() as u32, entries)
    }

    /// RESOURCE_ATTACH_BACKING that says it has `count` entries.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn attach_backing_raw(
        &mut self,
        id: u32,
        count: u32,
        entries: &[(u64, u32)],
    ) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
        let mut request = self.request(command, &[id, count]);
        append_entries(&mut request, entries);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// RESOURCE_DETACH_BACKING.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn detach_backing(&mut self, id: u32) -> Result<Response> {
        self.command(
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_DETACH_BACKING,
            &[id, 0],
        )
    }

    /// TRANSFER_TO_HOST_2D of a rectangle whose first pixel lies at `offset` (bytes) in the
    /// backing; rows lie as far apart as the resource is wide.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn transfer_to_host_2d(&mut self, id: u32, rect: Rect, offset: u64) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
        let [x, y, w, h] = rect.words();
        self.command(
            command,
            &[x, y, w, h, offset as u32, (offset >> 32) as u32, id, 0],
        )
    }

    /// SET_SCANOUT: scanout `scanout` shows this part of resource `id`; resource 0 shows nothing.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn set_scanout(&mut self, scanout: u32, id: u32, rect: Rect) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SET_SCANOUT;
        let [x, y, w, h] = rect.words();
        self.command(command, &[x, y, w, h, scanout, id])
    }

    /// RESOURCE_FLUSH of this part of the resource.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn flush(&mut self, id: u32, rect: Rect) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
        let [x, y, w, h] = rect.words();
        self.command(command, &[x, y, w, h, id, 0])
    }

    /// RESOURCE_ASSIGN_UUID.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn assign_uuid(&mut self, id: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ASSIGN_UUID;
        let request = self.request(command, &[id, 0]);
        self.control.command(&request, UUID_SIZE as u32)
    }

    /// UPDATE_CURSOR: resource `id` (64x64 pixels, or 0 for none) is the cursor from now on.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn update_cursor(
        &mut self,
        scanout: u32,
        (x, y): (u32, u32),
        id: u32,
        (hot_x, hot_y): (u32, u32),
    ) -> Result<()> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_UPDATE_CURSOR;
        let request = self.request(command, &[scanout, x, y, 0, id, hot_x, hot_y, 0]);
        self.cursor.command(&request, 0).map(drop)
    }

    /// MOVE_CURSOR. The resource is the cursor's own, or 0 where it has none: as Linux sends it.
    ///
    /// # Errors
    /// As [`CommandQueue::command`].
    pub fn move_cursor(&mut self, scanout: u32, (x, y): (u32, u32), id: u32) -> Result<()> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_MOVE_CURSOR;
        let request = self.request(command, &[scanout, x, y, 0, id, 0, 0, 0]);
        self.cursor.command(&request, 0).map(drop)
    }
}

/// Appends `struct virtio_gpu_mem_entry`s.
fn append_entries(request: &mut Vec<u8>, entries: &[(u64, u32)]) {
    request.reserve(16 * entries.len());
    for (address, len) in entries {
        request.extend_from_slice(&address.to_le_bytes());
        request.extend_from_slice(&len.to_le_bytes());
        request.extend_from_slice(&[0; 4]);
    }
}

fn short(command: &'static str, response: &Response) -> Error {
    let written = response.written;
    Error::Protocol(format!(
        "{command} is answered with {written} bytes: too few"
    ))
}
