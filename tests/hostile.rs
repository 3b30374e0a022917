//! What a hostile guest does to vhost-user-gpu, over its socket: an error is all it gets, and its
//! other queue goes on.

mod common;
#[path = "common/growth.rs"]
mod growth;

use std::time::Duration;

use common::*;
use frontend::gpu::{
    DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect, Request, ResponseKind,
};
use frontend::{
    Buffer, Deadline, Descriptor, Memory, Queue, SocketForm, descriptor_flags as flags,
};
use growth::{Holdings, peak_resident};
use virtio_bindings::virtio_gpu as v;

const XRGB: Format = Format::B8G8R8X8;
const HEADER: u32 = 24;
const CONTROL: u32 = 0;
const CURSOR: u32 = 1;

fn vm_with(arguments: &[&str]) -> GpuVm {
    let command = gpu_command(SocketForm::Connected(7)).args(arguments);
    let display = DisplayThread::start(DisplayOptions::default()).unwrap();
    GpuVm::of(command.spawn().unwrap(), display, GpuOptions::default())
}

/// Asserts that both queues and the display are as good as ever, with a driver that goes on.
fn assert_works(vm: &mut GpuVm) {
    vm.painted(0xfff1, XRGB, (16, 16));
    let whole = Rect::sized(16, 16);
    let before = vm.display.lock().of(Request::Update).count();
    ok(vm.gpu.set_scanout(0, 0xfff1, whole));
    ok(vm.gpu.flush(0xfff1, whole));
    vm.display.wait_count(Request::Update, before + 1).unwrap();
    assert_shows(&vm.display, 0, (16, 16), pattern);
    ok(vm.gpu.unref(0xfff1));
    assert_cursor_moves(vm);
}

/// Asserts that the cursor queue is served.
fn assert_cursor_moves(vm: &mut GpuVm) {
    let last = vm.display.lock().cursor.position;
    let next = (last.0 + 1, last.1 + 2);
    vm.gpu.update_cursor(0, next, 0, (0, 0)).unwrap();
    let moved = |d: &frontend::gpu::Display| (d.cursor.position == next).then_some(());
    vm.display.wait("the cursor to move", moved).unwrap();
}

/// A new driver finds a device that works.
fn assert_works_for_a_new_driver(mut vm: GpuVm) {
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    assert_works(&mut vm);
    vm.finish();
}

/// The answer of `kind` that lies in `page`.
fn kind_at(memory: &Memory, page: u64) -> ResponseKind {
    let mut bytes = [0; 4];
    memory.read(page, &mut bytes).unwrap();
    ResponseKind::from(u32::from_le_bytes(bytes))
}

#[test]
fn hostmem_is_what_the_option_says_and_is_given_back() {
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
fn hostmem_is_given_back_by_a_reset() {
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
fn a_size_that_is_none_is_an_early_failure() {
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
fn there_are_no_more_resources_than_the_bound() {
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
fn a_backing_has_no_more_entries_than_the_bound() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 64, 64));
    let address = vm.gpu.memory().alloc(4, 4).unwrap();
    let entries = vec![(address, 1); 16385];
    let many = vm.gpu.attach_backing(1, &entries);
    answered(many, ResponseKind::ErrInvalidParameter);
    ok(vm.gpu.attach_backing(1, &entries[..16384]));
    vm.finish();
}

/// A number in a request is no reason to allocate: only what the request carries is.
#[test]
fn no_allocation_follows_a_number_alone() {
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 64, 64));
    let address = vm.gpu.memory().alloc(4, 4).unwrap();
    let before = peak_resident(&vm.program);
    for count in [16384, 16385, 1 << 24, u32::MAX] {
        for _ in 0..100 {
            let short = vm.gpu.attach_backing_raw(1, count, &[(address, 4)]);
            answered(short, ResponseKind::ErrInvalidParameter);
        }
    }
    let grown = peak_resident(&vm.program) - before;
    assert!(grown < 512, "{grown} KiB for what was never sent");
    assert_works(&mut vm);
    vm.finish();
}

/// Wherever a request and its answer are cut into descriptors, and whether these are in a table of
/// their own, the answer is the same.
#[test]
fn the_answer_is_the_same_wherever_a_chain_is_split() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let (request_at, response_at) = (
        memory.alloc(4096, 4096).unwrap(),
        memory.alloc(4096, 4096).unwrap(),
    );
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    vm.gpu.fence_next(0x1122_3344_5566_7788);
    let request = vm.gpu.request(command, &[7, XRGB as u32, 0, 9]);
    memory.write(request_at, &request).unwrap();
    let (request_len, response_len) = (request.len() as u32, HEADER);
    let mut first = None;
    let split = |at: u64, len: u32, cut: u32, writable: bool| {
        [(0, cut), (cut, len - cut)].map(|(from, len)| Buffer {
            address: at + u64::from(from),
            len,
            writable,
        })
    };
    for cut in 0..=request_len {
        for response_cut in 0..=response_len {
            let chain = [
                split(request_at, request_len, cut, false),
                split(response_at, response_len, response_cut, true),
            ]
            .concat();
            memory.fill(response_at, 0xee, HEADER as usize + 8).unwrap();
            let queue = &mut vm.gpu.control.queue;
            let head = match cut % 2 {
                0 => queue.add(&chain),
                _ => queue.add_indirect(&chain),
            };
            queue.submit().unwrap();
            let used = queue.wait_used(QUICK).unwrap();
            assert_eq!((used.head, used.len), (head.unwrap(), HEADER));
            let mut answer = [0; HEADER as usize + 8];
            memory.read(response_at, &mut answer).unwrap();
            assert_eq!(answer[24..], [0xee; 8], "beyond the answer");
            let expected = *first.get_or_insert(answer);
            assert_eq!(answer, expected, "cut at {cut} and {response_cut}");
        }
    }
    assert_eq!(
        kind_at(&memory, response_at),
        ResponseKind::ErrInvalidParameter
    );
    assert_works(&mut vm);
    vm.finish();
}

/// Each chain comes back once, with an error where there is room for one, and with nothing written
/// where there is not.
#[test]
fn chains_that_make_no_sense_are_answered_and_given_back() {
    use ResponseKind::{
        ErrInvalidParameter as Short, ErrInvalidResourceId as NoResource, ErrUnspec,
    };
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let page = memory.alloc(4096, 4096).unwrap();
    let answer = page + 2048;
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF;
    let request = vm.gpu.request(command, &[1, 0]);
    memory.write(page, &request).unwrap();
    let len = request.len() as u32;
    let outside = memory.end();
    let read = Buffer::readable;
    let write = Buffer::writable;
    let whole = read(page, len);
    let room = write(answer, HEADER);
    let chains: [(&[Buffer], u32, Option<ResponseKind>); 17] = [
        // It works so.
        (&[whole, room], HEADER, Some(NoResource)),
        // Requests of nothing, of too little, that cannot be read, that are to be written.
        (&[room], HEADER, Some(Short)),
        (&[read(page, 0), room], HEADER, Some(Short)),
        (&[read(page, 3), room], HEADER, Some(Short)),
        (&[read(page, 23), room], HEADER, Some(Short)),
        (&[write(page + 1024, len), room], HEADER, None),
        (&[read(outside, len), room], HEADER, Some(ErrUnspec)),
        (&[read(outside - 8, len), room], HEADER, Some(ErrUnspec)),
        (&[read(u64::MAX - 8, len), room], HEADER, Some(ErrUnspec)),
        (&[read(0, len), room], HEADER, Some(ErrUnspec)),
        // Answers without room, with too little, that cannot be written, written before read.
        (&[whole], 0, None),
        (&[whole, write(answer, 0)], 0, None),
        (&[whole, write(answer, 23)], 0, None),
        (&[whole, write(outside, HEADER)], 0, None),
        (&[whole, write(answer, 8), write(u64::MAX - 3, 16)], 0, None),
        (&[room, whole], HEADER, Some(NoResource)),
        // More than 4 GiB in all: the chain is taken to end before that.
        (&[whole, write(answer, u32::MAX)], 0, None),
    ];
    for (chain, written, kind) in chains {
        memory.fill(answer, 0xee, 64).unwrap();
        let queue = &mut vm.gpu.control.queue;
        let head = queue.add(chain).unwrap();
        queue.submit().unwrap();
        let used = queue.wait_used(QUICK).unwrap();
        assert_eq!((used.head, used.len), (head, written), "{chain:x?}");
        if let Some(kind) = kind {
            assert_eq!(kind_at(&memory, answer), kind, "{chain:x?}");
        }
        assert_eq!(queue.take_used().unwrap(), None);
    }
    // As a table of nothing but empty pieces.
    let queue = &mut vm.gpu.control.queue;
    queue.add_indirect(&[read(page, 0); 60]).unwrap();
    queue.submit().unwrap();
    assert_eq!(queue.wait_used(QUICK).unwrap().len, 0);
    assert_works(&mut vm);
    vm.finish();
}

/// An answer larger than the room for it is an error, and not a part of it.
#[test]
fn an_answer_that_does_not_fit_is_an_error() {
    let mut vm = GpuVm::start();
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
    let request = vm.gpu.request(command, &[0, 0]);
    for room in [HEADER, HEADER + 8, HEADER + 8 + 1023] {
        let response = vm.gpu.control.command(&request, room).unwrap();
        assert_eq!(response.kind, ResponseKind::ErrUnspec);
        assert_eq!(response.written, HEADER, "{room} bytes of room");
    }
    let response = vm.gpu.control.command(&request, HEADER + 8 + 1024).unwrap();
    assert_eq!(response.kind, ResponseKind::OkEdid);
    vm.finish();
}

/// Chains without an end, tables in tables and tables that are none.
#[test]
fn chains_that_loop_end() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let page = memory.alloc(1 << 20, 4096).unwrap();
    let table = memory.alloc(1 << 20, 4096).unwrap();
    let descriptor = |address, len, flags, next| Descriptor {
        address,
        len,
        flags,
        next,
    };
    let (next, write, indirect) = (flags::NEXT, flags::WRITE, flags::INDIRECT);
    let put = |n: u64, d: Descriptor| {
        let bytes = [
            &d.address.to_le_bytes()[..],
            &d.len.to_le_bytes(),
            &d.flags.to_le_bytes(),
            &d.next.to_le_bytes(),
        ]
        .concat();
        memory.write(table + 16 * n, &bytes).unwrap();
    };
    // A table that leads back to its first entry, and one that is a table again.
    put(0, descriptor(page, 64, next, 1));
    put(1, descriptor(page, 64, next | write, 0));
    put(2, descriptor(table, 16, indirect, 0));
    let end = memory.end();
    let heads = [
        // To itself, to each other, out of the table, through the whole address space.
        descriptor(page, 16, next, 0),
        descriptor(page, 16, next | write, 0),
        descriptor(page, 16, next, 63),
        descriptor(page, 16, next, 64),
        descriptor(page, 16, next, u16::MAX),
        descriptor(0, u32::MAX, next, 0),
        descriptor(page, 0, next, 0),
        // Tables.
        descriptor(table, 32, indirect, 0),
        descriptor(table + 32, 16, indirect, 0),
        descriptor(table, 0, indirect, 0),
        descriptor(table, 15, indirect, 0),
        descriptor(table, u32::MAX & !15, indirect, 0),
        descriptor(table, 1 << 20, indirect, 0),
        descriptor(end, 32, indirect, 0),
        descriptor(u64::MAX - 7, 32, indirect, 0),
        descriptor(table, 32, indirect | next | write, 0),
        descriptor(table, 32, 0xffff, 0xffff),
    ];
    for head in heads {
        let queue = &mut vm.gpu.control.queue;
        queue.write_descriptor(0, head).unwrap();
        let back = descriptor(page, 16, next, 0);
        queue.write_descriptor(63, back).unwrap();
        queue.offer(0).unwrap();
        queue.submit().unwrap();
        let used = queue.wait_used(QUICK);
        assert_eq!(used.unwrap().head, 0, "{head:x?}");
        assert_cursor_moves(&mut vm);
    }
    // A table with as many entries as there can be, all of them there.
    let many = 65535_u64;
    let table = memory.alloc(16 * many, 4096).unwrap();
    let mut bytes = Vec::new();
    for n in 0..many {
        bytes.extend((page + n % 4096).to_le_bytes());
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        bytes.extend((n as u16).wrapping_add(1).to_le_bytes());
    }
    memory.write(table, &bytes).unwrap();
    let before = Holdings::of(&vm.program);
    let spent = vm.program.cpu_time().unwrap();
    for _ in 0..50 {
        let queue = &mut vm.gpu.control.queue;
        let len = (16 * many) as u32;
        let head = descriptor(table, len, indirect, 0);
        queue.write_descriptor(0, head).unwrap();
        queue.offer(0).unwrap();
        queue.submit().unwrap();
        queue.wait_used(QUICK).unwrap();
    }
    let spent = vm.program.cpu_time().unwrap() - spent;
    assert!(spent < Duration::from_secs(20), "{spent:?} for 50 of them");
    before.assert_not_grown(&vm.program, 16 << 10);
    assert_works_for_a_new_driver(vm);
}

#[test]
fn a_head_that_the_queue_does_not_have_stops_nothing() {
    let mut vm = GpuVm::start();
    for head in [64, 65, 1000, u16::MAX] {
        vm.gpu.control.queue.offer(head).unwrap();
        vm.gpu.control.queue.submit().unwrap();
    }
    assert_works(&mut vm);
    vm.finish();
}

/// The index of one queue's available ring runs away: the other queue goes on.
#[test]
fn a_queue_that_is_broken_stops_no_other() {
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
            std::thread::sleep(Duration::from_millis(20));
        }
        match broken {
            CONTROL => assert_cursor_moves(&mut vm),
            _ => drop(ok(vm.gpu.create_2d(1, XRGB, 8, 8))),
        }
        let spent = vm.program.cpu_time().unwrap() - spent;
        assert!(spent < Duration::from_millis(200), "{spent:?} for nothing");
        assert_works_for_a_new_driver(vm);
    }
}

/// Where a driver says that its rings lie, a front-end passes on. Nowhere is no reason to end.
#[test]
fn a_ring_where_none_can_lie_stops_nothing() {
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
            let head = [Buffer::writable(1 << 32, 24)];
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

/// The guest's memory goes away under a running queue and comes back: the other one goes on
/// meanwhile, and the program does not turn in circles.
#[test]
fn memory_that_goes_away_under_a_queue_stops_no_other() {
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
    assert!(spent < Duration::from_millis(500), "{spent:?}");
    vm.finish();
}

/// The worker may have an event of a ring under way while that is stopped and started with another
/// eventfd. (The crate would end the worker, finding nothing in the new one.)
#[test]
fn a_ring_that_is_restarted_while_the_worker_is_busy_goes_on() {
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
            Queue::new(vm.gpu.memory(), 16, vm.gpu.features() & 1 << 29 != 0).unwrap(),
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

#[test]
fn a_guest_cannot_flood_the_log() {
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
fn questions_that_are_never_answered_do_not_pile_up() {
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
fn thousands_of_rounds_leave_nothing_behind() {
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
            &[Buffer::readable(odd, 3), Buffer::writable(odd, 24)][..],
            &[Buffer::readable(memory.end(), 24)],
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
fn display_sockets_come_and_go_without_a_trace() {
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
