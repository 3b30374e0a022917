// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Virtqueues that a guest breaks, or moves away under the device.

use std::time::Duration;

use frontend::gpu::Gpu;
use frontend::{Buffer, FrontendReq, Memory, Queue};
use virtio_bindings::virtio_gpu as v;

use super::*;
use crate::common::*;
use frontend::features::EVENT_IDX;

/// The index of one queue's available ring runs away: the other queue goes on.
#[test]
fn broken_queue_leaves_the_other_running() {
    for broken in [CONTROL, CURSOR] {
        let mut vm = GpuVm::start();
        let queue = match broken {
            CONTROL => &mut vm.gpu.control.queue,
            _ => &mut vm.gpu.cursor.queue,
        };
        let spent = vm.program.cpu_time().unwrap();
        for index in [4000, 40_000, u16::MAX, 4000] {
            queue.force_available_index(index).unwrap();
            queue.kick().unwrap();
            std::thread::sleep(Duration::from_millis(500));
        }
        match broken {
            CONTROL => assert_cursor_moves(&mut vm),
            _ => drop(ok(vm.gpu.create_2d(1, XRGB, 8, 8))),
        }
        let spent = vm.program.cpu_time().unwrap() - spent;
        assert!(spent < Duration::from_millis(400), "{spent:?} for nothing");
        assert_works_for_a_new_driver(vm);
    }
}

/// Where a driver says that its rings lie, a front-end passes on. Nowhere is no reason to end.
#[test]
fn misplaced_ring_stops_nothing() {
    for broken in [CONTROL, CURSOR] {
        let mut vm = GpuVm::start();
        let memory = vm.gpu.memory().clone();
        let good = |queue: &Queue| queue.addresses().map(|a| memory.user_address(a));
        let [descriptors, available, used] = match broken {
            CONTROL => good(&vm.gpu.control.queue),
            _ => good(&vm.gpu.cursor.queue),
        };
        let end = memory.user_address(memory.end());
        let places = [
            // Outside the memory, or out of it at their end.
            [end, end, end],
            [descriptors, available, end],
            [descriptors, end, used],
            [end, available, used],
            [descriptors, available, end - 4],
            [descriptors, end - 4, used],
            [end - 16, available, used],
            [0, 0, 0],
            [u64::MAX - 15, u64::MAX - 1, u64::MAX - 3],
            // Not aligned.
            [descriptors + 8, available, used],
            [descriptors, available + 1, used],
            [descriptors, available, used + 2],
        ];
        for [descriptors, available, used] in places {
            vm.gpu.session.stop_queue(broken).unwrap();
            let queue = match broken {
                CONTROL => &mut vm.gpu.control,
                _ => &mut vm.gpu.cursor,
            };
            queue.reset().unwrap();
            vm.gpu.session.start_queue(broken, &queue.queue).unwrap();
            let session = &mut vm.gpu.session;
            session
                .set_vring_addresses(broken, descriptors, available, used)
                .unwrap();
            let head = [Buffer::writable(1 << 32, HEADER)];
            queue.queue.add(&head).unwrap();
            queue.queue.publish().unwrap();
            queue.queue.kick().unwrap();
            match broken {
                CONTROL => assert_cursor_moves(&mut vm),
                _ => {
                    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
                    ok(vm.gpu.unref(1));
                }
            }
        }
        assert_works_for_a_new_driver(vm);
    }
}

/// QEMU passes on any size that a guest chooses. None but a power of two is one of a split virtqueue.
#[test]
fn queue_size_other_than_a_power_of_two_leaves_the_other_queue_running() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    let size = FrontendReq::SET_VRING_NUM;
    for round in 0..100 {
        vm.gpu.session.set_vring_state(size, CURSOR, 3).unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        ok(vm.gpu.create_2d(2 + round, XRGB, 8, 8));
    }
    vm.program.wait_stderr("no power of two").unwrap();
    let log = vm.program.stderr();
    assert!(log.lines().count() < 30, "{log}");
    let entries = vm.gpu.cursor.queue.size().into();
    vm.gpu
        .session
        .set_vring_state(size, CURSOR, entries)
        .unwrap();
    assert_works(&mut vm);
    vm.finish();
}

/// The guest's memory goes away under a running queue and comes back: the other one goes on
/// meanwhile, and the program does not turn in circles.
#[test]
fn memory_removed_under_a_queue_leaves_the_other_running() {
    // The cursor queue of 128 entries does not fit beside the control queue in a page.
    let memory = Memory::new(&[(0x10_0000, 4096), (1 << 32, 8 << 20)]).unwrap();
    let options = GpuOptions {
        control_size: 128,
        cursor_size: 128,
        ..GpuOptions::default()
    };
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let session = program.session().unwrap();
    let gpu = Gpu::start(session, &memory, Some(socket), options).unwrap();
    let mut vm = GpuVm {
        gpu,
        display,
        program,
    };
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    let [first, second] = memory.regions()[..] else {
        panic!("two regions")
    };
    let spent = vm.program.cpu_time().unwrap();
    for round in 0..20 {
        vm.gpu.session.set_regions(&[first]).unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        ok(vm.gpu.create_2d(2 + round, XRGB, 8, 8));
        // And the other way round: the rings of the control queue are gone.
        vm.gpu.session.set_regions(&[second]).unwrap();
        vm.gpu.control.queue.kick().unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        vm.gpu.session.set_memory(&memory).unwrap();
        vm.gpu.control.queue.kick().unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        ok(vm.gpu.unref(2 + round));
    }
    // It is looked at again at the next kick, and not all the time until then.
    vm.gpu.session.set_regions(&[first]).unwrap();
    vm.gpu.cursor.queue.kick().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    vm.gpu.session.set_memory(&memory).unwrap();
    // A backing that is gone is an error, and no fault.
    ok(vm.gpu.create_2d(99, XRGB, 64, 64));
    let backing = Backing::new(&memory, 64 * 64 * 4, Pieces::Whole);
    ok(vm.gpu.attach_backing(99, &backing.entries));
    vm.gpu.session.set_regions(&[first]).unwrap();
    let gone = vm.gpu.transfer_to_host_2d(99, Rect::sized(64, 64), 0);
    answered(gone, ResponseKind::ErrUnspec);
    vm.gpu.session.set_memory(&memory).unwrap();
    ok(vm.gpu.transfer_to_host_2d(99, Rect::sized(64, 64), 0));
    let spent = vm.program.cpu_time().unwrap() - spent;
    assert!(spent < Duration::from_millis(800), "{spent:?}");
    vm.finish();
}

/// The worker may have an event of a ring under way while that is stopped and started with another
/// eventfd. (The crate would end the worker, finding nothing in the new one.)
#[test]
fn ring_restarted_while_the_worker_is_busy_continues() {
    let mut vm = GpuVm::start();
    let size = (2048, 2048);
    let backing = vm.resource(1, XRGB, size, Pieces::Whole);
    backing.write(0, &picture(XRGB, size, pattern));
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
    for round in 0..150_u64 {
        // Keeps the worker busy.
        while vm.gpu.control.queue.outstanding() < 20 {
            vm.gpu
                .push(command, &[0, 0, 2048, 2048, 0, 0, 1, 0])
                .unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        std::thread::sleep(Duration::from_micros(round * 37 % 5000));
        vm.gpu.session.stop_queue(CURSOR).unwrap();
        vm.gpu.cursor = frontend::gpu::CommandQueue::new(
            Queue::new(vm.gpu.memory(), 16, vm.gpu.features() & EVENT_IDX != 0).unwrap(),
        );
        let session = &mut vm.gpu.session;
        session.start_queue(CURSOR, &vm.gpu.cursor.queue).unwrap();
        let exit = vm.program.try_exit().unwrap();
        assert!(exit.is_none(), "round {round}: {exit:?}");
        while vm.gpu.control.queue.outstanding() > 10 {
            vm.gpu.control.next_response().unwrap();
        }
    }
    while vm.gpu.control.queue.outstanding() > 0 {
        vm.gpu.control.next_response().unwrap();
    }
    assert_works(&mut vm);
    vm.finish();
}
