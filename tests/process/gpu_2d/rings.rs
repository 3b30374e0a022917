// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests in any layout, and virtqueues with any feature.

use super::*;
use frontend::features::{EVENT_IDX, INDIRECT_DESC};
use frontend::gpu::HEADER_SIZE;

#[test]
fn requests_work_in_any_layout() {
    let layouts = [
        Layout::Plain,
        Layout::Pieces(24),
        Layout::Pieces(7),
        Layout::Indirect,
        Layout::IndirectPieces(1),
        Layout::IndirectPieces(13),
    ];
    let mut vm = GpuVm::with_display(DisplayOptions::with_modes(&[(48, 48)]));
    assert_ne!(
        vm.gpu.features() & INDIRECT_DESC,
        0,
        "INDIRECT_DESC is not offered"
    );
    for (id, layout) in (1..).zip(layouts) {
        vm.gpu.control.layout = layout;
        ok(vm.gpu.create_2d(id, XRGB, 16, 16));
        let backing = Backing::new(vm.gpu.memory(), 16 * 16 * 4, Pieces::Whole);
        backing.write(0, &picture(XRGB, (16, 16), pattern));
        ok(vm.gpu.attach_backing(id, &backing.entries));
        ok(vm.gpu.transfer_to_host_2d(id, Rect::sized(16, 16), 0));
        show(&mut vm, id, Rect::sized(16, 16));
        assert_shows(&vm.display, 0, (16, 16), pattern);
        answered(vm.gpu.unref(1000), ResponseKind::ErrInvalidResourceId);
    }
    vm.gpu.control.layout = Layout::IndirectPieces(50);
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(48, 48)
    );
    vm.finish();
}

#[test]
fn gpu_works_with_and_without_each_ring_feature() {
    for features in [0, INDIRECT_DESC, EVENT_IDX, INDIRECT_DESC | EVENT_IDX] {
        let options = GpuOptions {
            features,
            ..GpuOptions::default()
        };
        let mut vm = GpuVm::with(DisplayOptions::default(), options);
        assert_eq!(
            vm.gpu.features() & (3 << 28),
            features,
            "EVENT_IDX or INDIRECT is not offered"
        );
        // Far more than the queue has entries: the indices wrap.
        for round in 0..300 {
            ok(vm.gpu.create_2d(round + 1, XRGB, 4, 4));
        }
        vm.finish();
    }
}

#[test]
fn commands_of_one_kick_need_few_notifications() {
    for features in [0, EVENT_IDX] {
        let options = GpuOptions {
            features,
            ..GpuOptions::default()
        };
        let mut vm = GpuVm::with(DisplayOptions::default(), options);
        let before = vm.gpu.control.queue.notifications().unwrap();
        let command = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
        let mut tickets = HashSet::new();
        for id in 1..=30 {
            let ticket = vm.gpu.push(command, &[id, XRGB as u32, 4, 4]).unwrap();
            tickets.insert(format!("{ticket:?}"));
        }
        assert_eq!(tickets.len(), 30);
        if features != 0 {
            // Asks for one notification, at the last.
            vm.gpu.control.queue.set_used_event(29).unwrap();
        }
        vm.gpu.control.queue.submit().unwrap();
        let all = || "30 used chains".to_string();
        let deadline = frontend::Deadline::default();
        let queue = &vm.gpu.control.queue;
        deadline
            .until(all(), || Ok((queue.used_index()? == 30).then_some(())))
            .unwrap();
        for _ in 0..30 {
            let (_, response) = vm.gpu.control.next_response().unwrap();
            assert_eq!(response.kind, ResponseKind::OkNodata);
        }
        std::thread::sleep(Duration::from_millis(20));
        let notified = vm.gpu.control.queue.notifications().unwrap() - before;
        match features {
            0 => assert!((1..=30).contains(&notified), "{notified} notifications"),
            // A device that has never notified before may do so once more.
            _ => assert!((1..=2).contains(&notified), "{notified} notifications"),
        }
        vm.finish();
    }
}

#[test]
fn notifications_stay_off_when_suppressed() {
    let options = GpuOptions {
        features: 0,
        ..GpuOptions::default()
    };
    let mut vm = GpuVm::with(DisplayOptions::default(), options);
    vm.gpu.control.queue.suppress_notifications(true).unwrap();
    let before = vm.gpu.control.queue.notifications().unwrap();
    let create = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_CREATE_2D;
    vm.gpu.push(create, &[1, XRGB as u32, 4, 4]).unwrap();
    vm.gpu.control.queue.submit().unwrap();
    let queue = &vm.gpu.control.queue;
    let deadline = frontend::Deadline::default();
    deadline
        .until("a used chain", || {
            Ok((queue.used_index()? == 1).then_some(()))
        })
        .unwrap();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(vm.gpu.control.queue.notifications().unwrap(), before);
    vm.gpu.control.queue.suppress_notifications(false).unwrap();
    vm.gpu.control.next_response().unwrap();
    ok(vm.gpu.unref(1));
    vm.finish();
}

/// Chains no driver makes: the device answers what it can and lives.
#[test]
fn broken_chains_do_not_stop_the_device() {
    let mut vm = GpuVm::start();
    let memory = vm.gpu.memory().clone();
    let page = memory.alloc(4096, 4096).unwrap();
    let request = vm.gpu.request(
        v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_UNREF,
        &[1, 0],
    );
    memory.write(page, &request).unwrap();
    let len = request.len() as u32;
    let outside = memory.end();
    let chains: [&[Buffer]; 9] = [
        // Too short for a header, and with nothing to read at all.
        &[
            Buffer::readable(page, 3),
            Buffer::writable(page + 512, HEADER_SIZE as u32),
        ],
        &[Buffer::writable(page + 512, HEADER_SIZE as u32)],
        // No room for the answer.
        &[Buffer::readable(page, len)],
        &[Buffer::readable(page, len), Buffer::writable(page + 512, 4)],
        // Empty pieces.
        &[Buffer::readable(page, 0), Buffer::writable(page + 512, 0)],
        // Written before read.
        &[
            Buffer::writable(page + 512, HEADER_SIZE as u32),
            Buffer::readable(page, len),
        ],
        // Outside the memory.
        &[
            Buffer::readable(outside, len),
            Buffer::writable(page + 512, HEADER_SIZE as u32),
        ],
        &[
            Buffer::readable(page, len),
            Buffer::writable(outside, HEADER_SIZE as u32),
        ],
        &[
            Buffer::readable(u64::MAX - 8, len),
            Buffer::writable(page + 512, HEADER_SIZE as u32),
        ],
    ];
    for chain in chains {
        let queue = &mut vm.gpu.control.queue;
        queue.add(chain).unwrap();
        queue.submit().unwrap();
        // A chain that makes no sense may be given back or not.
        std::thread::sleep(Duration::from_millis(5));
        while queue.take_used().unwrap().is_some() {}
    }
    assert!(
        vm.program.try_exit().unwrap().is_none(),
        "the program ended"
    );

    // A new driver finds a device that works.
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    vm.finish();
}

#[test]
fn runaway_available_index_costs_no_time_and_no_log() {
    let mut vm = GpuVm::start();
    let before = vm.program.cpu_time().unwrap();
    for _ in 0..100 {
        let queue = &mut vm.gpu.control.queue;
        queue.force_available_index(40_000).unwrap();
        queue.kick().unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    let used = vm.program.cpu_time().unwrap() - before;
    assert!(
        used < Duration::from_millis(600),
        "it used {used:?} for nothing"
    );
    let lines = vm.program.stderr().lines().count();
    assert!(lines < 50, "{}", vm.program.stderr());

    // A new driver finds a device that works.
    vm.gpu.stop().unwrap();
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (16, 16));
    show(&mut vm, 1, Rect::sized(16, 16));
    vm.finish();
}
