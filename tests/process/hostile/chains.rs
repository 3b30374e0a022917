// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests and responses of any length, in descriptors of any form.

use std::time::Duration;

use frontend::{Buffer, Descriptor, descriptor_flags as flags};
use virtio_bindings::virtio_gpu as v;

use super::*;
use crate::common::growth::Holdings;
use crate::common::*;
use frontend::gpu::EDID_RESPONSE_SIZE;

/// Wherever a request and its answer are cut into descriptors, and whether these are in a table of
/// their own, the answer is the same.
#[test]
fn response_is_the_same_wherever_a_chain_is_split() {
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
            assert_eq!(answer[HEADER_SIZE..], [0xee; 8], "beyond the answer");
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
fn malformed_chains_are_answered_and_returned() {
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
fn response_that_does_not_fit_is_an_error() {
    let mut vm = GpuVm::start();
    let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_GET_EDID;
    let request = vm.gpu.request(command, &[0, 0]);
    for room in [HEADER, HEADER + 8, EDID_RESPONSE_SIZE as u32 - 1] {
        let response = vm.gpu.control.command(&request, room).unwrap();
        assert_eq!(response.kind, ResponseKind::ErrUnspec);
        assert_eq!(response.written, HEADER, "{room} bytes of room");
    }
    let response = vm
        .gpu
        .control
        .command(&request, EDID_RESPONSE_SIZE as u32)
        .unwrap();
    assert_eq!(response.kind, ResponseKind::OkEdid);
    vm.finish();
}

/// Chains without an end, tables in tables and tables that are none.
#[test]
fn looping_chains_end() {
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
    // A table that leads back to its first entry, one that is a table again, and one that is itself.
    put(0, descriptor(page, 64, next, 1));
    put(1, descriptor(page, 64, next | write, 0));
    put(2, descriptor(table, 16, indirect, 0));
    put(3, descriptor(table + 48, 16, indirect, 0));
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
        descriptor(table + 48, 16, indirect, 0),
        descriptor(table, 0, indirect, 0),
        descriptor(table, 15, indirect, 0),
        descriptor(table, 0xffff_fff0, indirect, 0),
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
fn head_beyond_the_queue_stops_nothing() {
    let mut vm = GpuVm::start();
    for head in [64, 65, 1000, u16::MAX] {
        vm.gpu.control.queue.offer(head).unwrap();
        vm.gpu.control.queue.submit().unwrap();
    }
    assert_works(&mut vm);
    vm.finish();
}
