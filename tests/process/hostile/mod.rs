// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hostile guest of vhost-user-gpu, over its socket: it gets errors, and its other queue keeps running.

mod budget;
mod chains;
mod endurance;
mod queues;

use crate::common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, GpuOptions, HEADER_SIZE, Rect, Request, ResponseKind,
};
use frontend::{Buffer, Memory, SocketForm};
use virtio_bindings::virtio_gpu as v;

const XRGB: Format = Format::B8G8R8X8;
const HEADER: u32 = HEADER_SIZE as u32;
const CONTROL: u32 = 0;
const CURSOR: u32 = 1;

fn vm_with(arguments: &[&str]) -> GpuVm {
    let command = gpu_command(SocketForm::Connected(7)).args(arguments);
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    GpuVm::of(command.spawn().unwrap(), display, GpuOptions::default())
}

/// Asserts that both queues and the display are as good as ever, with a driver that goes on.
fn assert_works(vm: &mut GpuVm) {
    vm.painted(0xfff1, XRGB, (16, 16));
    let whole = Rect::sized(16, 16);
    let before = vm.display.lock().of(Request::Update).count();
    ok(vm.gpu.set_scanout(0, 0xfff1, whole));
    ok(vm.gpu.flush(0xfff1, whole));
    vm.display.wait_count(Request::Update, before + 1).unwrap();
    assert_shows(&vm.display, 0, (16, 16), pattern);
    ok(vm.gpu.unref(0xfff1));
    assert_cursor_moves(vm);
}

/// Asserts that the cursor queue is served.
fn assert_cursor_moves(vm: &mut GpuVm) {
    let last = vm.display.lock().cursor.position;
    let next = (last.0 + 1, last.1 + 2);
    vm.gpu.update_cursor(0, next, 0, (0, 0)).unwrap();
    let moved = |d: &frontend::gpu::Display| (d.cursor.position == next).then_some(());
    vm.display.wait("the cursor to move", moved).unwrap();
}

/// A new driver finds a device that works.
fn assert_works_for_a_new_driver(mut vm: GpuVm) {
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    assert_works(&mut vm);
    vm.finish();
}

/// The answer of `kind` that lies in `page`.
fn kind_at(memory: &Memory, page: u64) -> ResponseKind {
    let mut bytes = [0; 4];
    memory.read(page, &mut bytes).unwrap();
    ResponseKind::from(u32::from_le_bytes(bytes))
}
