// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Guest memory that is added and removed region by region (ADD_MEM_REG, REM_MEM_REG), under the backings
//! and running virtqueues of both programs.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crate::common::evdev::{HostDevice, KEYBOARD};
use crate::common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, Framebuffer, Gpu, GpuOptions, HEADER_SIZE, Rect,
    Request, ResponseKind,
};
use frontend::input::{Event, Input, InputOptions};
use frontend::{
    DEFAULT_LIMIT, Deadline, FrontendReq, Memory, Offer, Program, Region, Session, SocketForm,
    VhostUserProtocolFeatures as Protocol,
};
use harness::mock::codes::EV_KEY;
use rustix::event::{EventfdFlags, PollFlags, eventfd};

const XRGB: Format = Format::B8G8R8X8;
const CONTROL: u32 = 0;
const CURSOR: u32 = 1;

fn negotiate(session: &mut Session) -> Offer {
    let wanted = Session::usual_protocol_features() | Protocol::CONFIGURE_MEM_SLOTS;
    let offer = session.negotiate(wanted).unwrap();
    assert!(
        offer
            .protocol_features
            .contains(Protocol::CONFIGURE_MEM_SLOTS)
    );
    offer
}

/// A GPU whose guest shares `memory` region by region.
fn start_gpu(memory: &Memory, options: GpuOptions) -> GpuVm {
    let mut program = gpu_command(SocketForm::Connected(7)).spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = negotiate(&mut session);
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    session.set_gpu_socket(&socket).unwrap();
    let mut gpu = Gpu::on(session, offer, memory, options).unwrap();
    gpu.session.set_features(gpu.features()).unwrap();
    for region in memory.regions() {
        gpu.session.add_region(&region).unwrap();
    }
    gpu.session
        .start_queue(CONTROL, &gpu.control.queue)
        .unwrap();
    gpu.session.start_queue(CURSOR, &gpu.cursor.queue).unwrap();
    GpuVm {
        gpu,
        display,
        program,
    }
}

/// A keyboard whose guest shares `memory` region by region.
fn start_keyboard(memory: &Memory) -> (Input, HostDevice, Program) {
    let mut device = HostDevice::new(KEYBOARD);
    let command = device.command(input_program());
    let mut program = command.socket(SocketForm::Connected(5)).spawn().unwrap();
    let mut session = program.session().unwrap();
    let offer = negotiate(&mut session);
    device.forget();
    let options = InputOptions {
        queue_size: 256,
        ..InputOptions::default()
    };
    let mut input = Input::on(session, offer, memory, options).unwrap();
    input.session.set_features(input.features()).unwrap();
    for region in memory.regions() {
        input.session.add_region(&region).unwrap();
    }
    input.session.start_queue(0, &input.events).unwrap();
    input.session.start_queue(1, &input.status).unwrap();
    input.give(256).unwrap();
    device.wait_grab(true);
    while input.next_event(Duration::from_millis(100)).is_ok() {}
    (input, device, program)
}

fn arrives(input: &mut Input, device: &mut HostDevice, code: u16) {
    for value in [1, 0] {
        let key = Event::new(EV_KEY, code, value);
        device.send(&[key, Event::report()]);
        // After what came of the state in which the device was.
        while input.next_report().unwrap() != [key, Event::report()] {}
    }
}

/// Has the front-end hear of errors of the ring `index`.
fn errors_of(session: &mut Session, index: u32) -> OwnedFd {
    let error = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
    let request = FrontendReq::SET_VRING_ERR;
    session
        .set_vring_fd(request, index, Some(error.as_fd()))
        .unwrap();
    error
}

fn wait_error(error: &OwnedFd) {
    let ready = Deadline::after(DEFAULT_LIMIT).ready(error.as_fd(), PollFlags::IN);
    assert!(ready.unwrap(), "no error is told");
    rustix::io::read(error, &mut [0; 8]).unwrap();
}

fn no_error(error: &OwnedFd) {
    let nothing = rustix::io::read(error, &mut [0; 8]);
    assert_eq!(nothing, Err(rustix::io::Errno::AGAIN));
}

#[test]
fn rings_and_backings_may_lie_in_any_region() {
    let mut regions: Vec<_> = (1..40).map(|n| (n << 24, 4096)).collect();
    regions.push((1 << 32, 8 << 20));
    let memory = Memory::new(&regions).unwrap();
    // All of each, so that the rings lie in the last.
    let pages = (0..39).map(|part| (memory.alloc_in(part, 4096, 4096).unwrap(), 4096));
    let pages: Vec<_> = pages.collect();
    let options = GpuOptions {
        control_size: 1024,
        cursor_size: 1024,
        ..GpuOptions::default()
    };
    let mut vm = start_gpu(&memory, options);
    let size = (32, 32 * 39);
    ok(vm.gpu.create_2d(1, XRGB, size.0, size.1));
    let pixels = picture(XRGB, size, pattern);
    for ((page, _), bytes) in pages.iter().zip(pixels.chunks(4096)) {
        memory.write(*page, bytes).unwrap();
    }
    let whole = Rect::sized(size.0, size.1);
    ok(vm.gpu.attach_backing(1, &pages));
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    ok(vm.gpu.set_scanout(0, 1, whole));
    ok(vm.gpu.flush(1, whole));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, pattern);
    vm.finish_within(DEFAULT_LIMIT);

    let (mut input, mut device, mut program) = start_keyboard(&memory);
    arrives(&mut input, &mut device, 30);
    drop(input);
    assert_clean_exit_within(&mut program, DEFAULT_LIMIT);
}

#[test]
fn regions_fill_the_memory_slots_and_no_more() {
    let memory = Memory::with_size(8 << 20).unwrap();
    let mut vm = start_gpu(&memory, GpuOptions::default());
    let [ram] = memory.regions()[..] else {
        panic!("one region")
    };
    let slots = vm
        .gpu
        .session
        .get_u64(FrontendReq::GET_MAX_MEM_SLOTS)
        .unwrap();
    let region = |n: u64| Region {
        guest_address: (n + 1) << 32,
        size: 4096,
        user_address: (n + 1) << 32,
        mmap_offset: n << 12,
        ..ram
    };
    for n in 1..slots {
        vm.gpu.session.add_region(&region(n)).unwrap();
    }
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    // One for another is fine.
    vm.gpu.session.remove_region(&region(1)).unwrap();
    vm.gpu.session.add_region(&region(slots)).unwrap();
    ok(vm.gpu.unref(1));
    vm.gpu.session.acknowledge = false;
    vm.gpu.session.add_region(&region(slots + 1)).unwrap();
    assert_early_failure(&mut vm.program, &["509 regions"]);
}

/// Nobody says so when it is read for a display: that is after the answer.
#[test]
fn blob_in_a_removed_region_is_black_until_it_comes_back() {
    let memory = guest_memory();
    let mut vm = start_gpu(&memory, GpuOptions::with_blobs());
    let [_, second] = memory.regions()[..] else {
        panic!("two regions")
    };
    let size = (64, 64);
    let whole = Rect::sized(64, 64);
    let len = 64 * 64 * 4;
    let page = memory.alloc_in(1, len.into(), 4096).unwrap();
    memory.write(page, &picture(XRGB, size, pattern)).unwrap();
    let framebuffer = Framebuffer {
        format: XRGB,
        size,
        stride: 64 * 4,
        offset: 0,
    };
    ok(vm.gpu.create_blob(1, len.into(), &[(page, len)]));
    ok(vm.gpu.set_scanout_blob(0, 1, whole, &framebuffer));
    for round in 0..20 {
        if round > 0 {
            vm.gpu.session.add_region(&second).unwrap();
        }
        ok(vm.gpu.flush(1, whole));
        vm.display
            .wait_count(Request::Update, 2 * round + 1)
            .unwrap();
        assert_shows(&vm.display, 0, size, pattern);
        vm.gpu.session.remove_region(&second).unwrap();
        ok(vm.gpu.flush(1, whole));
        vm.display
            .wait_count(Request::Update, 2 * round + 2)
            .unwrap();
        assert_shows(&vm.display, 0, size, |_, _| [0; 3]);
    }
    vm.finish();
}

#[test]
fn backing_in_a_removed_region_is_an_error_until_it_comes_back() {
    let memory = guest_memory();
    let mut vm = start_gpu(&memory, GpuOptions::default());
    let [_, second] = memory.regions()[..] else {
        panic!("two regions")
    };
    let size = (64, 64);
    let whole = Rect::sized(size.0, size.1);
    ok(vm.gpu.create_2d(1, XRGB, size.0, size.1));
    let page = memory.alloc_in(1, 64 * 64 * 4, 4096).unwrap();
    ok(vm.gpu.attach_backing(1, &[(page, 64 * 64 * 4)]));
    memory.write(page, &picture(XRGB, size, negative)).unwrap();
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    for _ in 0..20 {
        vm.gpu.session.remove_region(&second).unwrap();
        let gone = vm.gpu.transfer_to_host_2d(1, whole, 0);
        answered(gone, ResponseKind::ErrUnspec);
        vm.gpu.session.add_region(&second).unwrap();
        ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    }
    memory.write(page, &picture(XRGB, size, pattern)).unwrap();
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    ok(vm.gpu.set_scanout(0, 1, whole));
    ok(vm.gpu.flush(1, whole));
    vm.display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&vm.display, 0, size, pattern);
    vm.finish_within(DEFAULT_LIMIT);
}

/// QEMU changes a region by REM and ADD, under running rings: what the driver asked for in between is
/// done, although nobody kicks for it again.
#[test]
fn ring_in_a_removed_region_is_broken_until_it_comes_back() {
    // The cursor queue of 128 entries does not fit beside the control queue in a page.
    let memory = Memory::new(&[(0x10_0000, 4096), (1 << 32, 8 << 20)]).unwrap();
    let options = GpuOptions {
        control_size: 128,
        cursor_size: 128,
        ..GpuOptions::default()
    };
    let mut vm = start_gpu(&memory, options);
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    let errors = [CONTROL, CURSOR].map(|ring| errors_of(&mut vm.gpu.session, ring));
    let [first, second] = memory.regions()[..] else {
        panic!("two regions")
    };
    for round in 0..20 {
        // The cursor's ring goes: the other one is served.
        vm.gpu.session.remove_region(&second).unwrap();
        let position = (round, round + 1);
        let update = [0, position.0, position.1, 0, 0, 0, 0, 0];
        let update = vm.gpu.request(0x300, &update);
        vm.gpu.cursor.push(&update, HEADER_SIZE as u32).unwrap();
        vm.gpu.cursor.queue.publish().unwrap();
        vm.gpu.cursor.queue.kick().unwrap();
        wait_error(&errors[1]);
        no_error(&errors[0]);
        vm.gpu.session.add_region(&second).unwrap();
        let moved = |d: &frontend::gpu::Display| (d.cursor.position == position).then_some(());
        vm.display.wait("the cursor to move", moved).unwrap();
        vm.gpu.cursor.next_response().unwrap();

        // The control ring goes.
        vm.gpu.session.remove_region(&first).unwrap();
        vm.gpu.push(0x101, &[2 + round, XRGB as u32, 8, 8]).unwrap();
        vm.gpu.control.queue.publish().unwrap();
        vm.gpu.control.queue.kick().unwrap();
        wait_error(&errors[0]);
        vm.gpu.session.add_region(&first).unwrap();
        ok(vm.gpu.control.next_response().map(|(_, response)| response));
        for error in &errors {
            // As often as it was looked at.
            let _ = rustix::io::read(error, &mut [0; 8]);
        }
    }
    vm.finish_within(DEFAULT_LIMIT);

    let (mut input, mut device, mut program) = start_keyboard(&memory);
    let error = errors_of(&mut input.session, 0);
    for round in 0..5 {
        input.session.remove_region(&second).unwrap();
        let key = |value| Event::new(EV_KEY, 30 + round, value);
        device.send(&[key(1), Event::report()]);
        wait_error(&error);
        input.session.add_region(&second).unwrap();
        while input.next_report().unwrap() != [key(1), Event::report()] {}
        device.send(&[key(0), Event::report()]);
        assert_eq!(input.next_report().unwrap(), [key(0), Event::report()]);
        let _ = rustix::io::read(&error, &mut [0; 8]);
    }
    drop(input);
    assert_clean_exit_within(&mut program, DEFAULT_LIMIT);
}

#[test]
fn impossible_regions_are_refused_with_a_message() {
    let memory = guest_memory();
    let [first, second] = memory.regions()[..] else {
        panic!("two regions")
    };
    let at = |guest_address| Region {
        guest_address,
        user_address: 1 << 40,
        size: 0x1000,
        ..first
    };
    let added = [
        (second, ["overlap", "0x100000000"]),
        (at(first.guest_address - 0xfff), ["overlap", "0x100000"]),
        (
            at(first.guest_address + first.size - 1),
            ["overlap", "0x100000"],
        ),
        (at(u64::MAX - 0xffe), ["guest memory", "64 bits"]),
        (
            Region {
                user_address: u64::MAX - 0xffe,
                ..at(1 << 33)
            },
            ["0x200000000", "64 bits"],
        ),
        (
            Region {
                size: 48 << 20,
                ..at(1 << 33)
            },
            ["50331648 bytes", "file"],
        ),
    ];
    let removed = [
        (at(1 << 33), ["0x200000000", "does not share"]),
        (
            Region {
                size: 0x1000,
                ..second
            },
            ["4096 bytes", "does not share"],
        ),
    ];
    let changes = [(true, &added[..]), (false, &removed[..])];
    for (adds, cases) in changes {
        for (region, words) in cases {
            let mut vm = start_gpu(&memory, GpuOptions::default());
            let session = &mut vm.gpu.session;
            session.acknowledge = false;
            match adds {
                true => session.add_region(region).unwrap(),
                false => session.remove_region(region).unwrap(),
            }
            assert_early_failure(&mut vm.program, words);
        }
    }
    // Nothing left at all is no fault, but nothing to serve.
    let mut vm = start_gpu(&memory, GpuOptions::default());
    for region in memory.regions() {
        vm.gpu.session.remove_region(&region).unwrap();
    }
    for region in memory.regions() {
        vm.gpu.session.add_region(&region).unwrap();
    }
    ok(vm.gpu.create_2d(1, XRGB, 8, 8));
    vm.finish_within(DEFAULT_LIMIT);
}
