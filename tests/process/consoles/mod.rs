// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles: clients of the GPU's display socket, which see what the guest draws.

mod config_changes;
mod hostile;
mod pictures;
mod resize;
mod starts;
#[cfg(target_arch = "x86_64")]
mod unseen;

use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::*;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request};
use frontend::{Command, DEFAULT_LIMIT, Deadline, Program, SocketForm};
use rustix::event::PollFlags;

const XRGB: Format = Format::B8G8R8X8;
const SIZE: (u32, u32) = (96, 64);
const ALL: Rect = Rect {
    x: 0,
    y: 0,
    width: SIZE.0,
    height: SIZE.1,
};
/// Most consoles at the same time.
const MAX_CONSOLES: usize = 4;

/// A GPU that listens for consoles at a path.
fn listening() -> Command {
    gpu_command(SocketForm::Connected(7)).listen("display")
}

/// A guest on that, with a display of the VMM's.
fn with_vmm() -> GpuVm {
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    GpuVm::of(listening().spawn().unwrap(), display, GpuOptions::default())
}

/// A console.
fn console(program: &mut Program) -> DisplayThread {
    let socket = program.connect_further("display").unwrap();
    DisplayThread::on(socket, DisplayOptions::default()).unwrap()
}

/// Waits until scanout `id` of `console` has exactly these pixels.
fn wait_shows(console: &DisplayThread, id: usize, size: (u32, u32), color: Color) {
    let shown = |display: &frontend::gpu::Display| {
        let surface = display.surfaces[id].as_ref()?;
        let is_same = (surface.width, surface.height) == size
            && (0..size.1)
                .flat_map(|y| (0..size.0).map(move |x| (x, y)))
                .all(|(x, y)| surface.rgb(x, y) == Some(color(x, y)));
        is_same.then_some(())
    };
    console.wait("the picture", shown).unwrap();
}

type Color = fn(u32, u32) -> [u8; 3];

/// Waits until `console` was told of head `id` last that it is off.
fn wait_off(console: &DisplayThread, id: u32) {
    let off = |display: &frontend::gpu::Display| {
        let last = display.of(Request::Scanout).filter(|s| s.scanout() == id);
        last.last().filter(|s| s.words[1..3] == [0, 0]).map(drop)
    };
    console.wait("a head that is off", off).unwrap();
}

/// The connection is closed at once.
fn assert_closed(mut socket: &UnixStream) {
    let ready = Deadline::after(Duration::from_secs(30)).ready(socket.as_fd(), PollFlags::IN);
    assert!(ready.unwrap(), "the connection is open still");
    let end = socket.read(&mut [0; 64]);
    assert!(matches!(end, Ok(0)), "{end:?}");
}

/// Shows resource 1 of this size on scanout 0.
fn show_on_0(gpu: &mut Gpu, rect: Rect) {
    ok(gpu.set_scanout(0, 1, rect));
    ok(gpu.flush(1, rect));
}
