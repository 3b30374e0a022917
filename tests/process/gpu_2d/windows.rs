// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Windows' driver (viogpudo), where it differs from Linux': it accepts no feature of the device, and sends
//! the pixels of a cursor on one queue and the cursor on the other, without waiting in between.

use super::*;
use frontend::features::INDIRECT_DESC;

/// Much memory takes the kernel its time, on a busy machine.
const END: Duration = Duration::from_secs(60);

/// VIRTIO_F_INDIRECT_DESC is all that it accepts.
fn windows() -> GpuOptions {
    GpuOptions {
        features: INDIRECT_DESC,
        ..GpuOptions::default()
    }
}

#[test]
fn cursor_right_after_a_large_transfer_has_its_new_picture() {
    const SCREEN: u32 = 1;
    const CURSOR: u32 = 2;
    const ARGB: Format = Format::B8G8R8A8;
    let size = (3840, 2160);
    let whole = Rect::sized(size.0, size.1);
    let mut vm = GpuVm::with(DisplayOptions::default(), windows());
    let _screen = vm.resource(SCREEN, XRGB, size, Pieces::Pages);
    let cursor = vm.resource(CURSOR, ARGB, (64, 64), Pieces::Pages);
    for round in 0..20 {
        let color = |x: u32, y: u32| pattern(x + round, y);
        cursor.write(0, &picture(ARGB, (64, 64), color));
        for (id, rect) in [(SCREEN, whole), (CURSOR, Rect::sized(64, 64))] {
            let words = [0, 0, rect.width, rect.height, 0, 0, id, 0];
            let transfer = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
            vm.gpu.push(transfer, &words).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        vm.gpu.update_cursor(0, (round, 1), CURSOR, (0, 0)).unwrap();
        let shaped = |d: &frontend::gpu::Display| (d.cursor.position == (round, 1)).then_some(());
        vm.display.wait("the cursor", shaped).unwrap();
        let shown = vm.display.lock().cursor.pixels.clone();
        assert!(
            shown == picture(ARGB, (64, 64), color),
            "round {round} shows the old picture"
        );
        for _ in 0..2 {
            let (_, response) = vm.gpu.control.next_response().unwrap();
            assert_eq!(response.kind, ResponseKind::OkNodata);
        }
    }
    vm.finish_within(END);
}

/// One entry for each page, in an order in which none lies behind the one before it.
#[test]
fn texture_of_8k_in_single_pages_is_drawn_right() {
    let size @ (width, height) = (7680, 4320);
    let memory = Memory::new(&[(1 << 30, 160 << 20)]).unwrap();
    let program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::in_memory(program, (display, socket), windows(), &memory);
    let pages = ScatteredPages::new(&memory, width * height * 4);
    assert!(pages.entries.len() > 16384);
    ok(vm.gpu.create_2d(1, XRGB, width, height));
    ok(vm.gpu.attach_backing(1, &pages.entries));
    let whole = Rect::sized(width, height);
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    show(&mut vm, 1, whole);
    pages.assert_shown(&vm.display, size);
    ok(vm.gpu.detach_backing(1));
    vm.finish_within(END);
}
