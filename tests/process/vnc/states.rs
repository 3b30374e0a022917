// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What viewers see while there is no picture of the guest.

use std::time::{Duration, Instant};

use conventions::ScreenState;
use display_protocol::{Features, request};
use rfb::Encoding;

use super::{Console, FakeGpu, assert_shows, assert_shows_text, picture};
use crate::common::QUICK;

const ENCODINGS: [Encoding; 3] = [
    Encoding::ZRLE,
    Encoding::DESKTOP_SIZE,
    Encoding::DESKTOP_NAME,
];

#[test]
fn gpu_that_comes_later_is_shown() {
    let mut console = Console::start(&[]);
    let mut viewer = console.viewer();
    viewer.set_encodings(&ENCODINGS).unwrap();
    assert_shows_text(&mut viewer, ScreenState::Unreachable);
    let mut gpu = FakeGpu::listen(&console.display());
    gpu.accept(Features::default());
    assert_shows_text(&mut viewer, ScreenState::Waiting);
    let pixels = picture(300, 200, 1);
    gpu.scanout(0, 300, 200);
    gpu.update(0, 0, 300, 200, &pixels);
    assert_shows(&mut viewer, (300, 200), &pixels);
    assert_eq!(viewer.name(), "vm1");
}

#[test]
fn head_that_is_switched_off_and_on_again_keeps_its_viewers() {
    let first = picture(640, 480, 1);
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &first, &ENCODINGS);
    gpu.scanout(0, 0, 0);
    assert_shows_text(&mut viewer, ScreenState::Off);
    // The window stays as it is.
    assert_eq!(
        (viewer.frame().width(), viewer.frame().height()),
        (640, 480)
    );
    let second = picture(800, 600, 2);
    gpu.scanout(0, 800, 600);
    gpu.update(0, 0, 800, 600, &second);
    assert_shows(&mut viewer, (800, 600), &second);
}

#[test]
fn gpu_that_ends_is_shown_again_when_it_is_back() {
    let pixels = picture(640, 480, 1);
    let (console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &ENCODINGS);
    drop(gpu);
    std::fs::remove_file(console.display()).unwrap();
    assert_shows_text(&mut viewer, ScreenState::Unreachable);
    gpu = FakeGpu::listen(&console.display());
    gpu.accept(Features::default());
    gpu.scanout(0, 640, 480);
    gpu.update(0, 0, 640, 480, &pixels);
    assert_shows(&mut viewer, (640, 480), &pixels);
}

/// As when its process is killed and the service manager starts it again: the socket stays.
#[test]
fn gpu_that_is_replaced_is_not_noticed() {
    let mut pixels = picture(640, 480, 1);
    let (mut console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &ENCODINGS);
    let mut others: Vec<_> = (0..3)
        .map(|_| {
            let mut viewer = console.viewer();
            viewer.set_encodings(&ENCODINGS).unwrap();
            assert_shows(&mut viewer, (640, 480), &pixels);
            viewer
        })
        .collect();
    let all = viewer.frame().rect();
    for round in 0..5_u8 {
        viewer.request(true, all).unwrap();
        let ended = Instant::now();
        gpu.end();
        gpu.accept(Features::default());
        assert!(ended.elapsed() < Duration::from_secs(1));
        // Whoever asks for everything meanwhile gets the former picture.
        others[0].request(false, all).unwrap();
        others[0].wait_for_update().unwrap();
        assert_shows(&mut others[0], (640, 480), &pixels);
        gpu.scanout(0, 640, 480);
        gpu.update(0, 0, 640, 480, &pixels);
        // The next thing that a viewer sees is what changes now.
        pixels[..8].fill(round);
        gpu.update(0, 0, 2, 1, &pixels[..8]);
        let update = viewer.wait_for_update().unwrap();
        let sent: usize = update.pixels.iter().map(|(rect, _)| rect.area()).sum();
        assert!(sent <= 64, "{update:?}");
        for viewer in others.iter_mut().chain([&mut viewer]) {
            assert_shows(viewer, (640, 480), &pixels);
            assert_eq!(viewer.name(), "vm1");
        }
    }
}

#[test]
fn gpu_that_breaks_the_protocol_is_left_and_tried_again() {
    let pixels = picture(640, 480, 1);
    let (console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &ENCODINGS);
    // Pixels outside the picture.
    gpu.update(640, 0, 1, 1, &[0; 4]);
    gpu.wait_closed();
    console
        .program
        .wait_stderr("head 0, which has 640x480")
        .unwrap();
    gpu.accept(Features::default());
    gpu.scanout(0, 640, 480);
    gpu.update(0, 0, 640, 480, &pixels);
    assert_shows(&mut viewer, (640, 480), &pixels);
    gpu.send(request::UPDATE, 0, &[0; 19]);
    gpu.wait_closed();
}

#[test]
fn gpu_is_connected_while_somebody_looks() {
    let (mut console, mut gpu) = Console::with_gpu();
    // One that does not even speak does not look.
    let silent = console.program.connect().unwrap();
    assert!(!gpu.is_wanted(Duration::from_millis(300)));
    let joining = console.join();
    gpu.accept(Features::default());
    gpu.scanout(0, 64, 64);
    let viewer = joining.join().unwrap();
    drop(viewer);
    let left = Instant::now();
    gpu.wait_closed();
    assert!(left.elapsed() > Duration::from_secs(4), "{left:?}");
    drop(silent);
    let joining = console.join();
    assert!(gpu.is_wanted(QUICK));
    gpu.accept(Features::default());
    gpu.scanout(0, 64, 64);
    joining.join().unwrap();
}

/// A program that takes a screenshot now and then.
#[test]
fn viewers_that_come_and_go_keep_the_connection_to_the_gpu() {
    let pixels = picture(64, 48, 1);
    let (mut console, mut gpu, viewer) = Console::showing((64, 48), &pixels, &ENCODINGS);
    drop(viewer);
    for round in 0..10 {
        // Drawn while nobody looks, it is there at once.
        let pixels = picture(64, 48, 2 + round);
        gpu.update(0, 0, 64, 48, &pixels);
        let mut viewer = console.viewer();
        viewer.set_encodings(&ENCODINGS).unwrap();
        assert_shows(&mut viewer, (64, 48), &pixels);
    }
    assert!(!gpu.is_wanted(Duration::ZERO), "it connected again");
    gpu.wait_closed();
}

#[test]
fn picture_that_is_too_large_is_shown_as_such() {
    let pixels = picture(640, 480, 1);
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &ENCODINGS);
    gpu.scanout(0, 16384, 16384);
    assert_shows_text(&mut viewer, ScreenState::TooLarge);
    gpu.update(16383, 16383, 1, 1, &[0; 4]);
    gpu.scanout(0, 640, 480);
    gpu.update(0, 0, 640, 480, &pixels);
    assert_shows(&mut viewer, (640, 480), &pixels);
}
