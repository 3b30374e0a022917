// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-gpu in 3D, over its socket: virgl command streams are drawn, read back and shown,
//! on a host without a GPU (Mesa's llvmpipe).

mod drawing;
mod lifetimes;
mod memory;
mod requests;

use std::time::Duration;

use crate::common::*;
use frontend::gpu::{
    Corner, Create3d, DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request,
    ResponseKind, Stream, Transfer3d,
};
use frontend::{Command, Memory, Program, SocketForm};
use rustix::process::Signal;
use virtio_bindings::virtio_gpu as v;

const GREEN: [f32; 3] = [0.0, 1.0, 0.0];
const CONTEXT: u32 = 1;
const PICTURE: u32 = 1;
const VERTICES: u32 = 2;
const SURFACE: u32 = 1;
const TRIANGLE: u32 = 10;

fn virgl_command() -> Command {
    let command = gpu_command(SocketForm::Connected(7)).arg("--virgl");
    // As the unit does; otherwise each context compiles its shaders anew.
    let shaders = concat!(env!("CARGO_TARGET_TMPDIR"), "/shaders");
    std::fs::create_dir_all(shaders).unwrap();
    // Whatever the host has: the tests are about software.
    command
        .env("MESA_SHADER_CACHE_DIR", shaders)
        .env("LIBGL_ALWAYS_SOFTWARE", "1")
}

fn start() -> GpuVm {
    start_with(GpuOptions::virgl())
}

fn start_with(options: GpuOptions) -> GpuVm {
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    GpuVm::of(virgl_command().spawn().unwrap(), display, options)
}

/// A picture with a backing that a context draws to.
fn with_picture(size: (u32, u32)) -> (GpuVm, Backing) {
    let mut vm = start();
    let backing = picture_in(&mut vm.gpu, size);
    (vm, backing)
}

fn picture_in(gpu: &mut Gpu, (width, height): (u32, u32)) -> Backing {
    ok(gpu.create_context(CONTEXT, "test"));
    ok(gpu.create_3d(PICTURE, Create3d::picture(width, height)));
    let backing = Backing::new(gpu.memory(), width * height * 4, Pieces::Pages);
    ok(gpu.attach_backing(PICTURE, &backing.entries));
    ok(gpu.context_attach(CONTEXT, PICTURE));
    backing
}

/// Red, green and blue of all pixels that the context drew, rows from above to below.
fn read_back(gpu: &mut Gpu, backing: &Backing, (width, height): (u32, u32)) -> Vec<[u8; 3]> {
    let whole = Transfer3d::of(PICTURE, Rect::sized(width, height));
    ok(gpu.transfer_from_host_3d(CONTEXT, whole));
    let bytes = backing.read();
    let pixels = bytes.chunks_exact(4);
    pixels
        .take((width * height) as usize)
        .map(|p| [p[2], p[1], p[0]])
        .collect()
}

fn clear(color: [f32; 3]) -> Stream {
    Stream::default().draw_to(SURFACE, PICTURE).clear(color)
}

/// The upper half is covered by a triangle from its middle to the corners below.
fn triangle(size: (u32, u32)) -> Stream {
    let corner = |x, y, color| Corner { x, y, color };
    Stream::default().triangle(
        TRIANGLE,
        VERTICES,
        size,
        [
            corner(-1.0, -1.0, [1.0, 0.0, 0.0]),
            corner(1.0, -1.0, [0.0, 0.0, 1.0]),
            corner(0.0, 1.0, [1.0, 1.0, 1.0]),
        ],
    )
}

fn vertices_in(gpu: &mut Gpu) {
    ok(gpu.create_3d(VERTICES, Create3d::vertices(96)));
    ok(gpu.context_attach(CONTEXT, VERTICES));
}
