// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drawing: pictures are read back and shown.

use super::*;

#[test]
fn driver_finds_the_capability_sets() {
    let mut vm = start();
    assert_ne!(vm.gpu.features() & 1 << v::VIRTIO_GPU_F_VIRGL, 0);
    let (_, capsets) = vm.gpu.config().unwrap();
    assert_eq!(capsets, 2, "virgl and virgl2");
    for (index, id) in [v::VIRTIO_GPU_CAPSET_VIRGL, v::VIRTIO_GPU_CAPSET_VIRGL2]
        .into_iter()
        .enumerate()
    {
        let info = answered(vm.gpu.capset_info(index as u32), ResponseKind::OkCapsetInfo);
        let word = |n: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| info.body[4 * n + i]));
        let (version, size) = (word(1), word(2));
        assert_eq!(word(0), id);
        assert!(
            version >= 1 && size > 300,
            "version {version}, {size} bytes"
        );
        let set = answered(vm.gpu.capset(id, version, size), ResponseKind::OkCapset);
        assert_eq!(set.body.len(), size as usize);
        let max_version = u32::from_le_bytes([0, 1, 2, 3].map(|i| set.body[i]));
        assert_eq!(max_version, version);
        let newer = vm.gpu.capset(id, version + 1, size);
        answered(newer, ResponseKind::ErrInvalidParameter);
        // Less room than it takes.
        answered(
            vm.gpu.capset(id, version, size - 1),
            ResponseKind::ErrUnspec,
        );
    }
    for index in [2, u32::MAX] {
        answered(vm.gpu.capset_info(index), ResponseKind::ErrInvalidParameter);
    }
    for id in [0, 3, 4, u32::MAX] {
        answered(
            vm.gpu.capset(id, 0, 2000),
            ResponseKind::ErrInvalidParameter,
        );
    }
    vm.finish();
}

#[test]
fn clear_is_read_back() {
    let size = (61, 37);
    let (mut vm, backing) = with_picture(size);
    for (color, expected) in [
        (GREEN, [0, 255, 0]),
        ([1.0, 0.0, 1.0], [255, 0, 255]),
        ([0.2, 0.4, 0.6], [51, 102, 153]),
    ] {
        ok(vm.gpu.submit_3d(CONTEXT, &clear(color)));
        let pixels = read_back(&mut vm.gpu, &backing, size);
        assert!(pixels.iter().all(|p| *p == expected), "{color:?}");
    }
    vm.finish();
}

/// What is right about the triangle wherever its edges are rounded to.
fn assert_triangle(pixels: &[[u8; 3]], (width, height): (u32, u32)) {
    let at = |x: u32, y: u32| pixels[(y * width + x) as usize];
    let near = |a: [u8; 3], b: [u8; 3]| a.iter().zip(b).all(|(a, b)| a.abs_diff(b) < 12);
    let (right, bottom) = (width - 1, height - 1);
    for (x, y) in [(0, 0), (right, 0), (width / 4, height / 4)] {
        assert_eq!(at(x, y), [0, 255, 0], "outside, at {x}, {y}");
    }
    assert!(near(at(2, bottom), [255, 0, 0]), "{:?}", at(2, bottom));
    assert!(near(at(right - 2, bottom), [0, 0, 255]));
    assert!(
        near(at(width / 2, 4), [255, 255, 255]),
        "{:?}",
        at(width / 2, 4)
    );
    assert!(near(at(width / 2, bottom), [127, 0, 127]));
    let inside = pixels.iter().filter(|p| **p != [0, 255, 0]).count() as u32;
    let half = width * height / 2;
    assert!(inside.abs_diff(half) < width + height, "{inside} pixels");
}

#[test]
fn triangle_is_read_back_and_shown() {
    let size = (200, 160);
    let (mut vm, backing) = with_picture(size);
    vertices_in(&mut vm.gpu);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.submit_3d(CONTEXT, &triangle(size)));
    let pixels = read_back(&mut vm.gpu, &backing, size);
    assert_triangle(&pixels, size);

    ok(vm.gpu.set_scanout(0, PICTURE, Rect::sized(200, 160)));
    ok(vm.gpu.flush(PICTURE, Rect::sized(200, 160)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, |x, y| pixels[(y * 200 + x) as usize]);
    vm.finish();
}

#[test]
fn display_shows_only_what_is_flushed() {
    let size = (64, 64);
    let whole = Rect::sized(64, 64);
    let (mut vm, _backing) = with_picture(size);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.set_scanout(0, PICTURE, whole));
    // The first flush brings all of it, however little is flushed.
    ok(vm.gpu.flush(PICTURE, Rect::sized(1, 1)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, |_, _| [0, 255, 0]);
    vm.display.lock().forget();

    ok(vm.gpu.submit_3d(CONTEXT, &clear([1.0, 0.0, 0.0])));
    ok(vm.gpu.flush(PICTURE, Rect::new(8, 16, 24, 32)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    let inside = |x, y| (8..32).contains(&x) && (16..48).contains(&y);
    let color = |x, y| {
        if inside(x, y) {
            [255, 0, 0]
        } else {
            [0, 255, 0]
        }
    };
    assert_shows(&vm.display, 0, size, color);
    let sent: Vec<_> = vm
        .display
        .lock()
        .of(Request::Update)
        .map(|u| u.rect())
        .collect();
    assert_eq!(sent, [Rect::new(8, 16, 24, 32)]);

    // A flush of what did not change sends nothing.
    ok(vm.gpu.flush(PICTURE, Rect::new(8, 16, 24, 32)));
    ok(vm.gpu.flush(PICTURE, whole));
    vm.display.wait_count(Request::Update, 2).unwrap();
    assert_shows(&vm.display, 0, size, |_, _| [255, 0, 0]);
    vm.finish();
}

#[test]
fn pictures_from_guest_memory_are_shown_and_drawn_over() {
    let size = (50, 30);
    let whole = Rect::sized(50, 30);
    let mut vm = start();
    // As a console before anything draws in 3D.
    let _backing = vm.painted(PICTURE, Format::B8G8R8X8, size);
    ok(vm.gpu.set_scanout(0, PICTURE, whole));
    ok(vm.gpu.flush(PICTURE, whole));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, pattern);

    ok(vm.gpu.create_context(CONTEXT, ""));
    ok(vm.gpu.context_attach(CONTEXT, PICTURE));
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.flush(PICTURE, whole));
    vm.display.wait_count(Request::Update, 2).unwrap();
    assert_shows(&vm.display, 0, size, |_, _| [0, 255, 0]);
    vm.finish();
}

/// As in 2D, where the library has no such format, too.
#[test]
fn all_2d_formats_show_the_same_picture() {
    let mut vm = start();
    for (id, format) in (1..).zip(Format::ALL) {
        let size = (33, 17);
        let whole = Rect::sized(33, 17);
        let backing = vm.painted(id, format, size);
        ok(vm.gpu.set_scanout(0, id, whole));
        ok(vm.gpu.flush(id, whole));
        vm.display.wait_count(Request::Update, 1).unwrap();
        assert_shows(&vm.display, 0, size, pattern);

        vm.display.lock().forget();
        backing.write(0, &picture(format, size, negative));
        let part = Rect::new(5, 3, 20, 9);
        let offset = u64::from((part.y * size.0 + part.x) * 4);
        ok(vm.gpu.transfer_to_host_2d(id, part, offset));
        ok(vm.gpu.flush(id, whole));
        vm.display.wait_count(Request::Update, 1).unwrap();
        assert_shows(&vm.display, 0, size, |x, y| {
            let inside = (5..25).contains(&x) && (3..12).contains(&y);
            if inside {
                negative(x, y)
            } else {
                pattern(x, y)
            }
        });
        vm.display.lock().forget();
    }
    vm.finish();
}

/// As Windows' driver makes them: the library is given the rows with their own pages only.
#[test]
fn large_2d_texture_in_single_pages_is_drawn_right() {
    let size @ (width, height) = (6016, 3384);
    let memory = Memory::new(&[(1 << 30, 112 << 20)]).unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let program = virgl_command().spawn().unwrap();
    let mut vm = GpuVm::in_memory(program, display, GpuOptions::virgl(), &memory);
    let pages = ScatteredPages::new(&memory, width * height * 4);
    assert!(pages.entries.len() > 16384);
    ok(vm.gpu.create_2d(PICTURE, Format::B8G8R8X8, width, height));
    ok(vm.gpu.attach_backing(PICTURE, &pages.entries));
    let whole = Rect::sized(width, height);
    ok(vm.gpu.transfer_to_host_2d(PICTURE, whole, 0));
    ok(vm.gpu.set_scanout(0, PICTURE, whole));
    ok(vm.gpu.flush(PICTURE, whole));
    vm.display
        .wait("the picture", |d| {
            let last = d.surface(0).ok()?.rgb(width - 1, height - 1)?;
            (last != [0; 3]).then_some(())
        })
        .unwrap();
    pages.assert_shown(&vm.display, size);
    ok(vm.gpu.detach_backing(PICTURE));
    vm.finish_within(Duration::from_secs(60));
}

#[test]
fn cursors_of_all_2d_formats_look_the_same() {
    let mut vm = start();
    for (id, format) in (1..).zip(Format::ALL) {
        vm.painted(id, format, (64, 64));
        vm.gpu.update_cursor(0, (id, 2), id, (1, 2)).unwrap();
        let shaped = |d: &frontend::gpu::Display| (d.cursor.position == (id, 2)).then_some(());
        vm.display.wait("the cursor", shaped).unwrap();
        let display = vm.display.lock();
        let expected = picture(Format::B8G8R8A8, (64, 64), pattern);
        let pixels = display.cursor.pixels.chunks_exact(4);
        for (n, (pixel, expected)) in pixels.zip(expected.chunks_exact(4)).enumerate() {
            assert_eq!(pixel[..3], expected[..3], "{format:?} at {n}");
            // What an X is as an alpha is nobody's to say.
            let has_alpha = format.pixel(0, 0, 0, 0x11).contains(&0x11);
            assert!(!has_alpha || pixel[3] == expected[3], "{format:?} at {n}");
        }
    }
    vm.finish();
}

#[test]
fn part_of_the_backing_is_uploaded_where_it_belongs() {
    let size = (40, 20);
    let (mut vm, backing) = with_picture(size);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    // 4 by 3 pixels, rows 32 bytes apart, from byte 16 on.
    let mut bytes = vec![0; 16 + 2 * 32 + 16];
    for (y, x) in (0..3).flat_map(|y| (0..4).map(move |x| (y, x))) {
        let at = 16 + y * 32 + x * 4;
        bytes[at..at + 4].copy_from_slice(&[y as u8, x as u8, 7, 0]);
    }
    backing.write(0, &bytes);
    ok(vm.gpu.transfer_to_host_3d(
        CONTEXT,
        Transfer3d {
            offset: 16,
            stride: 32,
            ..Transfer3d::of(PICTURE, Rect::new(5, 9, 4, 3))
        },
    ));
    let pixels = read_back(&mut vm.gpu, &backing, size);
    for (n, pixel) in pixels.into_iter().enumerate() {
        let (x, y) = (n % 40, n / 40);
        let inside = (5..9).contains(&x) && (9..12).contains(&y);
        let expected = if inside {
            [7, (x - 5) as u8, (y - 9) as u8]
        } else {
            [0, 255, 0]
        };
        assert_eq!(pixel, expected, "at {x}, {y}");
    }
    vm.finish();
}

#[test]
fn cursor_is_drawn_in_3d() {
    let size = (64, 64);
    let (mut vm, _backing) = with_picture(size);
    ok(vm.gpu.create_3d(
        3,
        Create3d {
            // VIRGL_FORMAT_B8G8R8A8_UNORM.
            format: 1,
            ..Create3d::picture(64, 64)
        },
    ));
    ok(vm.gpu.context_attach(CONTEXT, 3));
    ok(vm.gpu.submit_3d(
        CONTEXT,
        &Stream::default().draw_to(9, 3).clear([1.0, 0.0, 0.0]),
    ));
    vm.gpu.update_cursor(0, (10, 20), 3, (1, 2)).unwrap();
    vm.display.wait_count(Request::CursorUpdate, 1).unwrap();
    let display = vm.display.lock();
    assert_eq!(display.cursor.position, (10, 20));
    let mut words = display.cursor.pixels.chunks_exact(4);
    assert!(words.all(|w| u32::from_ne_bytes([w[0], w[1], w[2], w[3]]) == 0xffff_0000));
    drop(display);
    vm.finish();
}
