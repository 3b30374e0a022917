// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles that do wrong: the guest, the VMM's display and the other consoles notice nothing.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::common::growth::Holdings;

/// As a console sends them: request, flags, size.
fn header(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect()
}

/// A guest that draws, a display of the VMM's, and a console that does right.
struct Scene {
    vm: GpuVm,
    console: DisplayThread,
    backing: Backing,
    round: u32,
}

impl Scene {
    fn start() -> Self {
        let mut vm = with_vmm();
        let console = console(&mut vm.program);
        let backing = vm.painted(1, XRGB, SIZE);
        show_on_0(&mut vm.gpu, ALL);
        let scene = Self {
            vm,
            console,
            backing,
            round: 0,
        };
        scene.wait_shows(pattern);
        scene
    }

    fn wait_shows(&self, color: Color) {
        for display in [&self.vm.display, &self.console] {
            wait_shows(display, 0, SIZE, color);
        }
    }

    /// Draws another picture, which all others show.
    fn draw(&mut self) {
        self.round += 1;
        let color: Color = if self.round % 2 == 0 {
            pattern
        } else {
            negative
        };
        self.backing.write(0, &picture(XRGB, SIZE, color));
        ok(self.vm.gpu.transfer_to_host_2d(1, ALL, 0));
        ok(self.vm.gpu.flush(1, ALL));
        self.wait_shows(color);
    }

    fn connect(&mut self) -> UnixStream {
        self.vm.program.connect_further("display").unwrap()
    }

    fn finish(mut self) {
        self.draw();
        self.console.finish().unwrap();
        self.vm.finish();
    }
}

#[test]
fn wrong_messages_end_their_console_alone() {
    let mut scene = Scene::start();
    let features = [header(1, 4, 8), vec![0; 8]].concat();
    let cases: [Vec<u8>; 9] = [
        vec![0xff; 64],
        header(1, 4, u32::MAX),
        // A request that only the GPU makes; the extension without its feature.
        [header(7, 0, 12), vec![0; 12]].concat(),
        [features.clone(), header(0x1000, 0, 12), vec![0; 12]].concat(),
        // The features of a wrong size, and twice.
        [header(1, 4, 4), vec![0; 4]].concat(),
        features.repeat(2),
        // Replies to what a console is never asked.
        [header(3, 4, 408), vec![0; 408]].concat(),
        header(10, 4, 0),
        [header(11, 4, 1056), vec![0; 1056]].concat(),
    ];
    for case in cases {
        let mut socket = scene.connect();
        let _ = socket.write_all(&case);
        scene.draw();
        // What it was sent before it said this may still come.
        socket.set_read_timeout(Some(DEFAULT_LIMIT)).unwrap();
        let mut rest = Vec::new();
        let end = socket.read_to_end(&mut rest);
        let reset = |e: &std::io::Error| e.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(end.as_ref().err().is_none_or(reset), "{case:?}: {end:?}");
    }
    scene.finish();
}

/// In the middle of a message of its own, of the GPU's, or without a word.
#[test]
fn consoles_that_leave_anywhere_are_forgotten() {
    let mut scene = Scene::start();
    scene.draw();
    let before = Holdings::of(&scene.vm.program);
    for round in 0..100 {
        let mut socket = scene.connect();
        match round % 4 {
            0 => {}
            1 => socket.write_all(&[1, 0, 0]).unwrap(),
            2 => {
                let features = [header(1, 4, 8), vec![0; 8]].concat();
                socket.write_all(&features).unwrap();
                socket.read_exact(&mut [0; 40]).unwrap();
            }
            _ => socket.write_all(&header(1, 4, 8)).unwrap(),
        }
        drop(socket);
        if round % 10 == 0 {
            scene.draw();
        }
    }
    scene.draw();
    let deadline = Deadline::default();
    deadline
        .until("the end of all consoles", || {
            let now = Holdings::of(&scene.vm.program);
            Ok((now.descriptors <= before.descriptors).then_some(()))
        })
        .unwrap();
    before.assert_not_grown(&scene.vm.program, 2048);
    scene.finish();
}

/// A console that reads nothing costs no memory, however much the guest draws, and has the last picture once it reads.
#[test]
fn console_that_does_not_read_is_waited_for_by_nobody() {
    let mut scene = Scene::start();
    let slow = console(&mut scene.vm.program);
    wait_shows(&slow, 0, SIZE, pattern);
    slow.pause();
    let big = (1024, 1024);
    ok(scene.vm.gpu.create_2d(2, XRGB, big.0, big.1));
    let whole = Rect::sized(big.0, big.1);
    let backing = scene.vm.painted(3, XRGB, (64, 64));
    for _ in 0..3 {
        ok(scene.vm.gpu.set_scanout(1, 2, whole));
        ok(scene.vm.gpu.flush(2, whole));
        ok(scene.vm.gpu.set_scanout(1, 0, whole));
    }
    let before = Holdings::of(&scene.vm.program);
    for round in 0..200 {
        ok(scene.vm.gpu.set_scanout(1, 2, whole));
        ok(scene.vm.gpu.flush(2, whole));
        if round % 20 == 0 {
            scene.draw();
        }
    }
    before.assert_not_grown(&scene.vm.program, 4096);
    drop(backing);
    slow.resume();
    let last: Color = if scene.round % 2 == 0 {
        pattern
    } else {
        negative
    };
    wait_shows(&slow, 0, SIZE, last);
    wait_shows(&slow, 1, big, |_, _| [0, 0, 0]);
    scene.finish();
}

/// Four of them, which never end: the guest is served, and the others too once one left.
#[test]
fn floods_do_not_stop_the_guest() {
    let mut scene = Scene::start();
    let features = [header(1, 4, 8), (1_u64 << 32).to_ne_bytes().to_vec()].concat();
    let resize = [header(0x1000, 0, 12), vec![0; 12]].concat().repeat(100);
    let sockets: Vec<_> = (0..3).map(|_| scene.connect()).collect();
    for mut socket in &sockets {
        // It is accepted.
        socket.read_exact(&mut [0; 12]).unwrap();
    }
    let floods = sockets.iter().map(|socket| {
        let mut socket = socket.try_clone().unwrap();
        let (features, resize) = (features.clone(), resize.clone());
        std::thread::spawn(move || {
            // Its own connection may end; nothing else does.
            let _ = socket.write_all(&features);
            while socket.write_all(&resize).is_ok() {}
        })
    });
    let floods: Vec<_> = floods.collect();
    let before = Holdings::of(&scene.vm.program);
    for _ in 0..20 {
        scene.draw();
    }
    before.assert_not_grown(&scene.vm.program, 4096);
    for socket in &sockets {
        socket.shutdown(std::net::Shutdown::Both).unwrap();
    }
    for flood in floods {
        flood.join().unwrap();
    }
    scene.finish();
}

/// Connections that come and go as fast as it goes cost the guest little: one is accepted in a turn of the worker's.
#[test]
fn connections_that_come_and_go_delay_no_drawing() {
    let mut scene = Scene::start();
    // All places are taken, so that each further one is closed at once.
    let _others: Vec<_> = (1..MAX_CONSOLES).map(|_| scene.connect()).collect();
    scene.draw();
    let before = Holdings::of(&scene.vm.program);
    let path = scene.vm.program.further_path("display");
    let stop = AtomicBool::new(false);
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // Full queues are refused.
                let came = UnixStream::connect(&path).is_ok();
                count.fetch_add(came.into(), Ordering::Relaxed);
            }
        });
        // One that starved would not be answered in time.
        while count.load(Ordering::Relaxed) < 20_000 {
            ok(scene.vm.gpu.flush(1, ALL));
        }
        stop.store(true, Ordering::Relaxed);
    });
    // Connections are accepted in their order, so those before this one are closed, too.
    let mut last = UnixStream::connect(&path).unwrap();
    last.set_read_timeout(Some(QUICK)).unwrap();
    match last.read(&mut [0]) {
        Ok(read) => assert_eq!(read, 0),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
    drop(last);
    scene.draw();
    Deadline::default()
        .until("closed connections", || {
            let now = scene.vm.program.open_descriptors()?;
            Ok((now == before.descriptors).then_some(()))
        })
        .unwrap();
    before.assert_not_grown(&scene.vm.program, 4 << 10);
    let log = scene.vm.program.stderr();
    assert!(log.lines().count() < 100, "{log}");
}
