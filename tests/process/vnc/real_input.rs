// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console with the project's own keyboard and tablet, and a guest's drivers.

use std::path::Path;

use frontend::input::{Event, Input, InputOptions};
use frontend::{Command, Memory, SocketForm};
use harness::mock::codes::{EV_ABS, EV_KEY, EV_LED};
use rfb::Encoding;

use super::Console;
use crate::common::*;

/// A viewer that keeps its size sees a part of a larger screen, and points at what it sees.
#[test]
fn pointer_is_where_a_viewer_sees_it() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("tablet");
    let (_program, mut tablet) = device("tablet", &socket);
    let option = format!("--tablet={}", socket.display());
    let mut console = Console::start(&[&option]);
    let mut gpu = super::FakeGpu::listen(&console.display());
    let joining = console.join();
    gpu.accept(display_protocol::Features::default());
    gpu.scanout(0, 640, 480);
    let mut viewer = joining.join().unwrap();
    let pixels = super::picture(1280, 960, 1);
    gpu.scanout(0, 1280, 960);
    gpu.update(0, 0, 1280, 960, &pixels);
    let seen = |viewer: &super::Viewer| viewer.frame().bytes()[..3] == pixels[..3];
    viewer.wait_until(seen).unwrap();
    viewer.pointer(639, 479, 0).unwrap();
    let report = tablet.next_report().unwrap();
    let half = 32767 / 2;
    for event in &report[..2] {
        assert!((event.value - half).abs() < 30, "{report:?}");
    }
}

/// A virtual device at `socket`, and its driver.
fn device(kind: &str, socket: &Path) -> (frontend::Program, Input) {
    let mut program = Command::new(input_program())
        .args([
            format!("--virtual={kind}"),
            format!("--events-socket={}", socket.display()),
        ])
        .socket(SocketForm::Connected(7))
        .spawn()
        .unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let session = program.session().unwrap();
    let input = Input::start(session, &memory, InputOptions::default()).unwrap();
    (program, input)
}

fn key(code: u16, value: i32) -> [Event; 2] {
    [Event::new(EV_KEY, code, value), Event::report()]
}

#[test]
fn what_viewers_type_and_point_at_reaches_the_guest() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let (_keyboard_program, mut keyboard) = device("keyboard", &place("keyboard"));
    let (_tablet_program, mut tablet) = device("tablet", &place("tablet"));
    let options = ["keyboard", "tablet"].map(|name| format!("--{name}={}", place(name).display()));
    let mut console = Console::start(&[&options[0], &options[1]]);
    let mut viewer = console.viewer();
    let encodings = [
        Encoding::RAW,
        Encoding::QEMU_EXTENDED_KEY_EVENT,
        Encoding::QEMU_LED_STATE,
        Encoding::EXTENDED_MOUSE_BUTTONS,
    ];
    viewer.set_encodings(&encodings).unwrap();
    let knows =
        |viewer: &super::Viewer| viewer.has_extended_keys() && viewer.has_extended_mouse_buttons();
    viewer.wait_until(knows).unwrap();
    // By its scancode: what it means is the guest's business.
    viewer.extended_key(0xe4, 0x28, true).unwrap();
    assert_eq!(keyboard.next_report().unwrap(), key(40, 1));
    viewer.extended_key(0xe4, 0x28, false).unwrap();
    assert_eq!(keyboard.next_report().unwrap(), key(40, 0));
    // By its keysym.
    viewer.key('q'.into(), true).unwrap();
    assert_eq!(keyboard.next_report().unwrap(), key(16, 1));

    let at = |x, y| [Event::new(EV_ABS, 0, x), Event::new(EV_ABS, 1, y)];
    viewer.pointer(1023, 767, 0).unwrap();
    let report = tablet.next_report().unwrap();
    assert_eq!(report[..2], at(32767, 32767));
    // The ninth button, which needs the second byte.
    viewer.pointer(1023, 767, 1 << 8).unwrap();
    assert_eq!(tablet.next_report().unwrap(), key(0x114, 1));

    // The guest's LED.
    let caps = [Event::new(EV_LED, 1, 1), Event::report()];
    keyboard.send_status(&caps).unwrap();
    let lit = |viewer: &super::Viewer| viewer.leds().is_some_and(|leds| leds.caps);
    viewer.wait_until(lit).unwrap();

    // What a viewer pressed is released when it vanishes.
    drop(viewer);
    assert_eq!(keyboard.next_report().unwrap(), key(16, 0));
    assert_eq!(tablet.next_report().unwrap(), key(0x114, 0));
    let mut again = console.viewer();
    // Escape.
    again.key(0xff1b, true).unwrap();
    assert_eq!(keyboard.next_report().unwrap(), key(1, 1));
}

/// A keyboard at `folder`, and a console with it.
fn console_with_keyboard(folder: &Path, layout: &str) -> (frontend::Program, Input, Console) {
    let socket = folder.join("keyboard");
    let (program, keyboard) = device("keyboard", &socket);
    let option = format!("--keyboard={}", socket.display());
    let layout = format!("--keyboard-layout={layout}");
    (program, keyboard, Console::start(&[&option, &layout]))
}

/// One viewer says which key it is, the other what was typed: each gets its own, and neither what the other one holds.
#[test]
fn viewers_of_different_keyboards_type_at_the_same_time() {
    const LEFT_CTRL: u16 = 29;
    const LEFT_SHIFT: u16 = 42;
    const KEY_Q: u16 = 16;
    const KEY_A: u16 = 30;
    let folder = tempfile::tempdir().unwrap();
    let (_program, mut keyboard, mut console) = console_with_keyboard(folder.path(), "us");
    let mut french = console.viewer();
    french
        .set_encodings(&[
            Encoding::RAW,
            Encoding::QEMU_EXTENDED_KEY_EVENT,
            Encoding::QEMU_LED_STATE,
        ])
        .unwrap();
    french.wait_until(super::Viewer::has_extended_keys).unwrap();
    let mut plain = console.viewer();
    plain
        .set_encodings(&[Encoding::RAW, Encoding::VMWARE_LED_STATE])
        .unwrap();
    let mut expect = |events: &[(u16, i32)]| {
        for (code, value) in events {
            assert_eq!(keyboard.next_report().unwrap(), key(*code, *value));
        }
    };

    // The French keyboard has A where the guest's has Q; the guest decides what it means.
    french.extended_key('a'.into(), 0x10, true).unwrap();
    expect(&[(KEY_Q, 1)]);
    plain.key('a'.into(), true).unwrap();
    expect(&[(KEY_A, 1)]);
    french.extended_key('a'.into(), 0x10, false).unwrap();
    expect(&[(KEY_Q, 0)]);
    plain.key('a'.into(), false).unwrap();
    expect(&[(KEY_A, 0)]);

    // A small letter, while the other one holds Shift, which is held again afterwards.
    french.extended_key(0xffe1, 0x2a, true).unwrap();
    expect(&[(LEFT_SHIFT, 1)]);
    plain.key('a'.into(), true).unwrap();
    expect(&[(LEFT_SHIFT, 0), (KEY_A, 1), (LEFT_SHIFT, 1)]);
    plain.key('a'.into(), false).unwrap();
    expect(&[(KEY_A, 0)]);
    french.extended_key(0xffe1, 0x2a, false).unwrap();
    expect(&[(LEFT_SHIFT, 0)]);
    // A capital one without its Shift, which leaves none behind.
    plain.key('A'.into(), true).unwrap();
    expect(&[(LEFT_SHIFT, 1), (KEY_A, 1), (LEFT_SHIFT, 0)]);

    // The same key is released with the last who holds it.
    french.extended_key('q'.into(), 0x1e, true).unwrap();
    french.extended_key(0xffe3, 0x1d, true).unwrap();
    expect(&[(LEFT_CTRL, 1)]);
    plain.key('A'.into(), false).unwrap();
    plain.key('q'.into(), true).unwrap();
    expect(&[(KEY_Q, 1)]);
    drop(french);
    let report = keyboard.next_report().unwrap();
    let mut released: Vec<_> = report.iter().filter(|event| event.code != 0).collect();
    released.sort_by_key(|event| event.code);
    let expected = [LEFT_CTRL, KEY_A].map(|code| Event::new(EV_KEY, code, 0));
    assert_eq!(released, expected.iter().collect::<Vec<_>>());
    // What the other one holds stays.
    plain.key('q'.into(), false).unwrap();
    assert_eq!(keyboard.next_report().unwrap(), key(KEY_Q, 0));
}

#[test]
fn leds_are_told_to_every_viewer_in_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let (_program, mut keyboard, mut console) = console_with_keyboard(folder.path(), "us");
    let ways = [Encoding::QEMU_LED_STATE, Encoding::VMWARE_LED_STATE];
    let mut viewers = ways.map(|way| {
        let mut viewer = console.viewer();
        viewer.set_encodings(&[Encoding::RAW, way]).unwrap();
        viewer
    });
    for caps in [true, false, true] {
        let led = [Event::new(EV_LED, 1, caps.into()), Event::report()];
        keyboard.send_status(&led).unwrap();
        for viewer in &mut viewers {
            let told = |viewer: &super::Viewer| viewer.leds().is_some_and(|leds| leds.caps == caps);
            viewer.wait_until(told).unwrap();
        }
    }
    // Who comes later is told as well.
    let mut later = console.viewer();
    later.set_encodings(&[Encoding::RAW, ways[1]]).unwrap();
    let lit = |viewer: &super::Viewer| viewer.leds().is_some_and(|leds| leds.caps);
    later.wait_until(lit).unwrap();
}
