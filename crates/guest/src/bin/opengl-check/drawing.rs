// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What is drawn, where, and buffers that stay mapped.

use std::ffi::{CString, c_int, c_uint};
use std::ptr;

use anyhow::{Context as _, ensure};

use crate::gl::Gl;

/// The color around, as `RGBA` in memory.
pub(crate) const BACKGROUND: u32 = u32::from_le_bytes([0, 0, 255, 255]);
/// The triangle's.
pub(crate) const TRIANGLE: u32 = u32::from_le_bytes([255, 0, 0, 255]);

const FRAMEBUFFER: c_uint = 0x8d40;
const RENDERBUFFER: c_uint = 0x8d41;
const FRAMEBUFFER_COMPLETE: c_uint = 0x8cd5;
const COLOR_ATTACHMENT: c_uint = 0x8ce0;
const DEPTH_ATTACHMENT: c_uint = 0x8d00;
const RGBA8: c_uint = 0x8058;
const DEPTH_COMPONENT24: c_uint = 0x81a6;
const RGBA: c_uint = 0x1908;
const UNSIGNED_BYTE: c_uint = 0x1401;
const DEPTH_TEST: c_uint = 0x0b71;
const COLOR_AND_DEPTH: c_uint = 0x4000 | 0x100;
const VERTEX_SHADER: c_uint = 0x8b31;
const FRAGMENT_SHADER: c_uint = 0x8b30;
const LINK_STATUS: c_uint = 0x8b82;
const TRIANGLES: c_uint = 4;
const COPY_READ_BUFFER: c_uint = 0x8f36;
const COPY_WRITE_BUFFER: c_uint = 0x8f37;
/// Read, write, persistent, coherent.
const MAP_FLAGS: c_uint = 0x1 | 0x2 | 0x40 | 0x80;

/// Where is drawn, which the context has bound.
pub(crate) struct Drawing<'a> {
    gl: &'a Gl,
    width: usize,
    height: usize,
}

impl<'a> Drawing<'a> {
    pub(crate) fn new(gl: &'a Gl, width: usize, height: usize) -> anyhow::Result<Self> {
        let [columns, rows] = [width, height].map(c_int::try_from);
        let (columns, rows) = (columns?, rows?);
        let mut framebuffer = 0;
        let mut buffers = [0; 2];
        // SAFETY: the context is current, and each pointer is to as many names as are asked for.
        let status = unsafe {
            (gl.gen_framebuffers)(1, &raw mut framebuffer);
            (gl.bind_framebuffer)(FRAMEBUFFER, framebuffer);
            (gl.gen_renderbuffers)(2, buffers.as_mut_ptr());
            let formats = [
                (RGBA8, COLOR_ATTACHMENT),
                (DEPTH_COMPONENT24, DEPTH_ATTACHMENT),
            ];
            for (buffer, (format, attachment)) in buffers.into_iter().zip(formats) {
                (gl.bind_renderbuffer)(RENDERBUFFER, buffer);
                (gl.renderbuffer_storage)(RENDERBUFFER, format, columns, rows);
                (gl.framebuffer_renderbuffer)(FRAMEBUFFER, attachment, RENDERBUFFER, buffer);
            }
            (gl.viewport)(0, 0, columns, rows);
            (gl.enable)(DEPTH_TEST);
            (gl.check_framebuffer_status)(FRAMEBUFFER)
        };
        ensure!(
            status == FRAMEBUFFER_COMPLETE,
            "no framebuffer: {status:#x}"
        );
        Ok(Self { gl, width, height })
    }

    /// Fills it with [`BACKGROUND`].
    pub(crate) fn clear(&self) {
        // SAFETY: the context is current.
        unsafe {
            (self.gl.clear_color)(0.0, 0.0, 1.0, 1.0);
            (self.gl.clear)(COLOR_AND_DEPTH);
        }
    }

    /// Row by row, the lowest first.
    pub(crate) fn pixels(&self) -> anyhow::Result<Vec<u32>> {
        self.read((0, 0), self.width, self.height)
    }

    /// The pixel in the middle.
    pub(crate) fn middle(&self) -> anyhow::Result<u32> {
        let pixels = self.read((self.width / 2, self.height / 2), 1, 1)?;
        pixels.first().copied().context("no pixel")
    }

    fn read(
        &self,
        (x, y): (usize, usize),
        width: usize,
        height: usize,
    ) -> anyhow::Result<Vec<u32>> {
        let mut pixels = vec![0_u32; width * height];
        let [left, bottom] = [x, y].map(c_int::try_from);
        let (left, bottom) = (left?, bottom?);
        let [columns, rows] = [width, height].map(c_int::try_from);
        let (columns, rows) = (columns?, rows?);
        let place = pixels.as_mut_ptr().cast();
        // SAFETY: the context is current, and there is room for four bytes of each pixel.
        unsafe {
            (self.gl.read_pixels)(left, bottom, columns, rows, RGBA, UNSIGNED_BYTE, place);
        }
        self.gl.check("reading pixels")?;
        Ok(pixels)
    }
}

/// A program of shaders that the context uses. Its vertices come from their numbers.
fn use_program(gl: &Gl, vertex: &str, fragment: &str) -> anyhow::Result<c_uint> {
    let mut array = 0;
    let mut is_linked = 0;
    // SAFETY: the context is current, sources and names end with NUL, and results have a place.
    let program = unsafe {
        (gl.gen_vertex_arrays)(1, &raw mut array);
        (gl.bind_vertex_array)(array);
        let program = (gl.create_program)();
        for (kind, source) in [(VERTEX_SHADER, vertex), (FRAGMENT_SHADER, fragment)] {
            let source = CString::new(source)?;
            let shader = (gl.create_shader)(kind);
            let lines = [source.as_ptr()];
            (gl.shader_source)(shader, 1, lines.as_ptr(), ptr::null());
            (gl.compile_shader)(shader);
            (gl.attach_shader)(program, shader);
        }
        (gl.link_program)(program);
        (gl.get_program)(program, LINK_STATUS, &raw mut is_linked);
        (gl.use_program)(program);
        program
    };
    ensure!(is_linked != 0, "the shaders are refused");
    gl.check("using shaders")?;
    Ok(program)
}

/// The half of the screen below the diagonal.
pub(crate) struct Triangle<'a> {
    gl: &'a Gl,
}

impl<'a> Triangle<'a> {
    pub(crate) fn new(gl: &'a Gl) -> anyhow::Result<Self> {
        const VERTEX: &str = "#version 330 core
            void main() {
                gl_Position = vec4(gl_VertexID == 1 ? 1.0 : -1.0, gl_VertexID == 2 ? 1.0 : -1.0, 0.0, 1.0);
            }";
        const FRAGMENT: &str = "#version 330 core
            out vec4 color;
            void main() { color = vec4(1.0, 0.0, 0.0, 1.0); }";
        use_program(gl, VERTEX, FRAGMENT)?;
        Ok(Self { gl })
    }

    pub(crate) fn draw(&self) {
        // SAFETY: the context is current; the shader reads no buffer.
        unsafe { (self.gl.draw_arrays)(TRIANGLES, 0, 3) }
    }
}

/// A cube of six colors that turns.
pub(crate) struct Cube<'a> {
    gl: &'a Gl,
    angle: c_int,
}

impl<'a> Cube<'a> {
    pub(crate) fn new(gl: &'a Gl) -> anyhow::Result<Self> {
        const VERTEX: &str = "#version 330 core
            uniform float angle;
            out vec3 hue;
            void main() {
                int corner = gl_VertexID % 6;
                int side = gl_VertexID / 6;
                vec2 at = vec2(corner == 1 || corner == 2 || corner == 4 ? 1.0 : -1.0,
                               corner >= 2 && corner != 3 ? 1.0 : -1.0);
                float level = side % 2 == 0 ? 1.0 : -1.0;
                int axis = side / 2;
                vec3 point = axis == 0 ? vec3(level, at) : axis == 1 ? vec3(at.x, level, at.y) : vec3(at, level);
                hue = point * 0.5 + 0.5;
                float s = sin(angle), c = cos(angle);
                point = vec3(c * point.x + s * point.z, point.y, c * point.z - s * point.x);
                point = vec3(point.x, c * point.y - s * point.z, s * point.y + c * point.z);
                gl_Position = vec4(point.xy * vec2(0.75, 1.0), point.z * 0.2, point.z + 4.0);
            }";
        const FRAGMENT: &str = "#version 330 core
            in vec3 hue;
            out vec4 color;
            void main() { color = vec4(hue, 1.0); }";
        let program = use_program(gl, VERTEX, FRAGMENT)?;
        // SAFETY: the context is current, and the name ends with NUL.
        let angle = unsafe { (gl.get_uniform_location)(program, c"angle".as_ptr()) };
        Ok(Self { gl, angle })
    }

    pub(crate) fn draw(&self, angle: f32) {
        // SAFETY: the context is current, the program is used; the shader reads no buffer.
        unsafe {
            (self.gl.uniform)(self.angle, angle);
            (self.gl.draw_arrays)(TRIANGLES, 0, 36);
        }
    }
}

/// A buffer that the processor writes and reads while the GPU uses it.
pub(crate) struct PersistentBuffer<'a> {
    gl: &'a Gl,
    name: c_uint,
    words: &'a mut [u32],
}

impl<'a> PersistentBuffer<'a> {
    /// Of `len` bytes.
    pub(crate) fn new(gl: &'a Gl, len: usize) -> anyhow::Result<Self> {
        let bytes = isize::try_from(len)?;
        let mut name = 0;
        // SAFETY: the context is current, and the name has a place.
        let place = unsafe {
            (gl.gen_buffers)(1, &raw mut name);
            (gl.bind_buffer)(COPY_READ_BUFFER, name);
            (gl.buffer_storage)(COPY_READ_BUFFER, bytes, ptr::null(), MAP_FLAGS);
            (gl.map_buffer_range)(COPY_READ_BUFFER, 0, bytes, MAP_FLAGS)
        };
        gl.check("mapping a buffer")?;
        let place = ptr::NonNull::new(place.cast::<u32>()).context("no map")?;
        ensure!(place.is_aligned(), "the map is not aligned");
        // SAFETY: the buffer stays mapped as long as the context lives, which `gl` does not outlive; all of its bytes may be
        // read and written, and nobody else has a reference to them.
        let words = unsafe { std::slice::from_raw_parts_mut(place.as_ptr(), len / 4) };
        Ok(Self { gl, name, words })
    }

    pub(crate) fn words(&mut self) -> &mut [u32] {
        self.words
    }

    /// Copies all to `other` by the GPU.
    pub(crate) fn copy_to(&self, other: &Self) -> anyhow::Result<()> {
        let len = isize::try_from(size_of_val(self.words))?;
        // SAFETY: the context is current; OpenGL checks names and sizes.
        unsafe {
            (self.gl.bind_buffer)(COPY_READ_BUFFER, self.name);
            (self.gl.bind_buffer)(COPY_WRITE_BUFFER, other.name);
            (self.gl.copy_buffer_sub_data)(COPY_READ_BUFFER, COPY_WRITE_BUFFER, 0, 0, len);
        }
        self.gl.finish();
        self.gl.check("copying a buffer")
    }
}
