// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Blob resources: displays show the guest's memory, of which the program has no copy.

use frontend::gpu::Framebuffer;

use super::*;

fn start() -> GpuVm {
    GpuVm::with(DisplayOptions::default(), GpuOptions::with_blobs())
}

/// A framebuffer without gaps at the beginning of a blob.
fn framebuffer(format: Format, size: (u32, u32)) -> Framebuffer {
    Framebuffer {
        format,
        size,
        stride: size.0 * 4,
        offset: 0,
    }
}

/// A blob that holds `size` pixels of test pattern.
fn blob(vm: &mut GpuVm, id: u32, size: (u32, u32), pieces: Pieces) -> Backing {
    let len = size.0 * size.1 * 4;
    let backing = Backing::new(vm.gpu.memory(), len, pieces);
    backing.write(0, &picture(XRGB, size, pattern));
    ok(vm.gpu.create_blob(id, len.into(), &backing.entries));
    backing
}

#[test]
fn displays_show_what_the_guest_writes() {
    let mut vm = start();
    assert_ne!(vm.gpu.features() & 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB, 0);
    let size = (67, 29);
    let whole = Rect::sized(67, 29);
    for (id, pieces) in (1..).zip([Pieces::Whole, Pieces::Pages, Pieces::Odd]) {
        let backing = blob(&mut vm, id, size, pieces);
        let layout = framebuffer(XRGB, size);
        ok(vm.gpu.set_scanout_blob(0, id, whole, &layout));
        let before = vm.display.lock().of(Request::Update).count();
        ok(vm.gpu.flush(id, whole));
        vm.display.wait_count(Request::Update, before + 1).unwrap();
        assert_shows(&vm.display, 0, size, pattern);
        // Without a transfer, and where it is flushed.
        backing.write(0, &picture(XRGB, size, negative));
        ok(vm.gpu.flush(id, Rect::new(5, 7, 60, 20)));
        vm.display.wait_count(Request::Update, before + 2).unwrap();
        assert_shows(&vm.display, 0, size, |x, y| match (x, y) {
            (5..65, 7..27) => negative(x, y),
            _ => pattern(x, y),
        });
    }
    vm.finish();
}

#[test]
fn all_formats_show_the_same_picture_at_any_offset_and_stride() {
    let mut vm = start();
    let size = (33, 17);
    let part = Rect::new(3, 2, 20, 15);
    for (id, format) in (1..).zip(Format::ALL) {
        let layout = Framebuffer {
            stride: 33 * 4 + id,
            offset: 1000 + id * 3,
            ..framebuffer(format, size)
        };
        let len = layout.offset + layout.stride * size.1;
        let backing = Backing::new(vm.gpu.memory(), len, Pieces::Odd);
        let pixels = picture(format, size, pattern);
        for (y, row) in (0..).zip(pixels.chunks(33 * 4)) {
            backing.write((layout.offset + y * layout.stride) as usize, row);
        }
        ok(vm.gpu.create_blob(id, len.into(), &backing.entries));
        ok(vm.gpu.set_scanout_blob(0, id, part, &layout));
        ok(vm.gpu.flush(id, Rect::sized(33, 17)));
        vm.display.wait_count(Request::Update, id as usize).unwrap();
        assert_shows(&vm.display, 0, (20, 15), |x, y| pattern(x + 3, y + 2));
    }
    vm.finish();
}

/// Its front-end may hide the feature, as that of QEMU's vhost-user-gpu-pci does.
#[test]
fn driver_without_the_feature_has_no_blobs() {
    let mut vm = GpuVm::start();
    assert_eq!(vm.gpu.features() & 1 << v::VIRTIO_GPU_F_RESOURCE_BLOB, 0);
    let backing = Backing::new(vm.gpu.memory(), 4096, Pieces::Whole);
    let created = vm.gpu.create_blob(1, 4096, &backing.entries);
    answered(created, ResponseKind::ErrUnspec);
    let unknown = vm.gpu.flush(1, Rect::sized(1, 1));
    answered(unknown, ResponseKind::ErrInvalidResourceId);
    vm.painted(1, XRGB, (32, 32));
    let layout = framebuffer(XRGB, (32, 32));
    let set = vm.gpu.set_scanout_blob(0, 1, Rect::sized(32, 32), &layout);
    answered(set, ResponseKind::ErrUnspec);
    vm.finish();
}

/// More than the program may have for resources, and more than the socket takes at once.
#[test]
fn large_picture_takes_no_memory_of_the_host() {
    let program = gpu_command(SocketForm::Connected(7))
        .arg("--max-hostmem=2M")
        .spawn()
        .unwrap();
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let memory = Memory::new(&[(0x10_0000, 20 << 20)]).unwrap();
    let mut vm = GpuVm::in_memory(program, display, GpuOptions::with_blobs(), &memory);
    let size = (800, 600);
    let whole = Rect::sized(size.0, size.1);
    let layout = framebuffer(XRGB, size);
    for id in 1..8 {
        blob(&mut vm, id, size, Pieces::Pages);
        ok(vm.gpu.set_scanout_blob(id, id, whole, &layout));
    }
    let no_room = vm.gpu.create_2d(9, XRGB, size.0, 2 * size.1);
    answered(no_room, ResponseKind::ErrOutOfMemory);
    for id in 1..8 {
        ok(vm.gpu.flush(id, whole));
        vm.display.wait_count(Request::Update, id as usize).unwrap();
    }
    for id in 1..8 {
        assert_shows(&vm.display, id, size, pattern);
    }
    // What a display has to take is bounded still.
    let tall = framebuffer(XRGB, (800, 1200));
    let backing = Backing::new(vm.gpu.memory(), 4096, Pieces::Whole);
    let len = u64::from(tall.stride) * 1200;
    ok(vm.gpu.create_blob(9, len, &backing.entries));
    let set = vm.gpu.set_scanout_blob(0, 9, Rect::sized(800, 1200), &tall);
    answered(set, ResponseKind::ErrOutOfMemory);
    vm.finish();
}

#[test]
fn display_that_reads_late_shows_the_last_flush() {
    let options = DisplayOptions {
        buffer: Some(8192),
        ..DisplayOptions::default()
    };
    let mut vm = GpuVm::with(options, GpuOptions::with_blobs());
    // More than the socket takes.
    let size = (600, 400);
    let whole = Rect::sized(size.0, size.1);
    let layout = framebuffer(XRGB, size);
    let backing = blob(&mut vm, 1, size, Pieces::Odd);
    ok(vm.gpu.set_scanout_blob(0, 1, whole, &layout));
    ok(vm.gpu.flush(1, whole));
    vm.display.wait_count(Request::Update, 1).unwrap();
    let unserved = vm.display.lock();
    ok(vm.gpu.flush(1, whole));
    // The message is cut: a part of it was sent, of a picture that is gone.
    for _ in 0..5 {
        backing.write(0, &picture(XRGB, size, negative));
        ok(vm.gpu.flush(1, whole));
        backing.write(0, &picture(XRGB, size, pattern));
        ok(vm.gpu.flush(1, whole));
    }
    drop(unserved);
    vm.display
        .wait("the last picture", |display| {
            let surface = display.surface(0).ok()?;
            let expected = picture(XRGB, size, pattern);
            let pairs = surface.pixels.chunks(4).zip(expected.chunks(4));
            let is_shown = pairs.into_iter().all(|(a, b)| a[..3] == b[..3]);
            (surface.pixels.len() == expected.len() && is_shown).then_some(())
        })
        .unwrap();
    vm.finish();
}

/// The guest may use the memory for anything else then.
#[test]
fn message_under_way_shows_nothing_of_memory_that_was_taken_back() {
    let options = DisplayOptions {
        buffer: Some(8192),
        ..DisplayOptions::default()
    };
    let mut vm = GpuVm::with(options, GpuOptions::with_blobs());
    // More than the socket takes.
    let size = (600, 400);
    let whole = Rect::sized(size.0, size.1);
    let backing = blob(&mut vm, 1, size, Pieces::Pages);
    let layout = framebuffer(XRGB, size);
    ok(vm.gpu.set_scanout_blob(0, 1, whole, &layout));
    ok(vm.gpu.flush(1, whole));
    vm.display.wait_count(Request::Update, 1).unwrap();
    let unserved = vm.display.lock();
    ok(vm.gpu.flush(1, whole));
    ok(vm.gpu.detach_backing(1));
    backing.write(0, &[0xa5; 600 * 400 * 4]);
    answered(vm.gpu.flush(1, whole), ResponseKind::ErrUnspec);
    drop(unserved);
    vm.display.wait_count(Request::Update, 2).unwrap();
    let display = vm.display.lock();
    let pixels = &display.surface(0).unwrap().pixels;
    assert!(pixels.chunks(4).all(|pixel| pixel != [0xa5; 4]));
    assert!(pixels.ends_with(&[0; 100_000]));
    drop(display);
    vm.finish();
}

/// QEMU's generic device would give the guest a region into which nothing is ever mapped.
#[test]
fn no_region_is_offered_without_vulkan() {
    use frontend::VhostUserProtocolFeatures as Protocol;

    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = session.negotiate(Protocol::all()).unwrap();
    let offered = offer.protocol_features;
    assert!(offered.contains(Protocol::CONFIG), "{offered:?}");
    let none = Protocol::SHMEM | Protocol::BACKEND_REQ;
    assert!(!offered.intersects(none), "{offered:?}");
    drop(session);
    assert_clean_exit(&mut program);
}
