// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Pictures: the display shows what the guest draws.

use super::*;

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
fn scattered_backing_is_gathered() {
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
fn transfer_takes_exactly_its_rectangle() {
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
fn transfer_reads_from_its_offset() {
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
fn scanout_shows_its_part_of_the_resource() {
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
fn flush_is_clipped_to_the_scanout_and_sent_in_its_coordinates() {
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
fn scanout_is_disabled_by_resource_0_and_by_unref() {
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
fn resource_keeps_its_picture_without_its_backing() {
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
fn cursor_is_drawn_moved_and_hidden() {
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
