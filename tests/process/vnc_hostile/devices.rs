// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Hostile keyboards and tablets: what listens at the events sockets.

use std::io::Write as _;

use super::*;

/// Bytes of an event.
const EVENT: usize = 8;
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const EV_LED: u16 = 0x11;

/// The events sockets of a keyboard and a tablet, played.
struct PlayedDevices {
    keyboard: UnixListener,
    tablet: UnixListener,
    folder: TempDir,
}

impl PlayedDevices {
    fn listen() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listen = |name: &str| UnixListener::bind(folder.path().join(name)).unwrap();
        Self {
            keyboard: listen("keyboard"),
            tablet: listen("tablet"),
            folder,
        }
    }

    /// A console that uses them.
    fn console(&self) -> Console {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        Console::with(|command| {
            command
                .arg(format!("--keyboard={}", path("keyboard")))
                .arg(format!("--tablet={}", path("tablet")))
        })
    }
}

/// The console's next connection to a device.
#[track_caller]
fn accept(listener: &UnixListener) -> UnixStream {
    let came = Deadline::default().ready(listener, PollFlags::IN).unwrap();
    assert!(came, "the console does not connect to a device");
    let stream = listener.accept().unwrap().0;
    limited(&stream);
    stream
}

/// An event's bytes.
fn event(kind: u16, code: u16, value: u32) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(code.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes
}

/// Asserts that a key that a viewer presses comes out of the device.
#[track_caller]
fn assert_types(console: &mut Console, keyboard: &mut UnixStream) {
    const KEY_A: u16 = 30;
    let mut viewer = console.viewer();
    viewer.send(&key(true, 0x61));
    for value in [1, 0] {
        let mut report = [0; 2 * EVENT];
        keyboard.read_exact(&mut report).unwrap();
        let expected = [event(EV_KEY, KEY_A, value), event(EV_SYN, 0, 0)].concat();
        assert_eq!(report[..], expected);
        // Without its viewer a key is not held.
        let _ = viewer.stream.shutdown(std::net::Shutdown::Both);
    }
}

#[test]
fn keys_held_by_a_viewer_that_vanishes_are_released() {
    let devices = PlayedDevices::listen();
    let mut console = devices.console();
    let mut keyboard = accept(&devices.keyboard);
    assert_types(&mut console, &mut keyboard);
    assert_types(&mut console, &mut keyboard);
    console.finish();
}

#[test]
fn device_that_sends_nonsense_is_left_and_tried_again() {
    let devices = PlayedDevices::listen();
    let mut console = devices.console();
    for nonsense in [
        event(EV_KEY, 30, 1),
        event(EV_LED, u16::MAX, 1),
        event(0xffff, 0xffff, u32::MAX),
        event(EV_LED, 0, 1).repeat(10_000),
        vec![0xff; 3],
    ] {
        let mut keyboard = accept(&devices.keyboard);
        let _ = keyboard.write_all(&nonsense);
        console.assert_served();
        // It keeps a device whose words it can ignore; otherwise it comes back.
        drop(keyboard);
    }
    let mut keyboard = accept(&devices.keyboard);
    assert_types(&mut console, &mut keyboard);
    console.finish();
}

/// A VM whose keyboard nobody serves: keys are dropped, and kept nowhere.
#[test]
fn device_that_does_not_read_costs_no_memory() {
    let devices = PlayedDevices::listen();
    let mut console = devices.console();
    let (_keyboard, _tablet) = (accept(&devices.keyboard), accept(&devices.tablet));
    let viewer = console.viewer();
    let before = Holdings::of(&console.vnc);
    let input: Vec<u8> = (0..500_u16)
        .flat_map(|n| {
            let keysym = 0x61 + u32::from(n) % 26;
            [
                key(true, keysym),
                key(false, keysym),
                pointer(1, n, n),
                pointer(8, n, n),
            ]
            .concat()
        })
        .collect();
    for _ in 0..20 {
        flood(&viewer.stream, &input, 3);
        console.assert_served();
    }
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn device_that_floods_holds_up_nobody() {
    let devices = PlayedDevices::listen();
    let mut console = devices.console();
    let keyboard = accept(&devices.keyboard);
    let report = [
        event(EV_LED, 1, 1),
        event(EV_SYN, 0, 0),
        event(EV_LED, 1, 0),
        event(EV_SYN, 0, 0),
    ]
    .concat();
    let before = Holdings::of(&console.vnc);
    for _ in 0..50 {
        flood(&keyboard, &report.repeat(2000), 1);
        console.assert_served();
    }
    before.assert_not_grown(&console.vnc, VIEWER_KIB);
    console.finish();
}

#[test]
fn devices_that_always_close_cost_nothing_else() {
    let devices = PlayedDevices::listen();
    let mut console = devices.console();
    for _ in 0..3 {
        drop(accept(&devices.keyboard));
        console.assert_served();
    }
    let used = console.vnc.cpu_time().unwrap();
    // Its pause is four seconds by now.
    let deadline = Deadline::after(Duration::from_millis(500));
    let mut tries = 0;
    while deadline.ready(&devices.keyboard, PollFlags::IN).unwrap() {
        drop(devices.keyboard.accept().unwrap());
        tries += 1;
    }
    assert!(tries <= 1, "{tries} connections in half a second");
    let spinning = console.vnc.cpu_time().unwrap().saturating_sub(used);
    assert!(
        spinning < Duration::from_millis(250),
        "{spinning:?} in half a second"
    );
    console.finish();
}
