// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The budget and the real memory use: what contexts hold after the driver released it.

use super::*;

/// 32 MiB.
const LARGE: Create3d = Create3d::picture(2048, 4096);
/// Much memory takes the kernel its time, on a busy machine.
const END: Duration = Duration::from_secs(60);
const LIMIT: &str = "--max-hostmem=80M";

/// `VIRGL_OBJECT_SAMPLER_VIEW`, `VIRGL_OBJECT_SURFACE`.
const VIEW: u32 = 6;
const KIND_OF_SURFACE: u32 = 8;

fn start_with_limit() -> GpuVm {
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let program = virgl_command().arg(LIMIT).spawn().unwrap();
    let mut vm = GpuVm::of(program, display, GpuOptions::virgl());
    ok(vm.gpu.create_context(CONTEXT, "memory"));
    vm
}

/// Anonymous memory of a process that is there, in MiB.
fn anonymous(program: &Program) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", program.pid());
    let smaps = std::fs::read_to_string(path).unwrap();
    let line = smaps.lines().find(|l| l.starts_with("Anonymous:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib >> 10
}

fn destroy(stream: Stream, handle: u32) -> Stream {
    stream.command(3, 0, &[handle])
}

/// Makes resource `id`, has it drawn to, so that its memory is there, and something hold it.
fn hold(gpu: &mut Gpu, id: u32, holder: &Stream) -> ResponseKind {
    let made = gpu.create_3d(id, LARGE).unwrap().kind;
    if made == ResponseKind::OkNodata {
        ok(gpu.context_attach(CONTEXT, id));
        let surface = 1000 + id;
        let drawn = Stream::default().draw_to(surface, id).clear(GREEN);
        let drawn = drawn.command(5, 0, &[0, 0]);
        ok(gpu.submit_3d(CONTEXT, &destroy(drawn, surface)));
        ok(gpu.submit_3d(CONTEXT, holder));
    }
    made
}

/// Twenty textures, each of which only a context still has.
#[test]
fn context_objects_count_in_the_budget() {
    let mut vm = start_with_limit();
    let before = anonymous(&vm.program);
    let mut refused = 0;
    for id in 1..=20 {
        let kind = [VIEW, KIND_OF_SURFACE][id as usize % 2];
        let mut words = vec![id, id, Create3d::BGRX, 0, 0];
        if kind == VIEW {
            // The swizzle is the identity.
            words.push(0o3210);
        }
        let holder = Stream::default().command(1, kind, &words);
        match hold(&mut vm.gpu, id, &holder) {
            ResponseKind::OkNodata => {
                ok(vm.gpu.unref(id));
            }
            kind => {
                assert_eq!(kind, ResponseKind::ErrOutOfMemory);
                refused += 1;
            }
        }
    }
    let grown = anonymous(&vm.program).saturating_sub(before);
    // 80 MiB, and what OpenGL makes for itself.
    assert!(grown < 80 + 64, "{grown} MiB");
    assert_eq!(refused, 18);

    // Once the objects are gone, there is room for as many.
    let gone = destroy(destroy(Stream::default(), 1), 2);
    ok(vm.gpu.submit_3d(CONTEXT, &gone));
    for id in 21..=22 {
        ok(vm.gpu.create_3d(id, LARGE));
        ok(vm.gpu.unref(id));
    }
    vm.finish_within(END);
}

/// What is bound in a context stays, whatever becomes of the objects: until something else is, or the
/// context goes.
#[test]
fn bound_objects_count_in_the_budget_until_rebound() {
    let bind = |id: u32| {
        let stream = Stream::default().command(1, VIEW, &[id, id, Create3d::BGRX, 0, 0, 0o3210]);
        let stream = stream.command(10, 0, &[1, id, id]);
        destroy(stream, id)
    };
    let mut vm = start_with_limit();
    for round in 0..3 {
        for id in 1..=2 {
            assert_eq!(hold(&mut vm.gpu, id, &bind(id)), ResponseKind::OkNodata);
            ok(vm.gpu.unref(id));
        }
        answered(vm.gpu.create_3d(3, LARGE), ResponseKind::ErrOutOfMemory);
        if round == 0 {
            let unbind = Stream::default().command(10, 0, &[1, 0]);
            ok(vm.gpu.submit_3d(CONTEXT, &unbind));
        } else {
            ok(vm.gpu.destroy_context(CONTEXT));
            ok(vm.gpu.create_context(CONTEXT, "memory"));
        }
        ok(vm.gpu.create_3d(3, LARGE));
        ok(vm.gpu.unref(3));
    }
    vm.finish_within(END);
}

/// As windows come and go: the budget is as it was, and so is the memory.
#[test]
fn windows_that_come_and_go_use_nothing_up() {
    let mut vm = start_with_limit();
    let round = |vm: &mut GpuVm, n: u32| {
        let view = [n, 1, Create3d::BGRX, 0, 0, 0o3210];
        let holder = Stream::default()
            .command(1, VIEW, &view)
            .command(10, 0, &[1, 0, n])
            .command(1, KIND_OF_SURFACE, &[n + 1, 1, Create3d::BGRX, 0, 0])
            .command(5, 0, &[1, 0, n + 1]);
        assert_eq!(hold(&mut vm.gpu, 1, &holder), ResponseKind::OkNodata);
        // A driver destroys objects with its next stream, which may come after the resource went.
        ok(vm.gpu.unref(1));
        let stream = Stream::default()
            .command(10, 0, &[1, 0])
            .command(5, 0, &[0, 0]);
        let stream = destroy(destroy(stream, n), n + 1);
        ok(vm.gpu.submit_3d(CONTEXT, &stream));
    };
    let sizes: Vec<u64> = (0..60)
        .map(|n| {
            round(&mut vm, 10 + 2 * n);
            anonymous(&vm.program)
        })
        .collect();
    // Mesa's llvmpipe keeps the textures of the last pictures that it drew, up to eight of 32 MiB. If
    // those of every window stayed, there were twenty more from here to there.
    let most_at_first = sizes[..20].iter().max().unwrap();
    let least_at_last = sizes[40..].iter().min().unwrap();
    assert!(*least_at_last < most_at_first + 9 * 32, "MiB: {sizes:?}");
    vm.finish_within(END);
}

/// They cost a context of OpenGL each, and nobody counts them.
#[test]
fn subcontexts_count_in_the_budget() {
    let mut vm = start_with_limit();
    let mut made = 0;
    let refused = (1..=200).find(|id| {
        let stream = Stream::default().command(29, 0, &[*id]);
        let response = vm.gpu.submit_3d(CONTEXT, &stream).unwrap();
        made += u32::from(response.kind == ResponseKind::OkNodata);
        response.kind == ResponseKind::ErrOutOfMemory
    });
    assert!(refused.is_some(), "{made} of them");
    // Each that goes makes room for one.
    ok(vm
        .gpu
        .submit_3d(CONTEXT, &Stream::default().command(30, 0, &[1])));
    ok(vm
        .gpu
        .submit_3d(CONTEXT, &Stream::default().command(29, 0, &[1])));
    vm.finish_within(END);
}

/// PIPE_RESOURCE_CREATE: for blobs, which this device does not have.
#[test]
fn textures_made_by_a_stream_are_refused() {
    let mut vm = start_with_limit();
    let before = anonymous(&vm.program);
    for blob in 0..20 {
        let words = [2, Create3d::BGRX, 10, 2048, 4096, 1, 1, 0, 0, 0, blob];
        let stream = Stream::default().command(48, 0, &words);
        answered(
            vm.gpu.submit_3d(CONTEXT, &stream),
            ResponseKind::ErrInvalidParameter,
        );
    }
    assert!(anonymous(&vm.program) < before + 64);
    ok(vm.gpu.create_3d(1, LARGE));
    vm.finish_within(END);
}

/// OpenGL keeps a deleted texture for as long as one of its contexts has it bound, and no command tells.
/// Where it draws by software, the process's own size is what ends that.
#[test]
fn internal_memory_of_opengl_is_bounded() {
    /// What the program may have beyond its budget, and what tells on the way there.
    const SLACK: u64 = 512 + 64;
    let mut vm = start_with_limit();
    let before = anonymous(&vm.program);
    let contexts = 2..=21;
    let mut made = 0;
    for id in contexts.clone() {
        ok(vm.gpu.create_context(id, ""));
    }
    for id in contexts.clone() {
        if vm.gpu.create_3d(id, LARGE).unwrap().kind != ResponseKind::OkNodata {
            continue;
        }
        made += 1;
        ok(vm.gpu.context_attach(id, id));
        let view = [1, id, Create3d::BGRX, 0, 0, 0o3210];
        let stream = Stream::default()
            .draw_to(2, id)
            .clear(GREEN)
            .command(5, 0, &[0, 0])
            .command(1, VIEW, &view)
            .command(10, 0, &[1, 0, 1])
            .command(10, 0, &[1, 0]);
        let _ = vm.gpu.submit_3d(id, &destroy(destroy(stream, 1), 2));
        // It is deleted while another context is OpenGL's.
        let _ = vm
            .gpu
            .submit_3d(CONTEXT, &Stream::default().command(28, 0, &[0]));
        ok(vm.gpu.unref(id));
    }
    let grown = anonymous(&vm.program).saturating_sub(before);
    assert!(grown < 80 + SLACK, "{grown} MiB by {made} textures");
    for id in contexts {
        ok(vm.gpu.destroy_context(id));
    }
    ok(vm.gpu.create_3d(1, LARGE));
    vm.finish_within(END);
}
