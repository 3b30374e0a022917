// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What consoles are shown.

use frontend::gpu::Edid;
use frontend::{Session, VhostUserProtocolFeatures};
use vhost::vhost_user::message::FrontendReq;

use super::*;

#[test]
fn consoles_show_what_the_vmm_shows() {
    let mut vm = with_vmm();
    let early = console(&mut vm.program);
    let backing = vm.painted(1, XRGB, SIZE);
    show_on_0(&mut vm.gpu, ALL);
    let late = console(&mut vm.program);
    for display in [&vm.display, &early, &late] {
        wait_shows(display, 0, SIZE, pattern);
    }
    // A part changes.
    backing.write(0, &picture(XRGB, SIZE, negative));
    let part = Rect::new(10, 20, 30, 15);
    let offset = u64::from((part.y * SIZE.0 + part.x) * 4);
    ok(vm.gpu.transfer_to_host_2d(1, part, offset));
    ok(vm.gpu.flush(1, part));
    let mixed: Color = |x, y| match (x, y) {
        (10..40, 20..35) => negative(x, y),
        _ => pattern(x, y),
    };
    for display in [&vm.display, &early, &late] {
        wait_shows(display, 0, SIZE, mixed);
    }
    // Only that part was sent again.
    let last = early.lock().of(Request::Update).last().copied().unwrap();
    assert_eq!(last.rect(), part);
    for console in [early, late] {
        console.finish().unwrap();
    }
    vm.finish();
}

#[test]
fn consoles_show_all_heads_and_the_cursor() {
    let mut vm = with_vmm();
    vm.painted(1, XRGB, SIZE);
    ok(vm.gpu.set_scanout(0, 1, Rect::sized(32, 64)));
    ok(vm.gpu.set_scanout(3, 1, Rect::new(32, 0, 64, 64)));
    ok(vm.gpu.flush(1, ALL));
    vm.painted(2, Format::B8G8R8A8, (64, 64));
    vm.gpu.update_cursor(3, (7, 9), 2, (1, 2)).unwrap();
    let cursor = |d: &frontend::gpu::Display| d.cursor.visible.then(|| d.cursor.clone());
    let console = console(&mut vm.program);
    let seen = console.wait("the cursor", cursor).unwrap();
    assert_eq!(seen, vm.display.wait("the cursor", cursor).unwrap());
    assert_eq!((seen.scanout, seen.position), (3, (7, 9)));
    wait_shows(&console, 0, (32, 64), pattern);
    wait_shows(&console, 3, (64, 64), |x, y| pattern(x + 32, y));
    wait_off(&console, 1);
    wait_off(&console, 15);
    console.finish().unwrap();
    vm.finish();
}

/// What the VMM gives no display for has the sizes of `--resolution`, and consoles see it.
#[test]
fn without_a_vmm_sizes_are_the_consoles() {
    let mut program = listening()
        .arg("--resolution=1600x900,800x600")
        .spawn()
        .unwrap();
    let console = console(&mut program);
    let session = program.session().unwrap();
    let memory = guest_memory();
    let none: Option<UnixStream> = None;
    let mut gpu = Gpu::start(session, &memory, none, GpuOptions::default()).unwrap();
    assert_eq!(gpu.config().unwrap().0, 2);
    let info = gpu.get_display_info().unwrap();
    let enabled: Vec<_> = info.iter().filter(|mode| mode.enabled).collect();
    let rects: Vec<_> = enabled.iter().map(|mode| mode.rect).collect();
    assert_eq!(
        rects,
        [Rect::sized(1600, 900), Rect::new(1600, 0, 800, 600)]
    );
    for (scanout, size) in [(0, (1600, 900)), (1, (800, 600))] {
        let edid = Edid::parse(&gpu.get_edid(scanout).unwrap()).unwrap();
        assert_eq!((edid.width, edid.height), size);
    }

    ok(gpu.create_2d(1, XRGB, SIZE.0, SIZE.1));
    let backing = Backing::new(gpu.memory(), SIZE.0 * SIZE.1 * 4, Pieces::Whole);
    ok(gpu.attach_backing(1, &backing.entries));
    backing.write(0, &picture(XRGB, SIZE, pattern));
    ok(gpu.transfer_to_host_2d(1, ALL, 0));
    show_on_0(&mut gpu, ALL);
    wait_shows(&console, 0, SIZE, pattern);
    console.finish().unwrap();
    drop(gpu);
    assert_clean_exit(&mut program);
}

/// A console knows that heads are off: before there is a front-end, once the driver is gone for good, and until the
/// next one shows something.
#[test]
fn consoles_are_told_of_heads_that_are_off() {
    let mut program = listening().spawn().unwrap();
    let early = console(&mut program);
    wait_off(&early, 0);
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    let mut session = program.session().unwrap();
    let usual = Session::usual_protocol_features();
    let offer = session.negotiate(usual | VhostUserProtocolFeatures::RESET_DEVICE);
    let memory = guest_memory();
    let gpu = Gpu::on(session, offer.unwrap(), &memory, GpuOptions::default());
    let mut vm = GpuVm {
        gpu: gpu.unwrap(),
        display,
        program,
    };
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, SIZE);
    show_on_0(&mut vm.gpu, ALL);
    wait_shows(&early, 0, SIZE, pattern);

    // A reset as QEMU 10 tells of it.
    vm.gpu.stop().unwrap();
    vm.gpu
        .session
        .request(FrontendReq::RESET_DEVICE, &[], &[])
        .unwrap();
    wait_off(&early, 0);
    let late = console(&mut vm.program);
    wait_off(&late, 0);

    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (64, 48));
    show_on_0(&mut vm.gpu, Rect::sized(64, 48));
    for console in [&early, &late, &vm.display] {
        wait_shows(console, 0, (64, 48), pattern);
    }
    vm.finish();
}

/// Front-ends that do not tell of a reset stop the rings, as they do for a pause: the picture stays until the next
/// driver begins.
#[test]
fn picture_stays_while_the_guest_may_be_paused() {
    let mut vm = with_vmm();
    vm.painted(1, XRGB, SIZE);
    show_on_0(&mut vm.gpu, ALL);
    let early = console(&mut vm.program);
    wait_shows(&early, 0, SIZE, pattern);
    vm.gpu.stop().unwrap();
    let late = console(&mut vm.program);
    wait_shows(&late, 0, SIZE, pattern);
    let (display, socket) = DisplayThread::start(DisplayOptions::default()).unwrap();
    vm.display = display;
    vm.gpu.restart(Some(socket)).unwrap();
    vm.painted(1, XRGB, (64, 48));
    for console in [&early, &late] {
        wait_off(console, 0);
    }
    show_on_0(&mut vm.gpu, Rect::sized(64, 48));
    for console in [&early, &late] {
        wait_shows(console, 0, (64, 48), pattern);
    }
    vm.finish();
}

#[test]
fn more_consoles_than_are_served_are_closed_at_once() {
    let mut vm = with_vmm();
    vm.painted(1, XRGB, SIZE);
    show_on_0(&mut vm.gpu, ALL);
    let mut consoles: Vec<_> = (0..MAX_CONSOLES)
        .map(|_| console(&mut vm.program))
        .collect();
    for console in &consoles {
        wait_shows(console, 0, SIZE, pattern);
    }
    for _ in 0..3 {
        assert_closed(&vm.program.connect_further("display").unwrap());
    }
    // Whoever comes after one left is served. The end of that one may be seen a little later.
    for round in 0..3 {
        drop(consoles.pop());
        let next = Deadline::default().until("a console", || {
            let console = console(&mut vm.program);
            let shown = console.wait("an answer or the end", |display| {
                let shown = display.surfaces[0].is_some();
                (shown || display.closed).then_some(shown)
            });
            Ok(shown?.then_some(console))
        });
        wait_shows(next.as_ref().unwrap(), 0, SIZE, pattern);
        consoles.push(next.unwrap());
        assert_eq!(consoles.len(), MAX_CONSOLES, "round {round}");
    }
    vm.finish();
}
