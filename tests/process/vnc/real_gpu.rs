// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console with the project's own GPU, and a guest's driver.

use std::path::Path;

use conventions::ScreenState;
use frontend::SocketForm;
use frontend::gpu::{DisplayOptions, DisplayThread, Format, GpuOptions, Rect};
use rfb::Encoding;

use super::{Console, assert_shows, assert_shows_text};
use crate::common::*;

const SIZE: (u32, u32) = (640, 480);

/// A GPU with a front-end, the VMM's display and a socket for consoles.
fn gpu(display_socket: &Path) -> GpuVm {
    let option = format!("--display-socket={}", display_socket.display());
    let program = gpu_command(SocketForm::Connected(7)).arg(option);
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    GpuVm::of(program.spawn().unwrap(), display, GpuOptions::default())
}

#[test]
fn viewer_and_vmm_see_what_the_guest_draws() {
    let mut console = Console::start(&[]);
    let mut vm = gpu(&console.display());
    let whole = Rect::sized(SIZE.0, SIZE.1);
    let backing = vm.painted(1, Format::B8G8R8X8, SIZE);
    ok(vm.gpu.set_scanout(0, 1, whole));
    ok(vm.gpu.flush(1, whole));
    let mut viewers: Vec<_> = [Encoding::RAW, Encoding::ZRLE, Encoding::TIGHT]
        .map(|encoding| {
            let mut viewer = console.viewer();
            let encodings = [encoding, Encoding::LAST_RECT, Encoding::DESKTOP_NAME];
            viewer.set_encodings(&encodings).unwrap();
            viewer
        })
        .into();
    let pixels = backing.read();
    let size = (640, 480);
    for viewer in &mut viewers {
        assert_shows(viewer, size, &pixels);
    }
    // A part, which the viewers are sent alone.
    let viewer = &mut viewers[0];
    let before = viewer.received();
    viewer.request(true, viewer.frame().rect()).unwrap();
    let mut pixels = pixels;
    for row in 100..164 {
        let start = (row * 640 + 200) * 4;
        pixels[start..start + 64 * 4].fill(0x55);
    }
    backing.write(0, &pixels);
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    ok(vm.gpu.flush(1, whole));
    let update = viewer.wait_for_update().unwrap();
    let sent: usize = update.pixels.iter().map(|(rect, _)| rect.area()).sum();
    assert_eq!(sent, 64 * 64, "{update:?}");
    assert!(viewer.received() - before < 64 * 64 * 4 + 100);
    for viewer in &mut viewers {
        assert_shows(viewer, size, &pixels);
    }
    let same = |display: &frontend::gpu::Display| {
        let surface = display.surface(0).ok()?;
        (super::rgb(&surface.pixels) == super::rgb(&pixels)).then_some(())
    };
    vm.display.wait("the same at the VMM", same).unwrap();

    // The guest switches the head off, as a reboot does.
    ok(vm.gpu.set_scanout(0, 0, Rect::default()));
    assert_shows_text(&mut viewers[0], ScreenState::Off);
    ok(vm.gpu.set_scanout(0, 1, whole));
    ok(vm.gpu.flush(1, whole));
    for viewer in &mut viewers {
        assert_shows(viewer, size, &pixels);
    }
    drop(viewers);
    vm.finish();
}

#[test]
fn gpu_of_the_next_start_is_shown() {
    let mut console = Console::start(&[]);
    let display = console.display();
    let whole = Rect::sized(SIZE.0, SIZE.1);
    let mut viewer = console.viewer();
    let encodings = [
        Encoding::RAW,
        Encoding::DESKTOP_SIZE,
        Encoding::DESKTOP_NAME,
    ];
    viewer.set_encodings(&encodings).unwrap();
    for _ in 0..2 {
        let mut vm = gpu(&display);
        let backing = vm.painted(1, Format::B8G8R8X8, SIZE);
        ok(vm.gpu.set_scanout(0, 1, whole));
        ok(vm.gpu.flush(1, whole));
        assert_shows(&mut viewer, (640, 480), &backing.read());
        vm.finish();
        assert_shows_text(&mut viewer, ScreenState::Unreachable);
    }
}
