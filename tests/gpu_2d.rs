//! vhost-user-gpu in 2D, over its socket: what a guest draws is what the display shows.

mod common;

use std::collections::HashSet;
use std::time::Duration;

use common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Edid, EdidAnswer, Format, Gpu, GpuOptions, Layout, MAX_SCANOUTS,
    Mode, Rect, Request, ResponseKind,
};
use frontend::{Buffer, SocketForm};
use virtio_bindings::virtio_gpu as v;

const XRGB: Format = Format::B8G8R8X8;

#[test]
fn display_info_is_what_the_display_says() {
    let mut options = DisplayOptions::with_modes(&[(1280, 800), (640, 480)]);
    options.modes[1].enabled = false;
    let mut vm = GpuVm::with_display(options);
    let info = vm.gpu.get_display_info().unwrap();
    assert_eq!(info.len(), MAX_SCANOUTS);
    assert_eq!(
        (info[0].rect, info[0].enabled),
        (Rect::sized(1280, 800), true)
    );
    assert!(!info[1].enabled && !info[2].enabled);

    // A window that was resized: the guest asks again, and so does the backend.
    vm.display.lock().options.modes[0] = Mode {
        rect: Rect::sized(801, 603),
        enabled: true,
    };
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(801, 603)
    );
    vm.finish();
}

#[test]
fn the_configuration_counts_scanouts_and_no_capsets() {
    let mut vm = GpuVm::start();
    let (scanouts, capsets) = vm.gpu.config().unwrap();
    assert!((1..=16).contains(&scanouts), "{scanouts} scanouts");
    assert_eq!(capsets, 0, "there are no capability sets without virgl");
    vm.finish();
}

#[test]
fn the_edid_is_the_displays_own_where_it_answers() {
    let mut options = DisplayOptions::with_modes(&[(1280, 800), (1024, 600)]);
    let blocks = vec![
        Edid::make("left", 1280, 800),
        Edid::make("right", 1024, 600),
    ];
    options.edid = EdidAnswer::Blocks(blocks.clone());
    let mut vm = GpuVm::with_display(options);
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_EDID,
        0,
        "EDID is not offered"
    );
    assert_eq!(vm.gpu.get_edid(0).unwrap(), blocks[0]);
    assert_eq!(vm.gpu.get_edid(1).unwrap(), blocks[1]);
    assert_eq!(vm.display.lock().protocol_features.map(|f| f & 1), Some(1));
    vm.finish();
}

#[test]
fn the_edid_is_made_where_the_display_does_not_answer() {
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(1360, 768)]));
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_EDID,
        0,
        "EDID is not offered"
    );
    let edid = Edid::parse(&vm.gpu.get_edid(0).unwrap()).unwrap();
    assert_eq!((edid.width, edid.height), (1360, 768));
    assert!(
        (50_000..=75_000).contains(&edid.refresh),
        "{} mHz",
        edid.refresh
    );
    assert!(
        edid.name.is_some_and(|name| !name.is_empty()),
        "a monitor has a name"
    );
    assert!(
        edid.vendor.chars().all(|c| c.is_ascii_uppercase()),
        "{}",
        edid.vendor
    );

    let asked = vm.display.lock().of(Request::GetEdid).count();
    assert_eq!(asked, 0, "a display that does not offer EDID never answers");
    answered(vm.gpu.try_get_edid(16), ResponseKind::ErrInvalidScanoutId);
    answered(
        vm.gpu.try_get_edid(u32::MAX),
        ResponseKind::ErrInvalidScanoutId,
    );
    vm.finish();
}

#[test]
fn a_made_edid_is_valid_for_any_size() {
    let sizes = [
        (1, 1),
        (640, 480),
        (1366, 768),
        (1920, 1080),
        (3840, 2160),
        (5120, 2880),
    ];
    let mut vm = GpuVm::start();
    for (width, height) in sizes {
        let rect = Rect::sized(width, height);
        vm.display.lock().options.modes[0] = Mode {
            rect,
            enabled: true,
        };
        vm.gpu.get_display_info().unwrap();
        let edid = vm.gpu.get_edid(0).unwrap();
        let parsed = Edid::parse(&edid);
        assert!(parsed.is_ok(), "{width}x{height}: {parsed:?}");
    }
    vm.finish();
}

#[test]
fn all_formats_show_the_same_picture() {
    let mut vm = GpuVm::start();
    for (id, format) in (1..).zip(Format::ALL) {
        let size = (33, 17);
        vm.painted(id, format, size);
        ok(vm.gpu.set_scanout(0, id, Rect::sized(33, 17)));
        ok(vm.gpu.flush(id, Rect::sized(33, 17)));
        vm.display.wait_count(Request::Update, id as usize).unwrap();
        assert_shows(&vm.display, 0, size, pattern);
    }
    vm.finish();
}

#[test]
fn any_scatter_of_the_backing_is_gathered() {
    let mut vm = GpuVm::start();
    let size = (67, 29);
    let whole = Rect::sized(67, 29);
    for (id, pieces) in (1..).zip([Pieces::Whole, Pieces::Pages, Pieces::Odd]) {
        let backing = vm.resource(id, XRGB, size, pieces);
        backing.write(0, &picture(XRGB, size, pattern));
        ok(vm.gpu.transfer_to_host_2d(id, whole, 0));
        ok(vm.gpu.set_scanout(0, id, whole));
        ok(vm.gpu.flush(id, whole));
        vm.display.wait_count(Request::Update, id as usize).unwrap();
        assert_shows(&vm.display, 0, size, pattern);
    }
    vm.finish();
}

#[test]
fn a_transfer_takes_exactly_its_rectangle() {
    let size @ (width, height) = (40, 30);
    let whole = Rect::sized(width, height);
    let rects = [
        Rect::new(0, 0, 40, 1),
        Rect::new(0, 29, 40, 1),
        Rect::new(39, 29, 1, 1),
        Rect::new(0, 0, 1, 30),
        Rect::new(3, 5, 17, 11),
        Rect::new(1, 0, 39, 30),
        Rect::new(0, 7, 40, 9),
    ];
    let mut vm = GpuVm::start();
    for (id, rect) in (1..).zip(rects) {
        for (id, pieces) in [(id, Pieces::Pages), (id + 100, Pieces::Odd)] {
            let backing = vm.resource(id, XRGB, size, pieces);
            backing.write(0, &picture(XRGB, size, pattern));
            ok(vm.gpu.transfer_to_host_2d(id, whole, 0));
            backing.write(0, &picture(XRGB, size, negative));
            let offset = u64::from((rect.y * width + rect.x) * 4);
            ok(vm.gpu.transfer_to_host_2d(id, rect, offset));
            show(&mut vm, id, whole);
            let inside = |x, y| {
                (rect.x..rect.x + rect.width).contains(&x)
                    && (rect.y..rect.y + rect.height).contains(&y)
            };
            assert_shows(&vm.display, 0, size, |x, y| {
                if inside(x, y) {
                    negative(x, y)
                } else {
                    pattern(x, y)
                }
            });
        }
    }
    vm.finish();
}

/// The offset says where the rectangle lies in the backing, whatever its place in the resource.
#[test]
fn a_transfer_reads_from_its_offset() {
    let size @ (width, height) = (32, 32);
    let mut vm = GpuVm::start();
    let backing = vm.resource(1, XRGB, size, Pieces::Odd);
    backing.write(0, &picture(XRGB, size, pattern));
    ok(vm.gpu.transfer_to_host_2d(1, Rect::sized(width, height), 0));
    // The part at 5, 9 of the backing goes to 16, 2 of the resource.
    let offset = u64::from((9 * width + 5) * 4);
    ok(vm
        .gpu
        .transfer_to_host_2d(1, Rect::new(16, 2, 8, 6), offset));
    show(&mut vm, 1, Rect::sized(width, height));
    assert_shows(&vm.display, 0, size, |x, y| match (x, y) {
        (16..24, 2..8) => pattern(x - 11, y + 7),
        _ => pattern(x, y),
    });
    vm.finish();
}

#[test]
fn a_scanout_shows_its_part_of_the_resource() {
    let mut vm = GpuVm::start();
    vm.painted(1, XRGB, (50, 40));
    for part in [
        Rect::new(10, 20, 30, 15),
        Rect::new(49, 39, 1, 1),
        Rect::new(0, 39, 50, 1),
    ] {
        ok(vm.gpu.set_scanout(0, 1, part));
        let before = vm.display.lock().of(Request::Update).count();
        ok(vm.gpu.flush(1, Rect::sized(50, 40)));
        vm.display.wait_count(Request::Update, before + 1).unwrap();
        assert_shows(&vm.display, 0, (part.width, part.height), |x, y| {
            pattern(x + part.x, y + part.y)
        });
    }
    vm.finish();
}

#[test]
fn two_scanouts_show_two_parts_of_one_resource() {
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(64, 48), (64, 48)]));
    let backing = vm.painted(1, XRGB, (128, 48));
    ok(vm.gpu.set_scanout(0, 1, Rect::new(0, 0, 64, 48)));
    ok(vm.gpu.set_scanout(1, 1, Rect::new(64, 0, 64, 48)));
    ok(vm.gpu.flush(1, Rect::sized(128, 48)));
    vm.display.wait_count(Request::Update, 2).unwrap();
    assert_shows(&vm.display, 0, (64, 48), pattern);
    assert_shows(&vm.display, 1, (64, 48), |x, y| pattern(x + 64, y));

    // A patch across the border reaches both, each in its own coordinates.
    let patch = Rect::new(56, 8, 16, 4);
    backing.write(0, &picture(XRGB, (128, 48), negative));
    ok(vm
        .gpu
        .transfer_to_host_2d(1, patch, u64::from((patch.y * 128 + patch.x) * 4)));
    vm.display.lock().forget();
    ok(vm.gpu.flush(1, patch));
    vm.display.wait_count(Request::Update, 2).unwrap();
    {
        let display = vm.display.lock();
        let updates: Vec<_> = display
            .of(Request::Update)
            .map(|u| (u.scanout(), u.rect()))
            .collect();
        assert!(
            updates.contains(&(0, Rect::new(56, 8, 8, 4))),
            "{updates:?}"
        );
        assert!(updates.contains(&(1, Rect::new(0, 8, 8, 4))), "{updates:?}");
    }
    let shown = |x: u32, y: u32| match (x, y) {
        (56..72, 8..12) => negative(x, y),
        _ => pattern(x, y),
    };
    assert_shows(&vm.display, 0, (64, 48), shown);
    assert_shows(&vm.display, 1, (64, 48), |x, y| shown(x + 64, y));
    vm.finish();
}

#[test]
fn a_flush_is_clipped_to_the_scanout_and_sent_in_its_coordinates() {
    let mut vm = GpuVm::start();
    let backing = vm.painted(1, XRGB, (100, 100));
    ok(vm.gpu.set_scanout(0, 1, Rect::new(20, 30, 40, 50)));
    ok(vm.gpu.flush(1, Rect::sized(100, 100)));
    vm.display.wait_count(Request::Update, 1).unwrap();

    // All of it changes, so that a backend that sends only changes has to send all it is asked for.
    backing.write(0, &picture(XRGB, (100, 100), negative));
    ok(vm.gpu.transfer_to_host_2d(1, Rect::sized(100, 100), 0));
    vm.display.lock().forget();
    ok(vm.gpu.flush(1, Rect::new(0, 0, 20, 100)));
    ok(vm.gpu.flush(1, Rect::new(0, 80, 100, 20)));
    ok(vm.gpu.flush(1, Rect::new(10, 25, 15, 10)));
    ok(vm.gpu.flush(1, Rect::new(59, 79, 30, 20)));
    vm.display.wait_count(Request::Update, 2).unwrap();
    let display = vm.display.lock();
    let updates: Vec<_> = display.of(Request::Update).map(|u| u.rect()).collect();
    assert_eq!(updates, [Rect::new(0, 0, 5, 5), Rect::new(39, 49, 1, 1)]);
    drop(display);
    assert_shows(&vm.display, 0, (40, 50), |x, y| match (x, y) {
        (0..5, 0..5) | (39, 49) => negative(x + 20, y + 30),
        _ => pattern(x + 20, y + 30),
    });
    vm.finish();
}

#[test]
fn sixteen_scanouts_show_sixteen_resources() {
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(20, 10); 16]));
    for n in 0..16_u32 {
        let id = n + 1;
        let size = (20 + n, 10 + n);
        let backing = vm.resource(id, XRGB, size, Pieces::Whole);
        backing.write(0, &picture(XRGB, size, |x, y| pattern(x + 16 * n, y)));
        ok(vm
            .gpu
            .transfer_to_host_2d(id, Rect::sized(size.0, size.1), 0));
        ok(vm.gpu.set_scanout(n, id, Rect::sized(size.0, size.1)));
        ok(vm.gpu.flush(id, Rect::sized(size.0, size.1)));
    }
    vm.display.wait_count(Request::Update, 16).unwrap();
    for n in 0..16 {
        assert_shows(&vm.display, n, (20 + n, 10 + n), |x, y| {
            pattern(x + 16 * n, y)
        });
    }
    vm.finish();
}

#[test]
fn a_scanout_is_disabled_by_resource_0_and_by_unref() {
    let mut vm = GpuVm::start();
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    ok(vm.gpu.set_scanout(0, 0, Rect::default()));
    let off = |d: &frontend::gpu::Display| d.surfaces[0].is_none().then_some(());
    vm.display.wait("the scanout to be disabled", off).unwrap();

    let updates = vm.display.lock().of(Request::Update).count();
    ok(vm.gpu.flush(1, Rect::sized(16, 16)));
    show(&mut vm, 1, Rect::sized(16, 16));
    assert_eq!(vm.display.lock().of(Request::Update).count(), updates + 1);
    ok(vm.gpu.unref(1));
    vm.display.wait("the scanout to be disabled", off).unwrap();
    answered(
        vm.gpu.flush(1, Rect::sized(16, 16)),
        ResponseKind::ErrInvalidResourceId,
    );
    vm.finish();
}

#[test]
fn a_resource_keeps_its_picture_without_its_backing() {
    let mut vm = GpuVm::start();
    vm.painted(1, XRGB, (16, 16));
    ok(vm.gpu.detach_backing(1));
    show(&mut vm, 1, Rect::sized(16, 16));
    assert_shows(&vm.display, 0, (16, 16), pattern);
    let response = vm
        .gpu
        .transfer_to_host_2d(1, Rect::sized(16, 16), 0)
        .unwrap();
    assert_ne!(
        response.kind,
        ResponseKind::OkNodata,
        "there is nothing to transfer from"
    );
    // Attached anew, it can be drawn again.
    let backing = Backing::new(vm.gpu.memory(), 16 * 16 * 4, Pieces::Odd);
    ok(vm.gpu.attach_backing(1, &backing.entries));
    backing.write(0, &picture(XRGB, (16, 16), negative));
    ok(vm.gpu.transfer_to_host_2d(1, Rect::sized(16, 16), 0));
    show(&mut vm, 1, Rect::sized(16, 16));
    assert_shows(&vm.display, 0, (16, 16), negative);
    vm.finish();
}

#[test]
fn the_cursor_is_drawn_moved_and_hidden() {
    let mut vm = GpuVm::start();
    let argb = Format::B8G8R8A8;
    vm.painted(9, argb, (64, 64));
    vm.gpu.update_cursor(0, (100, 120), 9, (3, 4)).unwrap();
    vm.display.wait_count(Request::CursorUpdate, 1).unwrap();
    {
        let display = vm.display.lock();
        let cursor = &display.cursor;
        assert_eq!(
            (cursor.scanout, cursor.position, cursor.hot_spot),
            (0, (100, 120), (3, 4))
        );
        assert!(cursor.visible);
        assert_eq!(cursor.pixels, picture(argb, (64, 64), pattern));
    }
    vm.gpu.move_cursor(0, (7, 8), 9).unwrap();
    let at = |x, y| move |d: &frontend::gpu::Display| (d.cursor.position == (x, y)).then_some(());
    vm.display.wait("the cursor to move", at(7, 8)).unwrap();
    assert!(vm.display.lock().cursor.visible);

    vm.gpu.update_cursor(0, (9, 10), 0, (0, 0)).unwrap();
    let hidden = |d: &frontend::gpu::Display| (!d.cursor.visible).then_some(());
    vm.display.wait("the cursor to be hidden", hidden).unwrap();

    // What is no cursor changes nothing: no such resource, not 64x64, no such scanout.
    vm.painted(10, argb, (32, 32));
    let before = vm.display.lock().of(Request::CursorUpdate).count();
    for (scanout, id) in [(0, 77), (16, 9), (u32::MAX, 9)] {
        vm.gpu.update_cursor(scanout, (1, 1), id, (0, 0)).unwrap();
    }
    vm.gpu.update_cursor(0, (2, 2), 9, (1, 1)).unwrap();
    vm.display.wait("the cursor at 2, 2", at(2, 2)).unwrap();
    assert_eq!(
        vm.display.lock().of(Request::CursorUpdate).count(),
        before + 1
    );
    vm.finish();
}

#[test]
fn a_fenced_command_is_answered_with_its_fence() {
    let mut vm = GpuVm::start();
    vm.gpu.fence_next(0x1234_5678_9abc_def0);
    let response = ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    assert!(response.has_fence(0x1234_5678_9abc_def0), "{response:?}");
    let response = ok(vm.gpu.unref(1));
    assert_eq!(response.flags & v::VIRTIO_GPU_FLAG_FENCE, 0, "{response:?}");
    // A failed one is complete too.
    vm.gpu.fence_next(7);
    let response = answered(vm.gpu.unref(1), ResponseKind::ErrInvalidResourceId);
    assert!(response.has_fence(7), "{response:?}");

    // Many at once: each with its own, in their order.
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    for id in 1..=20 {
        vm.gpu.fence_next(1000 + u64::from(id));
        vm.gpu.push(command, &[id, XRGB as u32, 4, 4]).unwrap();
    }
    vm.gpu.control.queue.submit().unwrap();
    for id in 1..=20 {
        let (_, response) = vm.gpu.control.next_response().unwrap();
        assert!(response.has_fence(1000 + id), "fence {id}: {response:?}");
    }
    vm.finish();
}

#[test]
fn a_uuid_is_given_where_it_is_offered() {
    let options = GpuOptions {
        features: u64::MAX,
        ..GpuOptions::default()
    };
    let mut vm = GpuVm::with(DisplayOptions::default(), options);
    ok(vm.gpu.create_2d(1, XRGB, 4, 4));
    ok(vm.gpu.create_2d(2, XRGB, 4, 4));
    assert_ne!(
        vm.gpu.features() & 1 << v::VIRTIO_GPU_F_RESOURCE_UUID,
        0,
        "UUID is not offered"
    );
    let mut uuid = |id| answered(vm.gpu.assign_uuid(id), ResponseKind::OkResourceUuid).body;
    let (one, two) = (uuid(1), uuid(2));
    assert_eq!(one.len(), 16);
    assert_ne!(one, two);
    assert_ne!(one, [0; 16]);
    answered(vm.gpu.assign_uuid(3), ResponseKind::ErrInvalidResourceId);
    vm.finish();
}

#[test]
fn errors_are_named_as_the_specification_has_them() {
    use ResponseKind::*;
    let mut vm = GpuVm::start();
    let gpu = &mut vm.gpu;
    ok(gpu.create_2d(1, XRGB, 16, 16));

    answered(gpu.create_2d(0, XRGB, 16, 16), ErrInvalidResourceId);
    answered(gpu.create_2d(1, XRGB, 16, 16), ErrInvalidResourceId);
    answered(gpu.create_2d_raw(2, 0, 16, 16), ErrInvalidParameter);
    answered(gpu.create_2d_raw(2, 5, 16, 16), ErrInvalidParameter);
    for (width, height) in [(u32::MAX, u32::MAX), (1 << 16, 1 << 16), (0, 16), (16, 0)] {
        let kind = gpu.create_2d(2, XRGB, width, height).unwrap().kind;
        let named = matches!(kind, ErrOutOfMemory | ErrInvalidParameter);
        assert!(named, "{width}x{height}: {kind:?}");
    }
    answered(gpu.unref(2), ErrInvalidResourceId);
    answered(
        gpu.attach_backing(2, &[(0x10_0000, 64)]),
        ErrInvalidResourceId,
    );
    answered(gpu.detach_backing(2), ErrInvalidResourceId);
    answered(gpu.flush(2, Rect::sized(1, 1)), ErrInvalidResourceId);
    answered(
        gpu.transfer_to_host_2d(2, Rect::sized(1, 1), 0),
        ErrInvalidResourceId,
    );
    answered(
        gpu.set_scanout(0, 2, Rect::sized(1, 1)),
        ErrInvalidResourceId,
    );
    answered(
        gpu.set_scanout(16, 1, Rect::sized(1, 1)),
        ErrInvalidScanoutId,
    );
    answered(
        gpu.set_scanout(u32::MAX, 1, Rect::sized(1, 1)),
        ErrInvalidScanoutId,
    );

    let outside = [
        Rect::new(0, 0, 17, 16),
        Rect::new(0, 0, 16, 17),
        Rect::new(16, 16, 1, 1),
        Rect::new(u32::MAX, 0, 2, 1),
        Rect::new(1, 1, u32::MAX, 1),
        Rect::new(0, u32::MAX, 1, u32::MAX),
    ];
    for rect in outside {
        answered(gpu.flush(1, rect), ErrInvalidParameter);
        answered(gpu.transfer_to_host_2d(1, rect, 0), ErrInvalidParameter);
        answered(gpu.set_scanout(0, 1, rect), ErrInvalidParameter);
    }
    answered(
        gpu.set_scanout(0, 1, Rect::sized(0, 0)),
        ErrInvalidParameter,
    );
    answered(gpu.command(0x7777, &[]), ErrUnspec);
    // Without virgl there is no 3D.
    answered(
        gpu.command(v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_CTX_CREATE, &[0; 18]),
        ErrUnspec,
    );
    // After all that it still draws.
    ok(gpu.unref(1));
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    assert_shows(&vm.display, 0, (16, 16), pattern);
    vm.finish();
}

#[test]
fn a_backing_outside_the_memory_is_refused() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 16, 16));
    let end = vm.gpu.memory().end();
    let inside = vm.gpu.memory().alloc(4096, 4096).unwrap();
    let wrong: [&[(u64, u32)]; 5] = [
        &[(end, 1024)],
        &[(end - 512, 1024)],
        &[(inside, 512), (u64::MAX - 100, 512)],
        &[(0, 1024)],
        &[(inside, u32::MAX)],
    ];
    for entries in wrong {
        let response = vm.gpu.attach_backing(1, entries).unwrap();
        assert_ne!(response.kind, ResponseKind::OkNodata, "{entries:x?}");
    }
    // More entries than the request carries.
    let response = vm
        .gpu
        .attach_backing_raw(1, 1000, &[(inside, 1024)])
        .unwrap();
    assert_ne!(response.kind, ResponseKind::OkNodata);
    // The right one is still taken.
    ok(vm.gpu.attach_backing(1, &[(inside, 1024)]));
    vm.finish();
}

#[test]
fn a_backing_that_is_too_small_is_not_read_beyond() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 16, 16));
    let backing = Backing::new(vm.gpu.memory(), 100, Pieces::Odd);
    ok(vm.gpu.attach_backing(1, &backing.entries));
    let whole = Rect::sized(16, 16);
    answered(
        vm.gpu.transfer_to_host_2d(1, whole, 0),
        ResponseKind::ErrInvalidParameter,
    );
    let row = Rect::sized(16, 1);
    ok(vm.gpu.transfer_to_host_2d(1, row, 0));
    answered(
        vm.gpu.transfer_to_host_2d(1, row, u64::MAX - 3),
        ResponseKind::ErrInvalidParameter,
    );
    vm.finish();
}

/// What QEMU does at a guest's reboot and at each load of its driver.
#[test]
fn a_new_driver_gets_a_new_display_and_begins_with_no_resources() {
    let mut vm = GpuVm::start();
    for round in 0..4_u32 {
        let size = (30 + round, 20);
        vm.painted(1, XRGB, size);
        show(&mut vm, 1, Rect::sized(size.0, size.1));
        assert_shows(&vm.display, 0, size, pattern);

        vm.gpu.stop().unwrap();
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        std::mem::replace(&mut vm.display, display)
            .finish()
            .unwrap();
        vm.gpu.restart(Some(socket)).unwrap();
        answered(
            vm.gpu.flush(1, Rect::sized(1, 1)),
            ResponseKind::ErrInvalidResourceId,
        );
    }
    let open = vm.program.open_descriptors().unwrap();
    for _ in 0..10 {
        vm.gpu.stop().unwrap();
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        std::mem::replace(&mut vm.display, display)
            .finish()
            .unwrap();
        vm.gpu.restart(Some(socket)).unwrap();
        vm.gpu.get_display_info().unwrap();
    }
    assert!(
        vm.program.open_descriptors().unwrap() <= open,
        "descriptors leak"
    );
    vm.finish();
}

#[test]
fn commands_work_without_a_display() {
    let mut program = gpu_command(SocketForm::Connected(4)).spawn().unwrap();
    let session = program.session().unwrap();
    let none = None::<std::os::unix::net::UnixStream>;
    let mut gpu = Gpu::start(session, &guest_memory(), none, GpuOptions::default()).unwrap();
    let info = gpu.get_display_info().unwrap();
    assert!(
        info[0].enabled && info[0].rect.width > 0,
        "a guest without a screen does not start"
    );
    Edid::parse(&gpu.get_edid(0).unwrap()).unwrap();
    ok(gpu.create_2d(1, XRGB, 16, 16));
    let backing = Backing::new(gpu.memory(), 16 * 16 * 4, Pieces::Whole);
    backing.write(0, &picture(XRGB, (16, 16), pattern));
    ok(gpu.attach_backing(1, &backing.entries));
    ok(gpu.transfer_to_host_2d(1, Rect::sized(16, 16), 0));
    ok(gpu.set_scanout(0, 1, Rect::sized(16, 16)));
    ok(gpu.flush(1, Rect::sized(16, 16)));
    gpu.update_cursor(0, (1, 2), 0, (0, 0)).unwrap();
    gpu.move_cursor(0, (3, 4), 0).unwrap();

    // A display that comes later shows what is there at the next flush.
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    gpu.session.set_gpu_socket(socket).unwrap();
    ok(gpu.set_scanout(0, 1, Rect::sized(16, 16)));
    ok(gpu.flush(1, Rect::sized(16, 16)));
    display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&display, 0, (16, 16), pattern);
    drop(gpu);
    assert_clean_exit(&mut program);
    display.finish().unwrap();
}

#[test]
fn a_display_that_is_gone_does_not_stop_the_guest() {
    let cut_short = DisplayOptions {
        close_after: Some(600),
        ..DisplayOptions::default()
    };
    let cut_answer = DisplayOptions {
        cut_answer: Some((Request::GetDisplayInfo, 30)),
        ..DisplayOptions::default()
    };
    for options in [cut_short, cut_answer] {
        let mut vm = GpuVm::with_display(options);
        let info = vm.gpu.get_display_info().unwrap();
        assert_eq!(info.len(), MAX_SCANOUTS);
        vm.painted(1, XRGB, (64, 64));
        for _ in 0..3 {
            ok(vm.gpu.set_scanout(0, 1, Rect::sized(64, 64)));
            ok(vm.gpu.flush(1, Rect::sized(64, 64)));
            vm.gpu.get_display_info().unwrap();
        }
        vm.finish();
    }
}

#[test]
fn a_display_that_answers_late_is_waited_for() {
    let delay = Duration::from_millis(300);
    let mut vm = GpuVm::with_display(DisplayOptions {
        delay,
        ..DisplayOptions::default()
    });
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(1024, 768)
    );
    vm.finish();
}

#[test]
fn a_display_that_is_stuck_gets_the_right_picture_later() {
    let mut vm = GpuVm::with_display(DisplayOptions {
        buffer: Some(4096),
        ..DisplayOptions::default()
    });
    // More than the socket takes.
    let size = (1024, 1024);
    let whole = Rect::sized(1024, 1024);
    let backing = vm.painted(1, XRGB, size);
    show(&mut vm, 1, whole);

    // What the display does not take waits; how long the guest waits for its flush is the
    // backend's choice, that no picture is torn or lost is not.
    vm.display.pause();
    backing.write(0, &picture(XRGB, size, negative));
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    let flush = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    let tickets: Vec<_> = (0..8)
        .map(|_| vm.gpu.push(flush, &[0, 0, 1024, 1024, 1, 0]).unwrap())
        .collect();
    vm.gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // What was sent of that picture by now is another's.
    let last = |x, y| pattern(y, x);
    backing.write(0, &picture(XRGB, size, last));
    let transfer = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
    let transfer = vm.gpu.push(transfer, &[0, 0, 1024, 1024, 0, 0, 1, 0]);
    let flush = vm.gpu.push(flush, &[0, 0, 1024, 1024, 1, 0]);
    vm.gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    vm.display.resume();
    let tickets = tickets.into_iter();
    for ticket in tickets.chain([transfer.unwrap(), flush.unwrap()]) {
        ok(vm.gpu.control.wait(ticket));
    }
    let shown = |d: &frontend::gpu::Display| {
        let surface = d.surface(0).ok()?;
        let is_there = |x, y| Some(surface.rgb(x, y)? == last(x, y));
        (is_there(1, 0)? && is_there(1023, 1023)?).then_some(())
    };
    vm.display.wait("the last picture", shown).unwrap();
    assert_shows(&vm.display, 0, size, last);
    vm.finish();
}

#[test]
fn any_layout_of_a_request_is_the_same() {
    let layouts = [
        Layout::Plain,
        Layout::Pieces(24),
        Layout::Pieces(7),
        Layout::Indirect,
        Layout::IndirectPieces(1),
        Layout::IndirectPieces(13),
    ];
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(48, 48)]));
    assert_ne!(
        vm.gpu.features() & 1 << 28,
        0,
        "INDIRECT_DESC is not offered"
    );
    for (id, layout) in (1..).zip(layouts) {
        vm.gpu.control.layout = layout;
        ok(vm.gpu.create_2d(id, XRGB, 16, 16));
        let backing = Backing::new(vm.gpu.memory(), 16 * 16 * 4, Pieces::Whole);
        backing.write(0, &picture(XRGB, (16, 16), pattern));
        ok(vm.gpu.attach_backing(id, &backing.entries));
        ok(vm.gpu.transfer_to_host_2d(id, Rect::sized(16, 16), 0));
        show(&mut vm, id, Rect::sized(16, 16));
        assert_shows(&vm.display, 0, (16, 16), pattern);
        answered(vm.gpu.unref(1000), ResponseKind::ErrInvalidResourceId);
    }
    vm.gpu.control.layout = Layout::IndirectPieces(50);
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(48, 48)
    );
    vm.finish();
}

#[test]
fn it_works_with_and_without_each_ring_feature() {
    for features in [0, 1 << 28, 1 << 29, 3 << 28] {
        let options = GpuOptions {
            features,
            ..GpuOptions::default()
        };
        let mut vm = GpuVm::with(DisplayOptions::default(), options);
        assert_eq!(
            vm.gpu.features() & (3 << 28),
            features,
            "EVENT_IDX or INDIRECT is not offered"
        );
        // Far more than the queue has entries: the indices wrap.
        for round in 0..300 {
            ok(vm.gpu.create_2d(round + 1, XRGB, 4, 4));
        }
        vm.finish();
    }
}

#[test]
fn commands_of_one_kick_are_all_done_with_few_notifications() {
    for features in [0, 1 << 29] {
        let options = GpuOptions {
            features,
            ..GpuOptions::default()
        };
        let mut vm = GpuVm::with(DisplayOptions::default(), options);
        let before = vm.gpu.control.queue.notifications().unwrap();
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
        let mut tickets = HashSet::new();
        for id in 1..=30 {
            let ticket = vm.gpu.push(command, &[id, XRGB as u32, 4, 4]).unwrap();
            tickets.insert(format!("{ticket:?}"));
        }
        assert_eq!(tickets.len(), 30);
        if features != 0 {
            // Asks for one notification, at the last.
            vm.gpu.control.queue.set_used_event(29).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        let all = || "30 used chains".to_string();
        let deadline = frontend::Deadline::default();
        let queue = &vm.gpu.control.queue;
        deadline
            .until(all(), || Ok((queue.used_index()? == 30).then_some(())))
            .unwrap();
        for _ in 0..30 {
            let (_, response) = vm.gpu.control.next_response().unwrap();
            assert_eq!(response.kind, ResponseKind::OkNodata);
        }
        std::thread::sleep(Duration::from_millis(20));
        let notified = vm.gpu.control.queue.notifications().unwrap() - before;
        match features {
            0 => assert!((1..=30).contains(&notified), "{notified} notifications"),
            // A device that has never notified before may do so once more.
            _ => assert!((1..=2).contains(&notified), "{notified} notifications"),
        }
        vm.finish();
    }
}

#[test]
fn no_notification_comes_where_none_is_wanted() {
    let options = GpuOptions {
        features: 0,
        ..GpuOptions::default()
    };
    let mut vm = GpuVm::with(DisplayOptions::default(), options);
    vm.gpu.control.queue.suppress_notifications(true).unwrap();
    let before = vm.gpu.control.queue.notifications().unwrap();
    let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    vm.gpu.push(create, &[1, XRGB as u32, 4, 4]).unwrap();
    vm.gpu.control.queue.submit().unwrap();
    let queue = &vm.gpu.control.queue;
    let deadline = frontend::Deadline::default();
    deadline
        .until("a used chain", || {
            Ok((queue.used_index()? == 1).then_some(()))
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(vm.gpu.control.queue.notifications().unwrap(), before);
    vm.gpu.control.queue.suppress_notifications(false).unwrap();
    vm.gpu.control.next_response().unwrap();
    ok(vm.gpu.unref(1));
    vm.finish();
}

/// Chains no driver makes: the device answers what it can and lives.
#[test]
fn broken_chains_do_not_stop_the_device() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let page = memory.alloc(4096, 4096).unwrap();
    let request = vm.gpu.request(
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
        &[1, 0],
    );
    memory.write(page, &request).unwrap();
    let len = request.len() as u32;
    let outside = memory.end();
    let chains: [&[Buffer]; 9] = [
        // Too short for a header, and with nothing to read at all.
        &[Buffer::readable(page, 3), Buffer::writable(page + 512, 24)],
        &[Buffer::writable(page + 512, 24)],
        // No room for the answer.
        &[Buffer::readable(page, len)],
        &[Buffer::readable(page, len), Buffer::writable(page + 512, 4)],
        // Empty pieces.
        &[Buffer::readable(page, 0), Buffer::writable(page + 512, 0)],
        // Written before read.
        &[
            Buffer::writable(page + 512, 24),
            Buffer::readable(page, len),
        ],
        // Outside the memory.
        &[
            Buffer::readable(outside, len),
            Buffer::writable(page + 512, 24),
        ],
        &[Buffer::readable(page, len), Buffer::writable(outside, 24)],
        &[
            Buffer::readable(u64::MAX - 8, len),
            Buffer::writable(page + 512, 24),
        ],
    ];
    for chain in chains {
        let queue = &mut vm.gpu.control.queue;
        queue.add(chain).unwrap();
        queue.submit().unwrap();
        // A chain that makes no sense may be given back or not.
        std::thread::sleep(Duration::from_millis(5));
        while queue.take_used().unwrap().is_some() {}
    }
    assert!(
        vm.program.try_exit().unwrap().is_none(),
        "the program ended"
    );

    // A new driver finds a device that works.
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    vm.finish();
}

#[test]
fn an_available_index_that_runs_away_costs_no_time_and_no_log() {
    let mut vm = GpuVm::start();
    let before = vm.program.cpu_time().unwrap();
    for _ in 0..100 {
        let queue = &mut vm.gpu.control.queue;
        queue.force_available_index(40_000).unwrap();
        queue.kick().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    let used = vm.program.cpu_time().unwrap() - before;
    assert!(
        used < Duration::from_millis(200),
        "it used {used:?} for nothing"
    );
    let lines = vm.program.stderr().lines().count();
    assert!(lines < 50, "{}", vm.program.stderr());

    // A new driver finds a device that works.
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    vm.finish();
}

/// Scanout 0 shows this part of the resource, and does so once this returns.
fn show(vm: &mut GpuVm, id: u32, rect: Rect) {
    let before = vm.display.lock().of(Request::Update).count();
    ok(vm.gpu.set_scanout(0, id, rect));
    ok(vm.gpu.flush(id, rect));
    vm.display.wait_count(Request::Update, before + 1).unwrap();
}
