//! vhost-user-gpu in 3D, over its socket: virgl command streams are drawn, read back and shown,
//! on a host without a GPU (Mesa's llvmpipe).

#![cfg(feature = "virgl")]

mod common;

use std::time::{Duration, Instant};

use common::*;
use frontend::gpu::{
    Corner, Create3d, DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request,
    ResponseKind, Stream, Transfer3d,
};
use frontend::{Command, Program, SocketForm};

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

#[test]
fn the_driver_finds_the_sets_of_capabilities() {
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
fn a_clear_is_read_back() {
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
fn a_triangle_is_read_back_and_shown() {
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
fn only_what_is_flushed_is_shown() {
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
fn pictures_of_the_guest_are_shown_and_drawn_over() {
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

#[test]
fn a_part_of_the_backing_is_uploaded_where_it_belongs() {
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
fn a_cursor_is_drawn_in_3d() {
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

#[test]
fn fences_are_answered_in_their_order() {
    let (mut vm, _backing) = with_picture((256, 256));
    let mut tickets = Vec::new();
    for id in 0..100_u64 {
        vm.gpu.fence_next(1000 + id);
        let ticket = vm.gpu.push_submit_3d(CONTEXT, &clear(GREEN)).unwrap();
        tickets.push((ticket, 1000 + id));
    }
    vm.gpu.control.queue.submit().unwrap();
    for (ticket, id) in tickets {
        let (answered, response) = vm.gpu.control.next_response().unwrap();
        assert_eq!(answered, ticket);
        assert_eq!(response.kind, ResponseKind::OkNodata);
        assert!(response.has_fence(id), "fence {id}: {response:?}");
    }
    // What is refused is answered at once, with its fence.
    vm.gpu.fence_next(7);
    let refused = answered(
        vm.gpu.submit_3d(99, &clear(GREEN)),
        ResponseKind::ErrInvalidContextId,
    );
    assert!(refused.has_fence(7));
    vm.finish();
}

#[test]
fn contexts_and_resources_are_known_by_their_ids() {
    use ResponseKind::{ErrInvalidContextId as NoContext, ErrInvalidResourceId as NoResource};
    let (mut vm, _backing) = with_picture((8, 8));
    let gpu = &mut vm.gpu;
    answered(gpu.create_context(0, ""), NoContext);
    answered(gpu.create_context(CONTEXT, ""), NoContext);
    answered(gpu.destroy_context(0), NoContext);
    answered(gpu.destroy_context(2), NoContext);
    answered(gpu.context_attach(2, PICTURE), NoContext);
    answered(gpu.context_attach(CONTEXT, 5), NoResource);
    answered(gpu.context_detach(CONTEXT, 5), NoResource);
    answered(gpu.context_detach(u32::MAX, PICTURE), NoContext);
    answered(gpu.submit_3d(2, &clear(GREEN)), NoContext);
    answered(gpu.create_3d(0, Create3d::picture(8, 8)), NoResource);
    answered(gpu.create_3d(PICTURE, Create3d::picture(8, 8)), NoResource);
    answered(gpu.create_2d(PICTURE, Format::B8G8R8X8, 8, 8), NoResource);
    let part = Transfer3d::of(PICTURE, Rect::sized(8, 8));
    answered(gpu.transfer_to_host_3d(2, part), NoContext);
    let nowhere = Transfer3d {
        resource: 5,
        ..part
    };
    answered(gpu.transfer_from_host_3d(CONTEXT, nowhere), NoResource);
    answered(gpu.unref(5), NoResource);
    // Names as long as they may be, and longer.
    ok(gpu.create_context(7, &"x".repeat(64)));
    answered(
        gpu.create_context(8, &"x".repeat(65)),
        ResponseKind::ErrInvalidParameter,
    );
    // Attached and detached twice, and gone while attached.
    ok(gpu.context_attach(7, PICTURE));
    ok(gpu.context_attach(7, PICTURE));
    ok(gpu.context_detach(7, PICTURE));
    ok(gpu.context_detach(7, PICTURE));
    ok(gpu.context_attach(7, PICTURE));
    ok(gpu.unref(PICTURE));
    ok(gpu.destroy_context(7));
    answered(gpu.submit_3d(7, &clear(GREEN)), NoContext);
    vm.finish();
}

#[test]
fn there_are_no_more_contexts_than_the_bound() {
    let mut vm = start();
    for id in 1..=256 {
        ok(vm.gpu.create_context(id, ""));
    }
    for id in [257, u32::MAX] {
        answered(vm.gpu.create_context(id, ""), ResponseKind::ErrOutOfMemory);
    }
    // Each that goes makes room for one.
    ok(vm.gpu.destroy_context(7));
    ok(vm.gpu.create_context(257, ""));
    answered(vm.gpu.create_context(7, ""), ResponseKind::ErrOutOfMemory);
    vm.finish();
}

/// virglrenderer complains of what a guest sends, each time.
#[test]
fn a_guest_cannot_flood_the_log_by_the_library() {
    let mut vm = start();
    let nowhere = Stream::default().draw_to(SURFACE, 77);
    for id in 1..=200 {
        // A context refuses what follows an error without a word.
        ok(vm.gpu.create_context(id, ""));
        let refused = vm.gpu.submit_3d(id, &nowhere);
        answered(refused, ResponseKind::ErrInvalidParameter);
    }
    let log = vm.program.stderr();
    let said = log.lines().filter(|line| line.contains("virglrenderer: "));
    let said = said.count();
    // Ten in ten seconds.
    assert!((1..60).contains(&said), "{said} lines: {log}");
    vm.finish();
}

#[test]
fn resources_out_of_bounds_are_refused() {
    let (mut vm, _backing) = with_picture((8, 8));
    let good = Create3d::picture(64, 64);
    let wrong = [
        Create3d { target: 9, ..good },
        Create3d {
            target: u32::MAX,
            ..good
        },
        Create3d {
            format: 100_000,
            ..good
        },
        Create3d {
            format: u32::MAX,
            ..good
        },
        Create3d { width: 0, ..good },
        Create3d { height: 0, ..good },
        Create3d {
            width: 16385,
            ..good
        },
        Create3d {
            height: u32::MAX,
            ..good
        },
        Create3d { depth: 0, ..good },
        Create3d { depth: 2, ..good },
        Create3d {
            depth: u32::MAX,
            ..good
        },
        Create3d {
            array_size: u32::MAX,
            ..good
        },
        Create3d {
            last_level: 20,
            ..good
        },
        Create3d {
            last_level: u32::MAX,
            ..good
        },
        Create3d {
            nr_samples: u32::MAX,
            ..good
        },
        Create3d {
            flags: u32::MAX,
            ..good
        },
        Create3d { bind: 0, ..good },
        Create3d { target: 0, ..good },
        Create3d {
            width: u32::MAX,
            ..Create3d::vertices(1)
        },
    ];
    for new in wrong {
        let response = vm.gpu.create_3d(50, new).unwrap();
        assert_eq!(response.kind, ResponseKind::ErrInvalidParameter, "{new:?}");
        answered(vm.gpu.unref(50), ResponseKind::ErrInvalidResourceId);
    }
    // More than the VM's budget has: each may be a gigabyte, of a format that is not known to be
    // smaller (it is: VIRGL_FORMAT_R16_UINT).
    let huge = Create3d {
        format: 185,
        flags: 0,
        ..Create3d::picture(8192, 4096)
    };
    let mut made = 0;
    while made < 8 {
        let response = vm.gpu.create_3d(100 + made, huge).unwrap();
        if response.kind == ResponseKind::ErrOutOfMemory {
            break;
        }
        assert_eq!(response.kind, ResponseKind::OkNodata);
        made += 1;
    }
    assert!((1..8).contains(&made), "{made} of them");
    for n in 0..made {
        ok(vm.gpu.unref(100 + n));
    }
    // It is there again.
    ok(vm.gpu.create_3d(100, huge));
    vm.finish();
}

#[test]
fn transfers_out_of_bounds_are_refused() {
    use ResponseKind::ErrInvalidParameter;
    let (mut vm, _pages) = with_picture((16, 16));
    // A backing that has not a byte too many.
    ok(vm.gpu.detach_backing(PICTURE));
    let backing = Backing::new(vm.gpu.memory(), 16 * 16 * 4, Pieces::Whole);
    ok(vm.gpu.attach_backing(PICTURE, &backing.entries));
    let good = Transfer3d::of(PICTURE, Rect::sized(16, 16));
    let part = |part: [u32; 6]| Transfer3d { part, ..good };
    let wrong = [
        part([0, 0, 0, 17, 16, 1]),
        part([0, 0, 0, 16, 17, 1]),
        part([0, 0, 0, 16, 16, 2]),
        part([0, 0, 0, 0, 16, 1]),
        part([1, 0, 0, 16, 16, 1]),
        part([u32::MAX, 0, 0, 2, 1, 1]),
        part([0, u32::MAX, 0, 1, 2, 1]),
        part([0, 0, u32::MAX, 1, 1, 2]),
        part([0, 0, u32::MAX, 1, 1, 1]),
        part([u32::MAX; 6]),
        Transfer3d { level: 1, ..good },
        Transfer3d {
            level: u32::MAX,
            ..good
        },
        Transfer3d { offset: 1, ..good },
        Transfer3d {
            offset: 16 * 16 * 4,
            ..good
        },
        Transfer3d {
            offset: 1 << 32,
            ..good
        },
        Transfer3d {
            offset: u64::MAX,
            ..good
        },
        Transfer3d { stride: 65, ..good },
        Transfer3d {
            stride: u32::MAX,
            ..good
        },
    ];
    for transfer in wrong {
        // A context that saw an error is of no more use.
        ok(vm.gpu.create_context(9, ""));
        ok(vm.gpu.context_attach(9, PICTURE));
        let to = vm.gpu.transfer_to_host_3d(9, transfer).unwrap();
        assert_eq!(to.kind, ErrInvalidParameter, "to the host: {transfer:?}");
        let from = vm.gpu.transfer_from_host_3d(9, transfer).unwrap();
        assert_eq!(
            from.kind, ErrInvalidParameter,
            "from the host: {transfer:?}"
        );
        ok(vm.gpu.destroy_context(9));
    }
    let nowhere = vm.gpu.transfer_to_host_3d(0, good);
    answered(nowhere, ResponseKind::ErrInvalidContextId);
    ok(vm.gpu.transfer_to_host_3d(CONTEXT, good));
    ok(vm.gpu.detach_backing(PICTURE));
    answered(
        vm.gpu.transfer_to_host_3d(CONTEXT, good),
        ResponseKind::ErrUnspec,
    );
    answered(
        vm.gpu.transfer_from_host_3d(CONTEXT, good),
        ResponseKind::ErrUnspec,
    );
    ok(vm.gpu.attach_backing(PICTURE, &backing.entries));
    ok(vm.gpu.transfer_from_host_3d(CONTEXT, good));
    vm.finish();
}

#[test]
fn broken_command_streams_are_refused() {
    use ResponseKind::ErrInvalidParameter;
    let (mut vm, backing) = with_picture((16, 16));
    vertices_in(&mut vm.gpu);
    let gpu = &mut vm.gpu;
    // Lengths that are not those of the stream.
    answered(gpu.submit_3d_raw(CONTEXT, 8, &[0]), ErrInvalidParameter);
    answered(gpu.submit_3d_raw(CONTEXT, 3, &[0]), ErrInvalidParameter);
    answered(
        gpu.submit_3d_raw(CONTEXT, u32::MAX, &[0]),
        ErrInvalidParameter,
    );
    answered(
        gpu.submit_3d_raw(CONTEXT, 1 << 30, &[0]),
        ErrInvalidParameter,
    );
    ok(gpu.submit_3d_raw(CONTEXT, 0, &[]));
    // Strides that would overflow what the library computes with.
    for (stride, layer_stride) in [(u32::MAX, 0), (0x1111_1112, 0), (64, u32::MAX)] {
        let depth = if layer_stride == 0 { 1 } else { 2 };
        let mut words = vec![PICTURE, 0, 0, stride, layer_stride, 0, 0, 0, 16, 16, depth];
        words.extend([0; 16]);
        let write = Stream::default().command(9, 0, &words);
        answered(gpu.submit_3d(CONTEXT, &write), ErrInvalidParameter);
        words.truncate(11);
        let transfer = Stream::default().command(43, 0, &[&words[..], &[0, 1]].concat());
        answered(gpu.submit_3d(CONTEXT, &transfer), ErrInvalidParameter);
    }
    // Commands that do not exist, that are longer than the stream, and cut ones. A context that saw
    // an error may refuse all that follows, so each gets its own.
    let mut context = 100;
    let mut submit = |gpu: &mut Gpu, stream: &Stream| {
        context += 1;
        ok(gpu.create_context(context, ""));
        ok(gpu.context_attach(context, PICTURE));
        ok(gpu.context_attach(context, VERTICES));
        let kind = gpu.submit_3d(context, stream).unwrap().kind;
        ok(gpu.destroy_context(context));
        kind
    };
    for word in [0xff, 0xffff_00ff, 0xffff_0001, 0x00ff_0007, u32::MAX] {
        assert_eq!(
            submit(gpu, &Stream(vec![word])),
            ErrInvalidParameter,
            "{word:#x}"
        );
    }
    let whole = Stream([clear(GREEN).0, triangle((16, 16)).0].concat());
    assert_eq!(submit(gpu, &whole), ResponseKind::OkNodata);
    let mut refused = 0;
    for len in 1..whole.0.len() {
        let kind = submit(gpu, &Stream(whole.0[..len].to_vec()));
        assert!(
            [ErrInvalidParameter, ResponseKind::OkNodata].contains(&kind),
            "cut to {len}: {kind:?}"
        );
        refused += usize::from(kind == ErrInvalidParameter);
    }
    assert!(
        refused > whole.0.len() / 2,
        "{refused} cut streams were refused"
    );
    // Any single word replaced. Not of the triangle: in what is drawn the host's GL driver believes
    // the stream, and Mesa 22.3 crashes without the vertices' buffer (docs/virgl.md).
    for at in 0..clear(GREEN).0.len() {
        for word in [0, u32::MAX, 0x7fff_ffff] {
            let mut stream = clear(GREEN);
            stream.0[at] = word;
            submit(gpu, &stream);
        }
    }
    // And all of it works as before.
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    let pixels = read_back(&mut vm.gpu, &backing, (16, 16));
    assert!(pixels.iter().all(|p| *p == [0, 255, 0]));
    vm.finish();
}

#[test]
fn what_is_no_picture_is_not_shown() {
    let (mut vm, _backing) = with_picture((64, 64));
    vertices_in(&mut vm.gpu);
    let depth = Create3d {
        // VIRGL_FORMAT_Z24X8_UNORM, VIRGL_BIND_DEPTH_STENCIL.
        format: 21,
        bind: 1,
        flags: 0,
        ..Create3d::picture(64, 64)
    };
    ok(vm.gpu.create_3d(3, depth));
    for (id, rect) in [(VERTICES, Rect::sized(64, 1)), (3, Rect::sized(64, 64))] {
        let shown = vm.gpu.set_scanout(0, id, rect);
        answered(shown, ResponseKind::ErrInvalidParameter);
        ok(vm.gpu.flush(id, rect));
    }
    ok(vm.gpu.set_scanout(0, PICTURE, Rect::sized(64, 64)));
    vm.finish();
}

#[test]
fn a_driver_without_the_feature_gets_no_3d() {
    let mut vm = start_with(GpuOptions::default());
    answered(vm.gpu.create_context(CONTEXT, ""), ResponseKind::ErrUnspec);
    let picture = Create3d::picture(8, 8);
    answered(vm.gpu.create_3d(PICTURE, picture), ResponseKind::ErrUnspec);
    answered(
        vm.gpu.submit_3d(CONTEXT, &clear(GREEN)),
        ResponseKind::ErrUnspec,
    );
    let size = (33, 17);
    vm.painted(PICTURE, Format::B8G8R8X8, size);
    ok(vm.gpu.set_scanout(0, PICTURE, Rect::sized(33, 17)));
    ok(vm.gpu.flush(PICTURE, Rect::sized(33, 17)));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, pattern);
    vm.finish();
}

#[test]
fn a_new_driver_finds_nothing_of_the_old_one() {
    let size = (32, 32);
    let (mut vm, _backing) = with_picture(size);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.gpu.restart(Some(socket)).unwrap();
    vm.display = display;
    // The same ids: the new driver counts from 1.
    let backing = picture_in(&mut vm.gpu, size);
    ok(vm.gpu.submit_3d(CONTEXT, &clear([1.0, 0.0, 0.0])));
    let pixels = read_back(&mut vm.gpu, &backing, size);
    assert!(pixels.iter().all(|p| *p == [255, 0, 0]));
    vm.finish();
}

#[test]
fn memory_that_is_mapped_anew_is_still_the_backing() {
    let size = (32, 32);
    let (mut vm, backing) = with_picture(size);
    let memory = vm.gpu.memory().clone();
    for color in [GREEN, [0.0, 0.0, 1.0]] {
        vm.gpu.session.set_memory(&memory).unwrap();
        ok(vm.gpu.submit_3d(CONTEXT, &clear(color)));
        let pixels = read_back(&mut vm.gpu, &backing, size);
        let expected = color.map(|c| (c * 255.0) as u8);
        assert!(pixels.iter().all(|p| *p == expected), "{color:?}");
    }
    vm.finish();
}

/// Resident memory of a process in KiB.
fn resident(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_thousand_rounds_leak_nothing() {
    let size = (64, 64);
    let mut vm = start();
    let backing = Backing::new(vm.gpu.memory(), 64 * 64 * 4, Pieces::Pages);
    let round = |vm: &mut GpuVm| {
        let gpu = &mut vm.gpu;
        ok(gpu.create_context(CONTEXT, "round"));
        ok(gpu.create_3d(PICTURE, Create3d::picture(64, 64)));
        ok(gpu.attach_backing(PICTURE, &backing.entries));
        ok(gpu.context_attach(CONTEXT, PICTURE));
        vertices_in(gpu);
        ok(gpu.submit_3d(CONTEXT, &clear(GREEN)));
        gpu.fence_next(1);
        ok(gpu.submit_3d(CONTEXT, &triangle(size)));
        ok(gpu.set_scanout(0, PICTURE, Rect::sized(64, 64)));
        ok(gpu.flush(PICTURE, Rect::sized(64, 64)));
        ok(gpu.unref(PICTURE));
        ok(gpu.unref(VERTICES));
        ok(gpu.destroy_context(CONTEXT));
        vm.display.lock().forget();
    };
    // What is kept for good is there after some of them.
    for _ in 0..200 {
        round(&mut vm);
    }
    let before = (
        resident(&vm.program),
        vm.program.open_descriptors().unwrap(),
    );
    for _ in 0..1000 {
        round(&mut vm);
    }
    let after = (
        resident(&vm.program),
        vm.program.open_descriptors().unwrap(),
    );
    assert_eq!(after.1, before.1, "open descriptors");
    let grown = after.0.saturating_sub(before.0);
    assert!(grown < 4096, "{grown} KiB more, {} before", before.0);
    vm.finish();
}

#[test]
fn a_signal_ends_it_while_it_draws() {
    let size = (1024, 1024);
    let (mut vm, _backing) = with_picture(size);
    vertices_in(&mut vm.gpu);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.submit_3d(CONTEXT, &triangle(size)));
    for _ in 0..100 {
        let again = Stream::default().command(8, 0, &[0, 3, 4, 0, 1, 0, 0, 0, 0, 0, u32::MAX, 0]);
        vm.gpu.fence_next(1);
        vm.gpu.push_submit_3d(CONTEXT, &again).unwrap();
    }
    vm.gpu.control.queue.submit().unwrap();
    let begun = Instant::now();
    vm.program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut vm.program);
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn a_signal_ends_it_in_a_draw_without_an_end() {
    let size = (256, 256);
    let (mut vm, _backing) = with_picture(size);
    vertices_in(&mut vm.gpu);
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.submit_3d(CONTEXT, &triangle(size)));
    // A billion instances of the triangle.
    let endless = [0, 3, 4, 0, 1 << 30, 0, 0, 0, 0, 0, u32::MAX, 0];
    let endless = Stream::default().command(8, 0, &endless);
    vm.gpu.push_submit_3d(CONTEXT, &endless).unwrap();
    vm.gpu.control.queue.submit().unwrap();
    vm.gpu.control.limit = Duration::from_millis(300);
    vm.gpu.control.next_response().unwrap_err();
    vm.program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut vm.program);
}

#[test]
fn a_stuck_display_stops_nothing() {
    let size = (512, 512);
    let (mut vm, backing) = with_picture(size);
    ok(vm.gpu.set_scanout(0, PICTURE, Rect::sized(512, 512)));
    vm.display.pause();
    for n in 0..20 {
        let color = [1.0, (n % 2) as f32, 0.0];
        ok(vm.gpu.submit_3d(CONTEXT, &clear(color)));
        ok(vm.gpu.flush(PICTURE, Rect::sized(512, 512)));
    }
    ok(vm.gpu.submit_3d(CONTEXT, &clear(GREEN)));
    ok(vm.gpu.flush(PICTURE, Rect::sized(512, 512)));
    vm.display.resume();
    vm.display
        .wait("the last picture", |d| {
            (d.surface(0).ok()?.rgb(511, 511)? == [0, 255, 0]).then_some(())
        })
        .unwrap();
    let pixels = read_back(&mut vm.gpu, &backing, size);
    assert!(pixels.iter().all(|p| *p == [0, 255, 0]));
    vm.finish();
}

#[test]
fn no_egl_is_an_early_failure() {
    let mut program = virgl_command()
        .env("__EGL_VENDOR_LIBRARY_FILENAMES", "/nonexistent.json")
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["--virgl", "EGL"]);
    let mut program = virgl_command()
        .env("VIRGL_DISABLE_MT", "1")
        .spawn()
        .unwrap();
    assert_early_failure(&mut program, &["--virgl", "VIRGL_DISABLE_MT"]);
}

#[test]
fn a_node_that_cannot_be_had_is_an_early_failure() {
    for (node, words) in [
        (
            "/dev/dri/renderD999",
            ["--render-node=/dev/dri/renderD999", "no such file"],
        ),
        (
            "/dev/null",
            ["--render-node=/dev/null", "not a DRM render node"],
        ),
    ] {
        let command = virgl_command().arg(format!("--render-node={node}"));
        assert_early_failure(&mut command.spawn().unwrap(), &words);
    }
}

#[test]
fn without_virgl_no_library_of_gl_is_there() {
    let libraries = |vm: &GpuVm| {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", vm.program.pid())).unwrap();
        let names = [
            "virglrenderer",
            "libEGL",
            "libGL",
            "libepoxy",
            "libgbm",
            "libLLVM",
        ];
        names
            .map(|name| maps.contains(name))
            .into_iter()
            .filter(|loaded| *loaded)
            .count()
    };
    let mut vm = GpuVm::start();
    vm.painted(1, Format::B8G8R8X8, (8, 8));
    assert_eq!(libraries(&vm), 0);
    vm.finish();
    let vm = start();
    assert!(libraries(&vm) >= 4, "the test looks for the wrong names");
    vm.finish();
}
