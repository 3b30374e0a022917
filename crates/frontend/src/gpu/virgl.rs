// SPDX-License-Identifier: Apache-2.0 OR MIT
//! 3D: the commands of virtio 1.2, section 5.7.6.8, and the streams of virgl commands in them.

use virtio_bindings::virtio_gpu as v;

use super::commands::HEADER_SIZE;
use super::{Gpu, GpuOptions, Rect, Response, Ticket};
use crate::Result;

const CAPSET_INFO_SIZE: u32 = HEADER_SIZE as u32 + 16;

/// What RESOURCE_CREATE_3D makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Create3d {
    pub target: u32,
    pub format: u32,
    pub bind: u32,
    pub width: u32,
    pub height: u32,
    pub depth: u32,
    pub array_size: u32,
    pub last_level: u32,
    pub nr_samples: u32,
    pub flags: u32,
}

impl Create3d {
    /// PIPE_BUFFER.
    pub const BUFFER: u32 = 0;
    /// PIPE_TEXTURE_2D.
    pub const TEXTURE_2D: u32 = 2;
    /// VIRGL_BIND_RENDER_TARGET and VIRGL_BIND_SAMPLER_VIEW.
    pub const RENDER_TARGET: u32 = 1 << 1 | 1 << 3;
    /// VIRGL_BIND_VERTEX_BUFFER.
    pub const VERTEX_BUFFER: u32 = 1 << 4;
    /// VIRGL_FORMAT_B8G8R8X8_UNORM.
    pub const BGRX: u32 = 2;

    /// A picture that can be drawn to and shown, its first row at the top.
    pub const fn picture(width: u32, height: u32) -> Self {
        Self {
            target: Self::TEXTURE_2D,
            format: Self::BGRX,
            bind: Self::RENDER_TARGET,
            width,
            height,
            depth: 1,
            array_size: 1,
            last_level: 0,
            nr_samples: 0,
            flags: v::VIRTIO_GPU_RESOURCE_FLAG_Y_0_TOP,
        }
    }

    /// A buffer of vertices.
    pub const fn vertices(bytes: u32) -> Self {
        Self {
            target: Self::BUFFER,
            // VIRGL_FORMAT_R8_UNORM.
            format: 64,
            bind: Self::VERTEX_BUFFER,
            width: bytes,
            height: 1,
            depth: 1,
            array_size: 1,
            last_level: 0,
            nr_samples: 0,
            flags: 0,
        }
    }
}

/// What TRANSFER_TO_HOST_3D and TRANSFER_FROM_HOST_3D copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as in the specification")]
pub struct Transfer3d {
    /// x, y, z, w, h, d.
    pub part: [u32; 6],
    pub offset: u64,
    pub resource: u32,
    pub level: u32,
    pub stride: u32,
    pub layer_stride: u32,
}

impl Transfer3d {
    /// A rectangle of a picture.
    pub const fn of(resource: u32, rect: Rect) -> Self {
        Self {
            part: [rect.x, rect.y, 0, rect.width, rect.height, 1],
            offset: 0,
            resource,
            level: 0,
            stride: 0,
            layer_stride: 0,
        }
    }

    fn words(&self) -> Vec<u32> {
        let mut words = self.part.to_vec();
        words.extend([self.offset as u32, (self.offset >> 32) as u32]);
        words.extend([self.resource, self.level, self.stride, self.layer_stride]);
        words
    }
}

impl GpuOptions {
    /// As Linux and QEMU have it with virgl.
    pub fn virgl() -> Self {
        let options = Self::default();
        Self {
            features: options.features | 1 << v::VIRTIO_GPU_F_VIRGL,
            control_size: 256,
            ..options
        }
    }
}

impl Gpu {
    /// The bytes of a command on a context.
    pub fn request_on(&mut self, context: u32, command: u32, words: &[u32]) -> Vec<u8> {
        let mut bytes = self.request(command, words);
        bytes[16..20].copy_from_slice(&context.to_le_bytes());
        bytes
    }

    /// Sends any command on a context, with an answer of no more than a header.
    ///
    /// # Errors
    /// As [`super::CommandQueue::command`], as everything in here.
    pub fn command_on(&mut self, context: u32, command: u32, words: &[u32]) -> Result<Response> {
        let request = self.request_on(context, command, words);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// GET_CAPSET_INFO.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn capset_info(&mut self, index: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET_INFO;
        let request = self.request(command, &[index, 0]);
        self.control.command(&request, CAPSET_INFO_SIZE)
    }

    /// GET_CAPSET, with room for `size` bytes of it.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn capset(&mut self, id: u32, version: u32, size: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_CAPSET;
        let request = self.request(command, &[id, version]);
        self.control.command(&request, HEADER_SIZE as u32 + size)
    }

    /// CTX_CREATE.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn create_context(&mut self, context: u32, name: &str) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE;
        let mut request = self.request_on(context, command, &[name.len() as u32, 0]);
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        request.extend(bytes);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// CTX_DESTROY.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn destroy_context(&mut self, context: u32) -> Result<Response> {
        self.command_on(
            context,
            v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DESTROY,
            &[],
        )
    }

    /// CTX_ATTACH_RESOURCE.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn context_attach(&mut self, context: u32, id: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE;
        self.command_on(context, command, &[id, 0])
    }

    /// CTX_DETACH_RESOURCE.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn context_detach(&mut self, context: u32, id: u32) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE;
        self.command_on(context, command, &[id, 0])
    }

    /// RESOURCE_CREATE_3D.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn create_3d(&mut self, id: u32, new: Create3d) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_3D;
        let words = [
            id,
            new.target,
            new.format,
            new.bind,
            new.width,
            new.height,
            new.depth,
            new.array_size,
            new.last_level,
            new.nr_samples,
            new.flags,
            0,
        ];
        self.command(command, &words)
    }

    /// TRANSFER_TO_HOST_3D.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn transfer_to_host_3d(&mut self, context: u32, part: Transfer3d) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_3D;
        self.command_on(context, command, &part.words())
    }

    /// TRANSFER_FROM_HOST_3D.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn transfer_from_host_3d(&mut self, context: u32, part: Transfer3d) -> Result<Response> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_FROM_HOST_3D;
        self.command_on(context, command, &part.words())
    }

    fn submission(&mut self, context: u32, size: u32, stream: &[u32]) -> Vec<u8> {
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_SUBMIT_3D;
        let mut request = self.request_on(context, command, &[size, 0]);
        request.extend(stream.iter().flat_map(|w| w.to_le_bytes()));
        request
    }

    /// SUBMIT_3D.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn submit_3d(&mut self, context: u32, stream: &Stream) -> Result<Response> {
        self.submit_3d_raw(context, 4 * stream.0.len() as u32, &stream.0)
    }

    /// SUBMIT_3D that says it has `size` bytes.
    ///
    /// # Errors
    /// As [`Gpu::command_on`].
    pub fn submit_3d_raw(&mut self, context: u32, size: u32, stream: &[u32]) -> Result<Response> {
        let request = self.submission(context, size, stream);
        self.control.command(&request, HEADER_SIZE as u32)
    }

    /// Puts a SUBMIT_3D into the control queue without showing it to the device.
    ///
    /// # Errors
    /// As [`super::CommandQueue::push`].
    pub fn push_submit_3d(&mut self, context: u32, stream: &Stream) -> Result<Ticket> {
        let request = self.submission(context, 4 * stream.0.len() as u32, &stream.0);
        self.control.push(&request, HEADER_SIZE as u32)
    }
}

/// A stream of virgl commands (virglrenderer, virgl_protocol.h).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream(pub Vec<u32>);

/// Kinds of objects in a context.
mod object {
    pub(crate) const BLEND: u32 = 1;
    pub(crate) const RASTERIZER: u32 = 2;
    pub(crate) const DSA: u32 = 3;
    pub(crate) const SHADER: u32 = 4;
    pub(crate) const VERTEX_ELEMENTS: u32 = 5;
    pub(crate) const SURFACE: u32 = 8;
}

/// Kinds of shaders.
const VERTEX: u32 = 0;
const FRAGMENT: u32 = 1;
/// VIRGL_FORMAT_R32G32B32A32_FLOAT.
const VECTOR: u32 = 31;

/// A corner of a triangle: its place from -1 to 1 with y upwards, and its color.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Corner {
    pub x: f32,
    pub y: f32,
    pub color: [f32; 3],
}

impl Stream {
    /// A command and what belongs to it.
    pub fn command(mut self, command: u32, object: u32, words: &[u32]) -> Self {
        self.0
            .push(command | object << 8 | (words.len() as u32) << 16);
        self.0.extend(words);
        self
    }

    fn create(self, kind: u32, words: &[u32]) -> Self {
        self.command(1, kind, words)
    }

    fn bind(self, kind: u32, handle: u32) -> Self {
        self.command(2, kind, &[handle])
    }

    /// Draws to this resource from here on; `surface` is a new object's handle.
    pub fn draw_to(self, surface: u32, resource: u32) -> Self {
        self.create(object::SURFACE, &[surface, resource, Create3d::BGRX, 0, 0])
            .command(5, 0, &[1, 0, surface])
    }

    /// Fills what is drawn to with a color, from 0 to 1.
    pub fn clear(self, color: [f32; 3]) -> Self {
        let [r, g, b] = color.map(f32::to_bits);
        // PIPE_CLEAR_COLOR0; depth and stencil are 0.
        self.command(7, 0, &[1 << 2, r, g, b, 1_f32.to_bits(), 0, 0, 0])
    }

    fn shader(self, handle: u32, kind: u32, text: &str) -> Self {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(0);
        let len = bytes.len() as u32;
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let mut words = vec![handle, kind, len, 300, 0];
        let chunks = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
        words.extend(chunks.map(|c| u32::from_le_bytes(*c)));
        self.create(object::SHADER, &words)
            .command(31, 0, &[handle, kind])
    }

    /// Draws a triangle, its colors blended from corner to corner, on a picture of this size. Uses
    /// the buffer `vertices` and the handles from `first` to `first + 5`.
    pub fn triangle(
        self,
        first: u32,
        vertices: u32,
        (width, height): (u32, u32),
        corners: [Corner; 3],
    ) -> Self {
        let data: Vec<u32> = corners
            .iter()
            .flat_map(|c| {
                let [r, g, b] = c.color;
                [c.x, c.y, 0.0, 1.0, r, g, b, 1.0].map(f32::to_bits)
            })
            .collect();
        let mut write = vec![vertices, 0, 0, 0, 0, 0, 0, 0, 4 * data.len() as u32, 1, 1];
        write.extend(data);
        let (half_width, half_height) = (width as f32 / 2.0, height as f32 / 2.0);
        let viewport = [half_width, half_height, 0.5, half_width, half_height, 0.5];
        let mut viewport = viewport.map(f32::to_bits).to_vec();
        viewport.insert(0, 0);
        let elements = [first, 0, 0, 0, VECTOR, 16, 0, 0, VECTOR];
        // All four channels are written, nothing is blended.
        let mut blend = vec![first + 3, 0, 0];
        blend.extend([0xf << 27; 8]);
        // Depth clip, pixel centers at one half, the rule for bottom edges.
        let rasterizer = 1 << 1 | 1 << 29 | 1 << 30;
        self.create(object::VERTEX_ELEMENTS, &elements)
            .bind(object::VERTEX_ELEMENTS, first)
            .command(9, 0, &write)
            .command(6, 0, &[32, 0, vertices])
            .shader(
                first + 1,
                VERTEX,
                "VERT\nDCL IN[0]\nDCL IN[1]\nDCL OUT[0], POSITION\nDCL OUT[1], COLOR\n  \
                 0: MOV OUT[1], IN[1]\n  1: MOV OUT[0], IN[0]\n  2: END\n",
            )
            .shader(
                first + 2,
                FRAGMENT,
                "FRAG\nDCL IN[0], COLOR, LINEAR\nDCL OUT[0], COLOR\n  \
                 0: MOV OUT[0], IN[0]\n  1: END\n",
            )
            .create(object::BLEND, &blend)
            .bind(object::BLEND, first + 3)
            .create(object::DSA, &[first + 4, 0, 0, 0, 0])
            .bind(object::DSA, first + 4)
            .create(
                object::RASTERIZER,
                &[first + 5, rasterizer, 0, 0, 0, 0, 0, 0, 0],
            )
            .bind(object::RASTERIZER, first + 5)
            .command(4, 0, &viewport)
            // Three vertices, PIPE_PRIM_TRIANGLES, one instance.
            .command(8, 0, &[0, 3, 4, 0, 1, 0, 0, 0, 0, 0, u32::MAX, 0])
    }
}
