// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Endless repetition by a guest: nothing piles up.

use frontend::gpu::Gpu;
use frontend::{Buffer, Deadline};
use virtio_bindings::virtio_gpu as v;

use super::*;
use crate::common::growth::Holdings;
use crate::common::*;

#[test]
fn guest_cannot_flood_the_log() {
    let mut vm = GpuVm::start();
    for n in 0..5000_u32 {
        vm.gpu.unref(0xdead).unwrap();
        vm.gpu.command(n | 0x8000, &[]).unwrap();
        vm.gpu.update_cursor(77, (0, 0), n, (0, 0)).unwrap();
    }
    let log = vm.program.stderr();
    let lines = log.lines().count();
    assert!(log.contains("refused"), "{log}");
    // Ten of a kind in ten seconds.
    assert!(lines < 60, "{lines} lines: {log}");
    vm.finish();
}

/// A driver that begins anew before the front-end has answered asks again each time.
#[test]
fn unanswered_display_queries_do_not_pile_up() {
    let (silent, socket) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let session = program.session().unwrap();
    let memory = guest_memory();
    let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default()).unwrap();
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_DISPLAY_INFO;
    // A display that negotiates, and says nothing any more.
    let mut features = [0; 12];
    std::io::Read::read_exact(&mut &silent, &mut features).unwrap();
    let reply = [1_u32, 1 << 2, 8, 0, 0].map(u32::to_ne_bytes).concat();
    std::io::Write::write_all(&mut &silent, &reply).unwrap();
    for _ in 0..500 {
        gpu.push(command, &[]).unwrap();
        gpu.control.queue.submit().unwrap();
        gpu.stop().unwrap();
        gpu.restart(None::<std::os::unix::net::UnixStream>).unwrap();
    }
    silent.set_nonblocking(true).unwrap();
    let mut sent = Vec::new();
    let _ = std::io::Read::read_to_end(&mut &silent, &mut sent);
    assert!(
        sent.len() < 20 * 12 + 8,
        "{} bytes of questions",
        sent.len()
    );
    drop(gpu);
    assert_clean_exit(&mut program);
}

/// Thousands of rounds of all of it leave the program as it was.
#[test]
fn thousands_of_rounds_leak_nothing() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let backing = Backing::new(&memory, 64 * 64 * 4, Pieces::Odd);
    let odd = memory.alloc(4096, 4096).unwrap();
    let whole = Rect::sized(64, 64);
    let round = |vm: &mut GpuVm, n: u32| {
        let gpu = &mut vm.gpu;
        ok(gpu.create_2d(1, XRGB, 64, 64));
        ok(gpu.attach_backing(1, &backing.entries));
        answered(
            gpu.attach_backing(1, &backing.entries),
            ResponseKind::ErrUnspec,
        );
        ok(gpu.transfer_to_host_2d(1, whole, 0));
        ok(gpu.set_scanout(n % 16, 1, whole));
        ok(gpu.flush(1, whole));
        gpu.update_cursor(n % 16, (n, n), 1, (n, n)).unwrap();
        gpu.get_edid(0).unwrap();
        gpu.get_display_info().unwrap();
        for chain in [
            &[Buffer::readable(odd, 3), Buffer::writable(odd, HEADER)][..],
            &[Buffer::readable(memory.end(), HEADER)],
            &[Buffer::writable(odd, 2)],
        ] {
            gpu.control.queue.add(chain).unwrap();
            gpu.control.queue.submit().unwrap();
            gpu.control.queue.wait_used(QUICK).unwrap();
        }
        ok(gpu.unref(1));
        answered(
            gpu.create_2d(2, XRGB, 16384, 16384),
            ResponseKind::ErrOutOfMemory,
        );
        if n % 50 == 0 {
            gpu.stop().unwrap();
            let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
            vm.display = display;
            gpu.restart(Some(socket)).unwrap();
        }
        vm.display.lock().forget();
    };
    for n in 1..=300 {
        round(&mut vm, n);
    }
    // The cursor's messages have to be sent before descriptors can be counted.
    let before = Holdings::of(&vm.program);
    for n in 301..=3300 {
        round(&mut vm, n);
    }
    before.assert_not_grown(&vm.program, 2048);
    vm.finish();
}

#[test]
fn display_sockets_come_and_go_without_a_leak() {
    let mut vm = GpuVm::start();
    let settled = |vm: &GpuVm, count| {
        Deadline::default()
            .until("descriptors to be closed", || {
                Ok((vm.program.open_descriptors()? <= count).then_some(()))
            })
            .unwrap();
    };
    let before = vm.program.open_descriptors().unwrap();
    for _ in 0..500 {
        let (display, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        vm.gpu.session.set_gpu_socket(socket).unwrap();
        drop(display);
    }
    settled(&vm, before);
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.session.set_gpu_socket(socket).unwrap();
    assert_works(&mut vm);
    vm.finish();
}

/// With OpenGL each resource has its pages looked up again when the memory changes, and a guest can
/// have it change.
#[cfg(feature = "virgl")]
#[test]
fn removed_backings_do_not_flood_the_log() {
    use frontend::gpu::Create3d;

    let command = gpu_command(SocketForm::Connected(7))
        .arg("--virgl")
        .env("LIBGL_ALWAYS_SOFTWARE", "1");
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut vm = GpuVm::of(command.spawn().unwrap(), display, GpuOptions::virgl());
    let memory = vm.gpu.memory().clone();
    let pages = memory.alloc_in(1, 4096, 4096).unwrap();
    for id in 1..=300 {
        ok(vm.gpu.create_3d(id, Create3d::picture(8, 8)));
        ok(vm.gpu.attach_backing(id, &[(pages, 256)]));
    }
    let [first, _] = memory.regions()[..] else {
        panic!("two regions")
    };
    vm.gpu.session.set_regions(&[first]).unwrap();
    ok(vm.gpu.create_3d(1000, Create3d::picture(8, 8)));
    vm.program.wait_stderr("has no backing").unwrap();
    let log = vm.program.stderr();
    assert!(log.lines().count() < 30, "{log}");
    // They are there again with the memory.
    vm.gpu.session.set_memory(&memory).unwrap();
    for id in 1..=300 {
        ok(vm.gpu.detach_backing(id));
    }
    ok(vm.gpu.attach_backing(1, &[(pages, 256)]));
    vm.finish();
}
