// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a viewer sees first, and what it is sent when something changes.

use std::io::Write as _;

use conventions::ScreenState;
use display_protocol::{Features, Header, Update, request};
use rfb::{Encoding, Rect};

use super::{Console, FakeGpu, assert_shows, assert_shows_text, picture};

#[test]
fn viewer_sees_the_picture_and_then_only_what_changes() {
    let mut pixels = picture(640, 480, 1);
    let (_console, mut gpu, mut viewer) = Console::showing((640, 480), &pixels, &[Encoding::RAW]);
    assert_eq!(viewer.name(), "vm1");

    let before = viewer.received();
    viewer.request(true, viewer.frame().rect()).unwrap();
    gpu.update(100, 50, 64, 64, &[7; 64 * 64 * 4]);
    let update = viewer.wait_for_update().unwrap();
    let changed = Rect::new(100, 50, 64, 64);
    assert_eq!(update.pixels, [(changed, Encoding::RAW)]);
    let bytes = viewer.received() - before;
    assert_eq!(bytes, 4 + 12 + 64 * 64 * 4, "nothing but what changed");
    for row in 50..114 {
        let start = (row * 640 + 100) * 4;
        pixels[start..start + 64 * 4].fill(7);
    }
    assert_shows(&mut viewer, (640, 480), &pixels);
}

#[test]
fn request_that_is_not_incremental_gets_what_did_not_change() {
    let pixels = picture(320, 200, 2);
    let (_console, _gpu, mut viewer) = Console::showing((320, 200), &pixels, &[Encoding::RAW]);
    let part = Rect::new(300, 190, 100, 100);
    viewer.request(false, part).unwrap();
    let update = viewer.wait_for_update().unwrap();
    let visible = Rect::new(300, 190, 20, 10);
    assert_eq!(update.pixels, [(visible, Encoding::RAW)]);
}

/// Sends the first half of an update of all of head 0, and returns the second one.
fn send_half(gpu: &mut FakeGpu, width: u16, height: u16, pixels: &[u8]) -> Vec<u8> {
    let update = Update {
        scanout: 0,
        x: 0,
        y: 0,
        width: width.into(),
        height: height.into(),
    };
    let payload = [&update.encode(), pixels].concat();
    let header = Header {
        request: request::UPDATE,
        flags: 0,
        size: payload.len() as u32,
    };
    let mut message = [&header.encode(), payload.as_slice()].concat();
    let second = message.split_off(message.len() / 2);
    gpu.console().write_all(&message).unwrap();
    second
}

#[test]
fn picture_that_is_half_there_is_not_shown() {
    let encodings = [
        Encoding::RAW,
        Encoding::DESKTOP_SIZE,
        Encoding::DESKTOP_NAME,
    ];
    let (mut console, mut gpu) = Console::with_gpu();
    let joining = console.join();
    gpu.accept(Features::RESIZE);
    let first = picture(640, 480, 1);
    gpu.scanout(0, 640, 480);
    let rest = send_half(&mut gpu, 640, 480, &first);
    let mut viewer = joining.join().unwrap();
    viewer.set_encodings(&encodings).unwrap();
    assert_shows_text(&mut viewer, ScreenState::Waiting);
    gpu.console().write_all(&rest).unwrap();
    assert_shows(&mut viewer, (640, 480), &first);

    // Another mode: the former picture stays until then.
    let second = picture(800, 600, 2);
    gpu.scanout(0, 800, 600);
    let rest = send_half(&mut gpu, 800, 600, &second);
    let mut other = console.viewer();
    other.set_encodings(&encodings).unwrap();
    for viewer in [&mut other, &mut viewer] {
        let all = viewer.frame().rect();
        viewer.request(false, all).unwrap();
        viewer.wait_for_update().unwrap();
        assert_shows(viewer, (640, 480), &first);
    }
    gpu.console().write_all(&rest).unwrap();
    for viewer in [&mut other, &mut viewer] {
        assert_shows(viewer, (800, 600), &second);
    }
}
