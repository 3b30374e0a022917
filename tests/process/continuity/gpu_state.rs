// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A 2D GPU without a display whose process is replaced: what the guest has set up stays, and each command is done once.

use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use frontend::gpu::{Format, Gpu, GpuOptions, Rect, ResponseKind};
use frontend::manager::{Service, ServiceOptions};

use crate::common::*;

const RESOURCES: u32 = 20;
const SIDE: u32 = 64;

fn start(args: &[&str]) -> (Service, Gpu) {
    let options = ServiceOptions::new(gpu_program()).args(args);
    let service = options.start().unwrap();
    let memory = guest_memory();
    let session = service.session().unwrap();
    let gpu = Gpu::start(session, &memory, None::<UnixStream>, GpuOptions::default()).unwrap();
    (service, gpu)
}

fn finish(mut service: Service, gpu: Gpu) {
    drop(gpu);
    let status = service.wait_exit().unwrap();
    assert!(status.success(), "{status}; log:\n{}", service.log());
}

#[test]
fn resources_of_the_guest_stay() {
    let (mut service, mut gpu) = start(&["--max-hostmem=1M"]);
    let mut uuids = Vec::new();
    for id in 1..=RESOURCES {
        ok(gpu.create_2d(id, Format::B8G8R8X8, SIDE, SIDE));
        let backing = Backing::new(gpu.memory(), SIDE * SIDE * 4, Pieces::Whole);
        ok(gpu.attach_backing(id, &backing.entries));
        uuids.push(gpu.assign_uuid(id).unwrap().body);
    }
    // What is left of the budget.
    let mut more = RESOURCES;
    while gpu
        .create_2d(more + 1, Format::B8G8R8X8, SIDE, SIDE)
        .unwrap()
        .kind
        == ResponseKind::OkNodata
    {
        more += 1;
    }
    for round in 0..5 {
        match round % 2 {
            0 => service.kill_and_start().unwrap(),
            _ => assert!(Service::is_success(service.restart().unwrap())),
        }
        for (id, uuid) in (1..=RESOURCES).zip(&uuids) {
            let again = gpu.create_2d(id, Format::B8G8R8X8, SIDE, SIDE);
            answered(again, ResponseKind::ErrInvalidResourceId);
            assert_eq!(gpu.assign_uuid(id).unwrap().body, *uuid);
            ok(gpu.transfer_to_host_2d(id, Rect::sized(SIDE, SIDE), 0));
        }
        // The budget is used as before, and what was given back can be used again.
        let over = gpu.create_2d(more + 1, Format::B8G8R8X8, SIDE, SIDE);
        answered(over, ResponseKind::ErrOutOfMemory);
        ok(gpu.unref(more));
        ok(gpu.create_2d(more, Format::B8G8R8X8, SIDE, SIDE));
    }
    // The same driver goes on after a stop, and a new one finds nothing.
    gpu.stop().unwrap();
    service.kill_and_start().unwrap();
    gpu.restart(None::<UnixStream>).unwrap();
    answered(
        gpu.create_2d(1, Format::B8G8R8X8, SIDE, SIDE),
        ResponseKind::OkNodata,
    );
    finish(service, gpu);
}

#[test]
fn each_command_is_done_once_while_processes_die() {
    let (mut service, mut gpu) = start(&[]);
    let backing = Backing::new(gpu.memory(), SIDE * SIDE * 4, Pieces::Whole);
    let is_over = AtomicBool::new(false);
    let rounds = AtomicU32::new(0);
    let gpu = std::thread::scope(|scope| {
        let draws = scope.spawn(|| {
            let whole = Rect::sized(SIDE, SIDE);
            while !is_over.load(Ordering::Relaxed) {
                let id = 1 + rounds.load(Ordering::Relaxed) % RESOURCES;
                // Each of them is an error if it is done twice, or not at all.
                ok(gpu.create_2d(id, Format::B8G8R8X8, SIDE, SIDE));
                ok(gpu.attach_backing(id, &backing.entries));
                ok(gpu.transfer_to_host_2d(id, whole, 0));
                ok(gpu.set_scanout(0, id, whole));
                ok(gpu.flush(id, whole));
                ok(gpu.detach_backing(id));
                ok(gpu.unref(id));
                rounds.fetch_add(1, Ordering::Relaxed);
            }
            gpu
        });
        for number in 0..30 {
            // Each process does something before it dies, in the middle of something else.
            let goal = rounds.load(Ordering::Relaxed) + 1 + number % 4 * 20;
            while rounds.load(Ordering::Relaxed) < goal && !draws.is_finished() {
                std::thread::yield_now();
            }
            service.kill_and_start().unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        draws.join().unwrap()
    });
    println!("{rounds:?} rounds, {} processes", service.starts());
    finish(service, gpu);
}
