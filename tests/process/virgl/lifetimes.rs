// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drivers, memory, displays and programs that restart or end.

use super::*;

#[test]
fn new_driver_finds_nothing_of_the_old_one() {
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
fn remapped_memory_is_still_the_backing() {
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
fn one_thousand_rounds_leak_nothing() {
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
fn signal_ends_the_program_while_it_draws() {
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
    vm.program.signal(Signal::TERM).unwrap();
    assert_clean_exit(&mut vm.program);
}

#[test]
fn signal_ends_the_program_in_an_endless_draw() {
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
fn stuck_display_stops_nothing() {
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
fn missing_egl_is_an_early_failure() {
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
fn unusable_render_node_is_an_early_failure() {
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
fn gpu_without_virgl_loads_no_gl_library() {
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
