// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Drivers and displays that come and go, or are late.

use super::*;
use crate::common::growth::minor_faults;

/// What QEMU does at a guest's reboot and at each load of its driver.
#[test]
fn new_driver_gets_a_new_display_and_begins_with_no_resources() {
    let mut vm = GpuVm::start();
    for round in 0..4_u32 {
        let size = (30 + round, 20);
        vm.painted(1, XRGB, size);
        show(&mut vm, 1, Rect::sized(size.0, size.1));
        assert_shows(&vm.display, 0, size, pattern);

        vm.gpu.stop().unwrap();
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        std::mem::replace(&mut vm.display, display)
            .finish()
            .unwrap();
        vm.gpu.restart(Some(socket)).unwrap();
        answered(
            vm.gpu.flush(1, Rect::sized(1, 1)),
            ResponseKind::ErrInvalidResourceId,
        );
    }
    let open = vm.program.open_descriptors().unwrap();
    for _ in 0..10 {
        vm.gpu.stop().unwrap();
        let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
        std::mem::replace(&mut vm.display, display)
            .finish()
            .unwrap();
        vm.gpu.restart(Some(socket)).unwrap();
        vm.gpu.get_display_info().unwrap();
    }
    assert!(
        vm.program.open_descriptors().unwrap() <= open,
        "descriptors leak"
    );
    vm.finish();
}

/// The kernel clears each page that it gives.
#[test]
fn large_lists_of_entries_come_and_go_without_the_kernel() {
    const ROUNDS: u64 = 200;
    let mut vm = GpuVm::start();
    ok(vm.gpu.create_2d(1, XRGB, 1024, 8192));
    let page = vm.gpu.memory().alloc(4096, 4096).unwrap();
    // Each is a run of its own, as none begins where another one ends. The list has room for 8192 until it is complete.
    let entries = vec![(page, 4096); 8000];
    let mut before = 0;
    for round in 0..ROUNDS + 5 {
        if round == 5 {
            before = minor_faults(&vm.program);
        }
        ok(vm.gpu.attach_backing(1, &entries));
        ok(vm.gpu.detach_backing(1));
    }
    let faults = minor_faults(&vm.program) - before;
    // Each list has 32 pages.
    assert!(faults < 2 * ROUNDS, "{faults} pages for {ROUNDS} lists");
    vm.finish();
}

#[test]
fn commands_work_without_a_display() {
    let mut program = gpu_command(SocketForm::Connected(4)).spawn().unwrap();
    let session = program.session().unwrap();
    let none = None::<std::os::unix::net::UnixStream>;
    let mut gpu = Gpu::start(session, &guest_memory(), none, GpuOptions::default()).unwrap();
    let info = gpu.get_display_info().unwrap();
    assert!(
        info[0].enabled && info[0].rect.width > 0,
        "a guest without a screen does not start"
    );
    Edid::parse(&gpu.get_edid(0).unwrap()).unwrap();
    ok(gpu.create_2d(1, XRGB, 16, 16));
    let backing = Backing::new(gpu.memory(), 16 * 16 * 4, Pieces::Whole);
    backing.write(0, &picture(XRGB, (16, 16), pattern));
    ok(gpu.attach_backing(1, &backing.entries));
    ok(gpu.transfer_to_host_2d(1, Rect::sized(16, 16), 0));
    ok(gpu.set_scanout(0, 1, Rect::sized(16, 16)));
    ok(gpu.flush(1, Rect::sized(16, 16)));
    gpu.update_cursor(0, (1, 2), 0, (0, 0)).unwrap();
    gpu.move_cursor(0, (3, 4), 0).unwrap();

    // A display that comes later shows what is there at the next flush.
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    gpu.session.set_gpu_socket(socket).unwrap();
    ok(gpu.set_scanout(0, 1, Rect::sized(16, 16)));
    ok(gpu.flush(1, Rect::sized(16, 16)));
    display.wait_count(Request::Update, 1).unwrap();
    assert_shows(&display, 0, (16, 16), pattern);
    drop(gpu);
    assert_clean_exit(&mut program);
    display.finish().unwrap();
}

#[test]
fn closed_display_does_not_stop_the_guest() {
    let cut_short = DisplayOptions {
        close_after: Some(600),
        ..DisplayOptions::default()
    };
    let cut_answer = DisplayOptions {
        cut_answer: Some((Request::GetDisplayInfo, 30)),
        ..DisplayOptions::default()
    };
    for options in [cut_short, cut_answer] {
        let mut vm = GpuVm::with_display(options);
        let info = vm.gpu.get_display_info().unwrap();
        assert_eq!(info.len(), MAX_SCANOUTS);
        vm.painted(1, XRGB, (64, 64));
        for _ in 0..3 {
            ok(vm.gpu.set_scanout(0, 1, Rect::sized(64, 64)));
            ok(vm.gpu.flush(1, Rect::sized(64, 64)));
            vm.gpu.get_display_info().unwrap();
        }
        vm.finish();
    }
}

#[test]
fn late_display_is_waited_for() {
    let delay = Duration::from_millis(300);
    let mut vm = GpuVm::with_display(DisplayOptions {
        delay,
        ..DisplayOptions::default()
    });
    assert_eq!(
        vm.gpu.get_display_info().unwrap()[0].rect,
        Rect::sized(1024, 768)
    );
    vm.finish();
}

#[test]
fn stuck_display_gets_the_right_picture_later() {
    let mut vm = GpuVm::with_display(DisplayOptions {
        buffer: Some(4096),
        ..DisplayOptions::default()
    });
    // More than the socket takes.
    let size = (1024, 1024);
    let whole = Rect::sized(1024, 1024);
    let backing = vm.painted(1, XRGB, size);
    show(&mut vm, 1, whole);

    // What the display does not take waits; how long the guest waits for its flush is the
    // backend's choice, that no picture is torn or lost is not.
    vm.display.pause();
    backing.write(0, &picture(XRGB, size, negative));
    ok(vm.gpu.transfer_to_host_2d(1, whole, 0));
    let flush = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_RESOURCE_FLUSH;
    let tickets: Vec<_> = (0..8)
        .map(|_| vm.gpu.push(flush, &[0, 0, 1024, 1024, 1, 0]).unwrap())
        .collect();
    vm.gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    // What was sent of that picture by now is another's.
    let last = |x, y| pattern(y, x);
    backing.write(0, &picture(XRGB, size, last));
    let transfer = v::virtio_gpu_ctrl_type_VIRTIO_GPU_CMD_TRANSFER_TO_HOST_2D;
    let transfer = vm.gpu.push(transfer, &[0, 0, 1024, 1024, 0, 0, 1, 0]);
    let flush = vm.gpu.push(flush, &[0, 0, 1024, 1024, 1, 0]);
    vm.gpu.control.queue.submit().unwrap();
    std::thread::sleep(Duration::from_millis(100));
    vm.display.resume();
    let tickets = tickets.into_iter();
    for ticket in tickets.chain([transfer.unwrap(), flush.unwrap()]) {
        ok(vm.gpu.control.wait(ticket));
    }
    let shown = |d: &frontend::gpu::Display| {
        let surface = d.surface(0).ok()?;
        let is_there = |x, y| Some(surface.rgb(x, y)? == last(x, y));
        (is_there(1, 0)? && is_there(1023, 1023)?).then_some(())
    };
    vm.display.wait("the last picture", shown).unwrap();
    assert_shows(&vm.display, 0, size, last);
    vm.finish();
}
