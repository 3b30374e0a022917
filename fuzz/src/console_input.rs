// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What viewers press and where they point, in any order, on the way to devices that come, go and are slow.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use vhost_user_backends::input::Event;
use vhost_user_backends::input::event_codes::*;
use vhost_user_backends::input::testing::{event_from_bytes, event_to_bytes};
use vhost_user_backends::vnc::input::{ConsoleInput, KeyboardLayout, ViewerId};

use crate::bytes::Bytes;

const MAX_STEPS: usize = 400;
const MAX_TURNS: usize = 4000;
const VIEWERS: u64 = 4;
const KEYBOARD: usize = 0;
const TABLET: usize = 1;

/// Keysyms with the keys that type them on a US keyboard, whatever modifiers and locks there are.
const KEYSYMS: [(u32, u16); 10] = [
    (0x61, 30),
    (0x41, 30),
    (0x40, 3),
    (0x32, 3),
    (0x20, 57),
    (0xff09, 15),
    (0xffe1, 42),
    (0xffe2, 54),
    (0xffe5, 58),
    (0xff8d, 96),
];
/// XT keycodes with their keys.
const KEYCODES: [(u32, u16); 8] = [
    (0x1e, 30),
    (0x03, 3),
    (0x2a, 42),
    (0x36, 54),
    (0x3a, 58),
    (0x9d, 97),
    (0xe01d, 97),
    (0xe11d45, 119),
];
/// Bits of RFB's button mask with their buttons.
const BUTTONS: [(u16, u16); 5] = [
    (1 << 0, 0x110),
    (1 << 1, 0x112),
    (1 << 2, 0x111),
    (1 << 7, 0x113),
    (1 << 8, 0x114),
];

/// Each device is told whole reports of its own events; in the end, what viewers press, and where the pointer is. When
/// all viewers left, nothing stays pressed.
pub fn console_input(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut machine = Machine::new();
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        machine.step(&mut bytes);
    }
    machine.settle();
    machine.check();
    machine.end();
}

#[derive(Default)]
struct Viewer {
    keys: BTreeSet<u16>,
    buttons: u16,
}

/// The device's end: what it was told on this connection.
struct Device {
    stream: UnixStream,
    pressed: BTreeSet<u16>,
    position: [Option<i32>; 2],
    unread: Vec<u8>,
    report: usize,
}

struct Machine {
    console: ConsoleInput,
    listeners: [Option<UnixListener>; 2],
    devices: [Option<Device>; 2],
    viewers: BTreeMap<u64, Viewer>,
    position: Option<[i32; 2]>,
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let [keyboard, tablet] =
            [KEYBOARD, TABLET].map(|kind| folder.path().join(kind.to_string()));
        let console = ConsoleInput::new(Some(keyboard), Some(tablet), KeyboardLayout::us());
        Self {
            console: console.expect("the host has descriptors left"),
            listeners: [None, None],
            devices: [None, None],
            viewers: BTreeMap::new(),
            position: None,
            folder,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        let viewer = u64::from(bytes.u8()) % VIEWERS;
        match bytes.u8() {
            0..=24 => {
                self.console.viewer_joined(ViewerId(viewer));
                self.viewers.entry(viewer).or_default();
            }
            25..=34 => self.leave(viewer),
            35..=99 => self.keysym(viewer, bytes),
            100..=149 => self.keycode(viewer, bytes),
            150..=199 => self.point(viewer, bytes),
            200..=214 => self.listen(usize::from(bytes.u8() % 2), bytes.u8() & 3 != 0),
            215..=219 => self.disconnect(usize::from(bytes.u8() % 2)),
            220..=229 => self.leds(bytes),
            230..=239 => self.tick(),
            240..=245 => {
                self.read(usize::from(bytes.u8() % 2), usize::from(bytes.u8()));
            }
            246..=247 => self.close(),
            _ => self.turn(),
        }
    }

    fn leave(&mut self, viewer: u64) {
        self.console.viewer_left(ViewerId(viewer));
        self.viewers.remove(&viewer);
        if self.viewers.is_empty() {
            assert_eq!(self.console.deadline(), None, "nobody looks");
        }
    }

    /// The console closes its connections, if it may.
    fn close(&mut self) {
        self.console.disconnect();
        if self.viewers.is_empty() {
            self.expect_closed();
        }
    }

    fn keysym(&mut self, viewer: u64, bytes: &mut Bytes<'_>) {
        let down = bytes.u8() & 1 == 0;
        if bytes.u8() == 0 {
            // No key that the model follows: a US keyboard has no such character.
            return self
                .console
                .key(ViewerId(viewer), 0x0100_0400 | bytes.u32() & 0xff, down);
        }
        let (keysym, key) = bytes.of(&KEYSYMS);
        self.console.key(ViewerId(viewer), keysym, down);
        self.press(viewer, key, down);
    }

    fn keycode(&mut self, viewer: u64, bytes: &mut Bytes<'_>) {
        let down = bytes.u8() & 1 == 0;
        let (keycode, key) = bytes.of(&KEYCODES);
        let keysym = bytes.u32();
        self.console
            .extended_key(ViewerId(viewer), keysym, keycode, down);
        self.press(viewer, key, down);
    }

    fn press(&mut self, viewer: u64, key: u16, down: bool) {
        if let Some(viewer) = self.viewers.get_mut(&viewer) {
            match down {
                true => viewer.keys.insert(key),
                false => viewer.keys.remove(&key),
            };
        }
    }

    fn point(&mut self, viewer: u64, bytes: &mut Bytes<'_>) {
        let buttons = bytes.u16();
        let at = (bytes.u16(), bytes.u16());
        let size = (
            bytes.of(&[0, 1, 2, 640, 1920, u16::MAX]),
            bytes.of(&[0, 1, 480, 1080]),
        );
        self.console.pointer(ViewerId(viewer), buttons, at, size);
        if let Some(viewer) = self.viewers.get_mut(&viewer) {
            viewer.buttons = buttons;
            if size.0 > 0 && size.1 > 0 {
                let scale = |at: u16, size: u16| match f64::from(size - 1) {
                    0.0 => 0,
                    last => (f64::from(at).min(last) / last * 32767.0).round() as i32,
                };
                self.position = Some([scale(at.0, size.0), scale(at.1, size.1)]);
            }
        }
    }

    /// A device begins to listen, or ends.
    fn listen(&mut self, kind: usize, on: bool) {
        let path = self.folder.path().join(kind.to_string());
        if !on {
            self.listeners[kind] = None;
            return;
        }
        if self.listeners[kind].is_none() {
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(path).expect("a socket can be made");
            listener.set_nonblocking(true).expect("it is a socket");
            self.listeners[kind] = Some(listener);
        }
    }

    fn disconnect(&mut self, kind: usize) {
        self.accept(kind);
        self.devices[kind] = None;
    }

    fn accept(&mut self, kind: usize) {
        let Some(listener) = &self.listeners[kind] else {
            return;
        };
        // The last one: the console has no other any more.
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("it is a socket");
            self.devices[kind] = Some(Device {
                stream,
                pressed: BTreeSet::new(),
                position: [None; 2],
                unread: Vec::new(),
                report: 0,
            });
        }
    }

    fn leds(&mut self, bytes: &mut Bytes<'_>) {
        self.accept(KEYBOARD);
        let Some(device) = &self.devices[KEYBOARD] else {
            return;
        };
        let mut sent = Vec::new();
        for _ in 0..bytes.u8() % 4 {
            let event = Event::new(EV_LED, bytes.u16() % 4, i32::from(bytes.u8() & 1));
            sent.extend(event_to_bytes(event));
        }
        sent.extend(event_to_bytes(Event::REPORT));
        let cut = sent.len() - usize::from(bytes.u8() % 3);
        // The console may be gone, or not read.
        let _ = (&device.stream).write(&sent[..cut]);
    }

    fn tick(&mut self) {
        if let Some(deadline) = self.console.deadline() {
            self.console.tick(deadline);
        }
    }

    fn turn(&mut self) {
        self.console
            .handle_ready()
            .expect("epoll_wait(2) does not fail");
    }

    /// A device reads up to `most` bytes. Returns whether there were any.
    fn read(&mut self, kind: usize, most: usize) -> bool {
        self.accept(kind);
        let Some(device) = &mut self.devices[kind] else {
            return false;
        };
        let mut bytes = vec![0; most];
        let count = match device.stream.read(&mut bytes) {
            Ok(0) if most > 0 => {
                self.devices[kind] = None;
                return false;
            }
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                self.devices[kind] = None;
                return false;
            }
            Err(error) => panic!("{error}"),
        };
        device.unread.extend_from_slice(&bytes[..count]);
        let whole = device.unread.len() / 8 * 8;
        for event in device.unread.drain(..whole).collect::<Vec<_>>().chunks(8) {
            device.take(
                kind,
                event_from_bytes(event.try_into().expect("they are 8 bytes")),
            );
        }
        count > 0
    }

    /// All is told and read.
    fn settle(&mut self) {
        for kind in [KEYBOARD, TABLET] {
            self.listen(kind, true);
        }
        for _ in 0..MAX_TURNS {
            self.tick();
            self.turn();
            let read = [KEYBOARD, TABLET].map(|kind| self.read(kind, 65536));
            if read == [false, false] && self.console.deadline().is_none() {
                // What the sockets had room for again.
                self.turn();
                let read = [KEYBOARD, TABLET].map(|kind| self.read(kind, 65536));
                if read == [false, false] {
                    return;
                }
            }
        }
        panic!("the console never comes to rest");
    }

    fn check(&self) {
        if self.viewers.is_empty() {
            let devices = self.devices.iter().flatten();
            devices.for_each(|device| assert!(device.pressed.is_empty(), "nobody looks"));
            return;
        }
        let keyboard = self.devices[KEYBOARD]
            .as_ref()
            .expect("the keyboard is connected");
        let tablet = self.devices[TABLET]
            .as_ref()
            .expect("the tablet is connected");
        let viewers = || self.viewers.values();
        let keys: BTreeSet<u16> = viewers()
            .flat_map(|viewer| viewer.keys.iter().copied())
            .collect();
        assert_eq!(keyboard.pressed, keys);
        let mask = viewers().fold(0, |mask, viewer| mask | viewer.buttons);
        let buttons = BUTTONS.iter().filter(|(bit, _)| mask & bit != 0);
        assert_eq!(tablet.pressed, buttons.map(|(_, button)| *button).collect());
        let position = self.position.map(|position| position.map(Some));
        assert_eq!(tablet.position, position.unwrap_or_default());
        assert_eq!(
            (keyboard.report, tablet.report),
            (0, 0),
            "a part of a report"
        );
    }

    /// No connection is left, and none is tried.
    fn expect_closed(&mut self) {
        for kind in [KEYBOARD, TABLET] {
            while self.read(kind, 65536) {}
            assert!(self.devices[kind].is_none(), "a connection without viewers");
        }
        assert_eq!(self.console.deadline(), None);
    }

    fn end(&mut self) {
        let viewers: Vec<u64> = self.viewers.keys().copied().collect();
        for viewer in viewers {
            self.leave(viewer);
        }
        self.settle();
        self.check();
        self.close();
        // A later viewer finds nothing pressed, wherever the pointer was.
        self.console.viewer_joined(ViewerId(9));
        self.viewers.insert(9, Viewer::default());
        self.settle();
        self.check();
        let far = Instant::now() + Duration::from_secs(3600);
        self.console.tick(far);
    }
}

impl Device {
    fn take(&mut self, kind: usize, event: Event) {
        if event.ends_report() {
            assert!(
                (1..=64).contains(&self.report),
                "a report of {} events",
                self.report
            );
            self.report = 0;
            return;
        }
        self.report += 1;
        let Event {
            kind: event_kind,
            code,
            value,
        } = event;
        match (kind, event_kind) {
            (KEYBOARD, EV_KEY) => assert!((1..=248).contains(&code), "{event:?}"),
            (TABLET, EV_KEY) => assert!((0x110..=0x114).contains(&code), "{event:?}"),
            (TABLET, EV_ABS) => {
                assert!(code < 2 && (0..=32767).contains(&value), "{event:?}");
                self.position[usize::from(code)] = Some(value);
            }
            (TABLET, EV_REL) => {
                let fine = [11, 12].contains(&code) && value.abs() == 120;
                assert!(
                    fine || ([6, 8].contains(&code) && value.abs() == 1),
                    "{event:?}"
                );
            }
            _ => panic!("{event:?} is no event of device {kind}"),
        }
        if event_kind == EV_KEY {
            let changed = match value {
                0 => self.pressed.remove(&code),
                1 => self.pressed.insert(code),
                _ => panic!("{event:?}"),
            };
            assert!(changed, "{event:?} is no change");
        }
    }
}
