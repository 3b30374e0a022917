// SPDX-License-Identifier: Apache-2.0 OR MIT
//! With real sockets, at whose other ends are devices that the tests play.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use evdev::KeyCode;
use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use xkeysym::key;

use super::*;
use crate::evdev_event::{EV_KEY, EV_LED};
use crate::vnc::input::held::Held;

const A: ViewerId = ViewerId(1);
const B: ViewerId = ViewerId(2);
const LIMIT: Duration = Duration::from_secs(60);
const SCREEN: (u16, u16) = (1920, 1080);
/// The keycode of the key A.
const KEYCODE_A: u32 = 0x1e;

/// A console with the sockets of both devices.
struct Console {
    input: ConsoleInput,
    keyboard: UnixListener,
    tablet: UnixListener,
    folder: TempDir,
}

impl Console {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [keyboard, tablet] = ["keyboard", "tablet"].map(|name| folder.path().join(name));
        let listen = |path: &PathBuf| UnixListener::bind(path).unwrap();
        Self {
            keyboard: listen(&keyboard),
            tablet: listen(&tablet),
            input: ConsoleInput::new(Some(keyboard), Some(tablet), KeyboardLayout::us()).unwrap(),
            folder,
        }
    }

    /// With a viewer, and both devices connected.
    fn connected() -> (Self, Device, Device) {
        let mut console = Self::new();
        console.input.viewer_joined(A);
        let keyboard = Device::accept(&console.keyboard);
        let tablet = Device::accept(&console.tablet);
        (console, keyboard, tablet)
    }

    /// Handles what happens until `done`.
    fn run_until(&mut self, mut done: impl FnMut(&mut ConsoleInput) -> bool) {
        let end = Instant::now() + LIMIT;
        while !done(&mut self.input) {
            assert!(Instant::now() < end, "nothing happens");
            let wait = Timespec::try_from(Duration::from_millis(20)).unwrap();
            poll(
                &mut [PollFd::new(&self.input.epoll, PollFlags::IN)],
                Some(&wait),
            )
            .unwrap();
            self.input.handle_ready().unwrap();
        }
    }
}

/// The device's end of an events socket.
struct Device {
    stream: UnixStream,
    held: Held,
}

impl Device {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self {
            stream,
            held: Held::default(),
        }
    }

    fn event(&mut self) -> Event {
        let mut bytes = [0; Event::SIZE];
        self.stream.read_exact(&mut bytes).unwrap();
        let event = Event::from_bytes(bytes);
        self.held.apply(&event);
        event
    }

    /// The next report, without its end.
    fn report(&mut self) -> Vec<Event> {
        let mut report = Vec::new();
        loop {
            match self.event() {
                Event::REPORT => return report,
                event => report.push(event),
            }
        }
    }

    fn send(&mut self, events: &[Event]) {
        for event in events {
            self.stream.write_all(&event.to_bytes()).unwrap();
        }
    }

    fn was_closed(mut self) -> bool {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

#[test]
fn keys_and_pointer_reach_their_devices() {
    let (mut console, mut keyboard, mut tablet) = Console::connected();
    console.input.extended_key(A, key::a, KEYCODE_A, true);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_A.0, true)]);
    console.input.extended_key(A, key::a, KEYCODE_A, false);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_A.0, false)]);
    // An unknown keycode leaves the choice to the keysym.
    console.input.extended_key(A, key::b, 0, true);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_B.0, true)]);
    console.input.pointer(A, 1, (1919, 0), SCREEN);
    let report = tablet.report();
    assert_eq!(report.len(), 3);
    assert_eq!(tablet.held.position, Some((32767, 0)));
    assert!(tablet.held.keys.contains(KeyCode::BTN_LEFT.0));
}

#[test]
fn sockets_are_connected_while_there_are_viewers() {
    let mut console = Console::new();
    console.keyboard.set_nonblocking(true).unwrap();
    assert!(console.keyboard.accept().is_err(), "nobody looks");
    console.keyboard.set_nonblocking(false).unwrap();
    console.input.viewer_joined(A);
    console.input.viewer_joined(B);
    let mut keyboard = Device::accept(&console.keyboard);
    console.input.extended_key(A, key::a, KEYCODE_A, true);
    keyboard.report();
    console.input.viewer_left(A);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_A.0, false)]);
    console.input.extended_key(A, key::a, KEYCODE_A, true);
    console.input.disconnect();
    console.input.extended_key(B, 0, 0x30, true);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_B.0, true)]);
    console.input.viewer_left(B);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_B.0, false)]);
    console.input.extended_key(B, 0, 0x30, true);
    // The next viewer finds the connection that there is.
    console.input.viewer_joined(A);
    console.input.extended_key(A, key::a, KEYCODE_A, true);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_A.0, true)]);
    console.input.viewer_left(A);
    keyboard.report();
    console.input.disconnect();
    assert!(keyboard.was_closed(), "a viewer that left types no more");
    assert_eq!(console.input.deadline(), None);
    console.input.viewer_joined(A);
    Device::accept(&console.keyboard);
}

/// Viewers that come and go have a failing device tried as rarely as one that stays.
#[test]
fn pause_between_attempts_outlives_viewers() {
    let mut console = Console::new();
    let keyboard = console.folder.path().join("keyboard");
    std::fs::remove_file(&keyboard).unwrap();
    // The machine may be so busy that the pause ends meanwhile.
    let now = Instant::now();
    console.input.viewer_joined_at(A, now);
    let first = console.input.deadline().unwrap();
    for _ in 0..100 {
        console.input.viewer_left(A);
        console.input.disconnect();
        assert_eq!(console.input.deadline(), None, "nobody looks");
        console.input.viewer_joined_at(A, now);
        assert_eq!(console.input.deadline(), Some(first));
    }
    console.input.tick(first);
    let second = console.input.deadline().unwrap();
    assert!(second - first >= Duration::from_secs(2), "{second:?}");
    let listener = UnixListener::bind(keyboard).unwrap();
    console.input.tick(second);
    Device::accept(&listener);
}

#[test]
fn leds_come_back_and_change_what_is_typed() {
    let (mut console, mut keyboard, _tablet) = Console::connected();
    keyboard.send(&[Event::new(EV_LED, 1, 1), Event::new(EV_LED, 0, 1)]);
    // A report is whole or does not count, and may come in pieces.
    let [first, rest @ ..] = Event::REPORT.to_bytes();
    keyboard.stream.write_all(&[first]).unwrap();
    console.input.handle_ready().unwrap();
    assert_eq!(console.input.leds(), LedState::default());
    keyboard.stream.write_all(&rest).unwrap();
    console.run_until(|input| input.leds().caps_lock);
    assert_eq!(console.input.leds().rfb_bits(), 0b110);
    console.input.key(A, key::A, true);
    assert_eq!(
        keyboard.report(),
        [Event::key(KeyCode::KEY_A.0, true)],
        "without Shift"
    );
    keyboard.send(&[Event::new(EV_LED, 1, 0), Event::REPORT]);
    console.run_until(|input| !input.leds().caps_lock);
    assert_eq!(console.input.leds().rfb_bits(), 0b010);
}

#[test]
fn device_that_comes_back_is_told_what_is_pressed_now() {
    let (mut console, mut keyboard, _tablet) = Console::connected();
    let keys = [(0x1d, KeyCode::KEY_LEFTCTRL), (KEYCODE_A, KeyCode::KEY_A)];
    for (keycode, _) in keys {
        console.input.extended_key(A, 0, keycode, true);
        keyboard.report();
    }
    drop(keyboard);
    console.run_until(|input| input.deadline().is_some());
    console.input.extended_key(A, 0, KEYCODE_A, false);
    console.input.extended_key(A, 0, 0x30, true);
    let deadline = console.input.deadline().unwrap();
    console.input.tick(deadline - Duration::from_millis(1));
    console.keyboard.set_nonblocking(true).unwrap();
    assert!(console.keyboard.accept().is_err(), "it is too early");
    console.keyboard.set_nonblocking(false).unwrap();
    console.input.tick(deadline);
    assert_eq!(console.input.deadline(), None);
    let mut keyboard = Device::accept(&console.keyboard);
    let expected = [KeyCode::KEY_LEFTCTRL, KeyCode::KEY_B].map(|key| Event::key(key.0, true));
    assert_eq!(keyboard.report(), expected);
}

#[test]
fn missing_socket_is_tried_ever_more_rarely() {
    let mut console = Console::new();
    std::fs::remove_file(console.folder.path().join("keyboard")).unwrap();
    let mut now = Instant::now();
    console.input.viewer_joined(A);
    console.input.extended_key(A, 0, KEYCODE_A, true);
    for seconds in [1, 2, 4, 8, 10, 10] {
        let deadline = console.input.deadline().unwrap();
        let waits = deadline - now;
        let range = Duration::from_secs(seconds)..Duration::from_secs(seconds + 1);
        assert!(range.contains(&waits) || seconds == 1, "{waits:?}");
        now = deadline;
        console.input.tick(now);
    }
    let listener = UnixListener::bind(console.folder.path().join("keyboard")).unwrap();
    console.input.tick(console.input.deadline().unwrap());
    let mut keyboard = Device::accept(&listener);
    assert_eq!(keyboard.report(), [Event::key(KeyCode::KEY_A.0, true)]);
}

/// A device that does not read is told in the end what is pressed then, and nothing grows meanwhile.
#[test]
fn slow_device_is_told_the_newest_state() {
    let (mut console, mut keyboard, mut tablet) = Console::connected();
    for n in 0..20_000_u16 {
        console.input.extended_key(A, 0, KEYCODE_A, n % 2 == 0);
        console.input.pointer(A, n % 2, (n % 1920, 7), SCREEN);
    }
    console.input.extended_key(A, 0, 0x30, true);
    console.input.pointer(A, 4, (1919, 1079), SCREEN);
    for stream in [&keyboard.stream, &tablet.stream] {
        stream.set_nonblocking(true).unwrap();
    }
    let mut read = 0;
    let wanted = (console.input.keyboard.held(), console.input.tablet.held());
    console.run_until(|_| {
        for device in [&mut keyboard, &mut tablet] {
            let mut bytes = [0; 4096];
            // Whole events: both sides only write and read such, and 4096 is a multiple of 8.
            while let Ok(count) = device.stream.read(&mut bytes) {
                read += count;
                for event in bytes[..count].chunks_exact(Event::SIZE) {
                    device
                        .held
                        .apply(&Event::from_bytes(event.try_into().unwrap()));
                }
            }
        }
        (keyboard.held, tablet.held) == wanted
    });
    // Of 20,000 reports of each, the sockets' buffers and ours held few.
    assert!(read < 400_000, "{read} bytes");
    let pressed = |key: u16| Event::new(EV_KEY, key, 1);
    console.input.extended_key(A, 0, 0x2e, true);
    keyboard.stream.set_nonblocking(false).unwrap();
    assert_eq!(keyboard.report(), [pressed(KeyCode::KEY_C.0)]);
}

#[test]
fn full_queue_of_connections_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keyboard");
    let flags = rustix::net::SocketFlags::CLOEXEC;
    let (unix, stream) = (
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
    );
    let socket = rustix::net::socket_with(unix, stream, flags, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let _first = UnixStream::connect(&path).unwrap();
    let mut input = ConsoleInput::new(Some(path), None, KeyboardLayout::us()).unwrap();
    input.viewer_joined(A);
    assert!(input.deadline().is_some());
}

#[test]
fn console_without_devices_ignores_keys_and_pointer() {
    let mut input = ConsoleInput::new(None, None, KeyboardLayout::us()).unwrap();
    input.viewer_joined(A);
    input.key(A, key::a, true);
    input.pointer(A, 1, (0, 0), SCREEN);
    assert!(!input.handle_ready().unwrap());
    assert_eq!(
        (input.deadline(), input.leds()),
        (None, LedState::default())
    );
    input.viewer_left(A);
}

#[test]
fn device_that_floods_leds_is_read_in_bounded_turns() {
    let (mut console, mut keyboard, _tablet) = Console::connected();
    keyboard.stream.set_nonblocking(true).unwrap();
    let report = [Event::new(EV_LED, 1, 1), Event::REPORT]
        .map(Event::to_bytes)
        .concat();
    let flood = report.repeat(4096);
    let mut fill = || {
        let writes = std::iter::from_fn(|| keyboard.stream.write(&flood).ok());
        writes.sum::<usize>()
    };
    let written = fill();
    console.input.handle_ready().unwrap();
    assert!(console.input.leds().caps_lock);
    // What was not read is still there: there is no room for as much again.
    let again = fill();
    assert!(
        again < written / 2,
        "{again} of {written} bytes were taken in one turn"
    );
}
