// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The memory budget of a VM, and the limits on what a guest may create.

use std::time::Duration;

use super::*;
use crate::common::growth::peak_resident;
use crate::common::*;

#[test]
fn hostmem_is_bounded_by_the_option_and_released() {
    // 2048x2048 are 16 MiB.
    for (arguments, most) in [(&[][..], 31), (&["--max-hostmem=40M"], 2)] {
        let mut vm = vm_with(arguments);
        for round in 0..2 {
            for id in 1..=most {
                ok(vm.gpu.create_2d(id, XRGB, 2048, 2048));
            }
            let more = vm.gpu.create_2d(100, XRGB, 2048, 2048);
            answered(more, ResponseKind::ErrOutOfMemory);
            // What is refused is not there, and takes nothing.
            answered(vm.gpu.unref(100), ResponseKind::ErrInvalidResourceId);
            for id in 1..=most {
                ok(vm.gpu.unref(id));
            }
            assert_eq!(vm.gpu.control.queue.outstanding(), 0, "round {round}");
        }
        assert_works(&mut vm);
        vm.finish();
    }
}

#[test]
fn hostmem_is_released_by_a_reset() {
    let mut vm = vm_with(&["--max-hostmem=17M"]);
    for _ in 0..3 {
        ok(vm.gpu.create_2d(1, XRGB, 2048, 2048));
        answered(
            vm.gpu.create_2d(2, XRGB, 2048, 2048),
            ResponseKind::ErrOutOfMemory,
        );
        vm.gpu.stop().unwrap();
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        vm.display = display;
        vm.gpu.restart(Some(socket)).unwrap();
    }
    vm.finish();
}

#[test]
fn hostmem_counts_whole_pages_and_lists_of_entries() {
    let mut vm = vm_with(&["--max-hostmem=1M"]);
    // A pixel takes a page of the host.
    let page = rustix::param::page_size() as u64;
    let most = (1 << 20) / page;
    let made = (1..)
        .take_while(|id| {
            let kind = vm.gpu.create_2d(*id, XRGB, 1, 1).unwrap().kind;
            kind == ResponseKind::OkNodata
        })
        .count() as u64;
    assert!(made <= most && made > most / 2, "{made} resources");
    for id in 1..=made {
        ok(vm.gpu.unref(id as u32));
    }
    // 16384 entries of 16 bytes are a quarter of the budget.
    let entries = vec![(vm.gpu.memory().alloc(4, 4).unwrap(), 1); 16384];
    for id in 1..=3 {
        ok(vm.gpu.create_2d(id, XRGB, 1, 1));
        ok(vm.gpu.attach_backing(id, &entries));
    }
    ok(vm.gpu.create_2d(4, XRGB, 1, 1));
    let more = vm.gpu.attach_backing(4, &entries);
    answered(more, ResponseKind::ErrOutOfMemory);
    ok(vm.gpu.detach_backing(1));
    ok(vm.gpu.attach_backing(4, &entries));
    vm.finish();
}

#[test]
fn invalid_size_is_an_early_failure() {
    for size in ["lots", "0", "-1", "1.5G", "99999999999G", ""] {
        let command = gpu_command(SocketForm::Connected(7));
        let mut program = command
            .arg(format!("--max-hostmem={size}"))
            .spawn()
            .unwrap();
        let status = assert_early_failure(&mut program, &["--max-hostmem"]);
        assert_eq!(status.code(), Some(2), "{size:?}");
    }
}

#[test]
fn resources_are_bounded() {
    const MOST: u32 = 16384;
    let mut vm = GpuVm::start();
    for id in 1..=MOST {
        ok(vm.gpu.create_2d(id, XRGB, 1, 1));
    }
    let more = vm.gpu.create_2d(MOST + 1, XRGB, 1, 1);
    answered(more, ResponseKind::ErrOutOfMemory);
    ok(vm.gpu.unref(77));
    ok(vm.gpu.create_2d(MOST + 1, XRGB, 1, 1));
    assert_cursor_moves(&mut vm);
    vm.finish();
}

#[test]
fn backing_has_as_many_entries_as_the_budget_holds() {
    const MOST: usize = 262_144;
    let mut vm = vm_with(&["--max-hostmem=5M"]);
    let address = vm.gpu.memory().alloc(4, 4).unwrap();
    // 16 bytes each: these are 4 MiB.
    let entries = vec![(address, 1); 5 * MOST / 4];
    for _ in 0..2 {
        ok(vm.gpu.create_2d(1, XRGB, 64, 64));
        ok(vm.gpu.attach_backing(1, &entries[..MOST]));
        ok(vm.gpu.transfer_to_host_2d(1, Rect::sized(64, 64), 0));
        ok(vm.gpu.detach_backing(1));
        let many = vm.gpu.attach_backing(1, &entries);
        answered(many, ResponseKind::ErrOutOfMemory);
        answered(vm.gpu.detach_backing(1), ResponseKind::ErrUnspec);
        ok(vm.gpu.attach_backing(1, &entries[..MOST]));
        ok(vm.gpu.unref(1));
    }
    assert_works(&mut vm);
    vm.finish();
}

/// A request may name the same memory again and again, and so be longer than the guest is large.
#[test]
fn endless_list_is_read_up_to_the_budget() {
    let mut vm = vm_with(&["--max-hostmem=64M"]);
    ok(vm.gpu.create_2d(1, XRGB, 64, 64));
    let memory = vm.gpu.memory().clone();
    let pixel = memory.alloc(4, 4).unwrap();
    let len: u32 = 1 << 20;
    let list = memory.alloc(len.into(), 4096).unwrap();
    let entry = [pixel, 1].map(u64::to_le_bytes).concat();
    memory
        .write(list, &entry.repeat(len as usize / 16))
        .unwrap();
    let head = memory.alloc(64, 64).unwrap();
    let attach = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_ATTACH_BACKING;
    let request = vm.gpu.request(attach, &[1, u32::MAX]);
    memory.write(head, &request).unwrap();
    let answer = memory.alloc(64, 64).unwrap();
    // 3 GiB of entries.
    let mut buffers = vec![Buffer::readable(head, request.len() as u32)];
    buffers.extend(vec![Buffer::readable(list, len); 3072]);
    buffers.push(Buffer::writable(answer, HEADER));
    let queue = &mut vm.gpu.control.queue;
    queue.add_indirect(&buffers).unwrap();
    queue.submit().unwrap();
    assert_cursor_moves(&mut vm);
    let limit = Duration::from_secs(60);
    vm.gpu.control.queue.wait_used(limit).unwrap();
    assert_eq!(kind_at(&memory, answer), ResponseKind::ErrOutOfMemory);
    let peak = peak_resident(&vm.program);
    assert!(peak < (64 + 32) << 10, "{peak} KiB");
    assert_works(&mut vm);
    vm.finish_within(limit);
}

/// A number in a request is no reason to allocate: only what the request carries is.
#[test]
fn request_numbers_alone_allocate_nothing() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 64, 64));
    let address = vm.gpu.memory().alloc(4, 4).unwrap();
    let rounds = |vm: &mut GpuVm, counts: &[u32]| {
        for count in counts.repeat(100) {
            let short = vm.gpu.attach_backing_raw(1, count, &[(address, 4)]);
            answered(short, ResponseKind::ErrInvalidParameter);
        }
    };
    rounds(&mut vm, &[2]);
    let before = peak_resident(&vm.program);
    rounds(&mut vm, &[16384, 16385, 1 << 24, u32::MAX]);
    let grown = peak_resident(&vm.program) - before;
    // The lists would be 256 KiB and more.
    assert!(grown < 128, "{grown} KiB for what was never sent");
    assert_works(&mut vm);
    vm.finish();
}

/// With OpenGL the option is the budget too.
#[cfg(feature = "virgl")]
#[test]
fn hostmem_bounds_textures_and_buffers() {
    use frontend::gpu::Create3d;

    let command = gpu_command(SocketForm::Connected(7))
        .args(["--virgl", "--max-hostmem=40M"])
        .env("LIBGL_ALWAYS_SOFTWARE", "1");
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(command.spawn().unwrap(), display, GpuOptions::virgl());
    let picture = Create3d::picture(2048, 2048);
    for _ in 0..2 {
        ok(vm.gpu.create_3d(1, picture));
        ok(vm.gpu.create_3d(2, Create3d::vertices(16 << 20)));
        for more in [picture, Create3d::vertices(16 << 20)] {
            answered(vm.gpu.create_3d(3, more), ResponseKind::ErrOutOfMemory);
        }
        ok(vm.gpu.unref(1));
        ok(vm.gpu.unref(2));
    }
    vm.finish();
}
