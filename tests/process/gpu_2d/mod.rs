// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-gpu in 2D, over its socket.

mod blobs;
mod displays;
mod lifetimes;
mod pictures;
mod requests;
mod rings;
mod windows;

use std::collections::HashSet;
use std::time::Duration;

use crate::common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Edid, EdidAnswer, Format, Gpu, GpuOptions, Layout, MAX_SCANOUTS,
    Mode, Rect, Request, ResponseKind,
};
use frontend::{Buffer, Memory, SocketForm};
use virtio_bindings::virtio_gpu as v;

const XRGB: Format = Format::B8G8R8X8;

/// Scanout 0 shows this part of the resource, and does so once this returns.
fn show(vm: &mut GpuVm, id: u32, rect: Rect) {
    let before = vm.display.lock().of(Request::Update).count();
    ok(vm.gpu.set_scanout(0, id, rect));
    ok(vm.gpu.flush(id, rect));
    vm.display.wait_count(Request::Update, before + 1).unwrap();
}
