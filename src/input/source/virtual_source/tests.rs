// SPDX-License-Identifier: Apache-2.0 OR MIT
//! With real sockets, over which the tests play consoles.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::backend::{EventSet, FIRST_TOKEN, FakeContext, GuestMemory};
use crate::input::protocol::event_codes::EV_REL;

use super::*;

const CLIENTS: u16 = FIRST_TOKEN;
const ABS_X: u16 = 0;
const REL_WHEEL: u16 = 8;
const LED_CAPSL: u16 = 1;
/// Milliseconds that a ready descriptor may take to be seen.
const PATIENCE: i32 = 60_000;

/// A device with its events socket.
struct TestSource {
    source: VirtualSource,
    context: FakeContext,
    path: PathBuf,
    _folder: TempDir,
}

impl TestSource {
    fn new(device: VirtualDevice) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        let context = FakeContext::new(GuestMemory::new(Default::default())).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        context.add_listener(EVENTS_SOCKET, listener).unwrap();
        let mut source = VirtualSource::new(device).unwrap();
        source.listen(&context.context(), CLIENTS).unwrap();
        Self {
            source,
            context,
            path,
            _folder: folder,
        }
    }

    fn keyboard() -> Self {
        Self::new(VirtualDevice::Keyboard)
    }

    /// A connected console.
    fn connect(&mut self) -> UnixStream {
        let console = UnixStream::connect(&self.path).unwrap();
        let ready = self.context.ready(PATIENCE).unwrap();
        assert_eq!(ready, [(CLIENTS, EventSet::IN)]);
        self.source.accept();
        console.set_nonblocking(true).unwrap();
        console
    }

    /// All events that the source has.
    fn events(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            match self.source.read(&mut events) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return events,
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn pressed(&self) -> Vec<u16> {
        self.source.state().unwrap().keys.iter().collect()
    }

    fn set_leds(&mut self, on: &[u16]) {
        let led = |code: u16| Event::new(EV_LED, code, on.contains(&code).into());
        let events: Vec<_> = (0..3).map(led).chain([Event::REPORT]).collect();
        self.source.send(&events).unwrap();
    }
}

fn send(mut console: &UnixStream, events: &[Event]) {
    let bytes: Vec<u8> = events.iter().flat_map(|event| event.to_bytes()).collect();
    console.write_all(&bytes).unwrap();
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

fn report(event: Event) -> [Event; 2] {
    [event, Event::REPORT]
}

/// All that waits for the console, as events.
fn received(mut console: &UnixStream) -> Vec<Event> {
    let mut bytes = Vec::new();
    match console.read_to_end(&mut bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
        other => panic!("{other:?}"),
    }
    let events = bytes.chunks(Event::SIZE);
    events
        .map(|event| Event::from_bytes(event.try_into().unwrap()))
        .collect()
}

fn is_closed(mut console: &UnixStream) -> bool {
    loop {
        match console.read(&mut [0; 512]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // What it sent was not all read.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn reports_arrive_whole_however_they_are_cut() {
    let mut device = TestSource::keyboard();
    let mut console = device.connect();
    let sent = [
        key(29, 1),
        key(30, 1),
        Event::REPORT,
        key(30, 0),
        Event::REPORT,
    ];
    let bytes: Vec<u8> = sent.iter().flat_map(|event| event.to_bytes()).collect();
    let mut got = Vec::new();
    for byte in bytes {
        console.write_all(&[byte]).unwrap();
        let events = device.events();
        assert!(events.last().is_none_or(Event::ends_report), "{events:?}");
        got.extend(events);
    }
    assert_eq!(got, sent);
    assert_eq!(device.pressed(), [29]);
}

#[test]
fn key_is_pressed_while_any_console_presses_it() {
    let mut device = TestSource::keyboard();
    let [one, two] = [device.connect(), device.connect()];
    send(&one, &report(key(30, 1)));
    assert_eq!(device.events(), report(key(30, 1)));
    // Neither what is pressed already nor what another one still presses is news.
    send(&one, &report(key(30, 1)));
    send(&two, &report(key(30, 1)));
    send(&two, &report(key(31, 0)));
    assert_eq!(device.events(), []);
    send(&one, &report(key(30, 0)));
    assert_eq!(device.events(), []);
    assert_eq!(device.pressed(), [30]);
    send(&two, &report(key(30, 0)));
    assert_eq!(device.events(), report(key(30, 0)));
}

#[test]
fn console_that_ends_releases_what_only_it_pressed() {
    let mut device = TestSource::keyboard();
    let [one, two] = [device.connect(), device.connect()];
    send(&one, &[key(29, 1), key(30, 1), key(31, 1), Event::REPORT]);
    // Not a whole report: it never happens.
    send(&one, &[key(32, 1)]);
    send(&two, &report(key(30, 1)));
    device.events();
    drop(one);
    assert_eq!(device.events(), [key(29, 0), key(31, 0), Event::REPORT]);
    assert_eq!(device.pressed(), [30]);
    assert!(device.context.has_clients());
    drop(two);
    assert_eq!(device.events(), report(key(30, 0)));
    assert!(!device.context.has_clients());
}

#[test]
fn console_that_leaves_leds_unread_just_disconnects() {
    let info = VirtualDevice::Keyboard.info();
    let (device, console) = UnixStream::pair().unwrap();
    device.set_nonblocking(true).unwrap();
    let mut client = EventsClient::new(device, None);
    client.tell_leds(&Bitmap::default(), &info);
    send(&console, &report(key(30, 1)));
    drop(console);
    let reports = client.read(&info).reports;
    assert_eq!(reports, [[key(30, 1)]], "what it sent counts");
    let end = client.read(&info).more;
    assert!(matches!(end, Err(ClientError::Disconnected)), "{end:?}");
}

#[test]
fn tablet_has_a_position_buttons_and_wheels() {
    let mut device = TestSource::new(VirtualDevice::Tablet);
    let console = device.connect();
    assert_eq!(received(&console), [], "it has no LEDs");
    assert!(device.source.state().unwrap().axes.is_empty());
    let moved = [
        Event::new(EV_ABS, ABS_X, 32767),
        Event::new(EV_ABS, 1, 0),
        key(0x110, 1),
        Event::new(EV_REL, REL_WHEEL, -1),
        Event::REPORT,
    ];
    send(&console, &moved);
    assert_eq!(device.events(), moved);
    // The same place again, and a wheel that does not turn.
    send(
        &console,
        &[moved[0], Event::new(EV_REL, REL_WHEEL, 0), Event::REPORT],
    );
    assert_eq!(device.events(), []);
    let state = device.source.state().unwrap();
    assert_eq!(state.axes.get(&ABS_X), Some(&32767));
    assert!(state.keys.contains(0x110));
}

#[test]
fn hostile_console_is_disconnected_and_releases_its_keys() {
    let keyboard = [
        vec![key(0, 1)],
        vec![key(84, 1)],
        vec![key(249, 1)],
        vec![key(0x110, 1)],
        vec![key(u16::MAX, 1)],
        vec![key(30, 2)],
        vec![key(30, -1)],
        vec![key(30, i32::MIN)],
        vec![Event::new(EV_LED, 0, 1)],
        vec![Event::new(EV_ABS, ABS_X, 0)],
        vec![Event::new(0, 3, 0)],
        vec![Event::new(u16::MAX, 0, 0)],
        vec![key(31, 1); 65],
    ];
    let tablet = [
        vec![key(30, 1)],
        vec![Event::new(EV_ABS, ABS_X, 32768)],
        vec![Event::new(EV_ABS, ABS_X, -1)],
        vec![Event::new(EV_ABS, 0x35, 0)],
        vec![Event::new(EV_REL, 0, 1)],
        vec![Event::new(EV_REL, REL_WHEEL, 32768)],
        vec![Event::new(EV_REL, REL_WHEEL, i32::MIN)],
    ];
    let devices = [
        (VirtualDevice::Keyboard, 30, keyboard.to_vec()),
        (VirtualDevice::Tablet, 0x110, tablet.to_vec()),
    ];
    for (kind, held, attacks) in devices {
        let mut device = TestSource::new(kind);
        let bystander = device.connect();
        for attack in attacks {
            let console = device.connect();
            send(&console, &report(key(held, 1)));
            assert_eq!(device.events(), report(key(held, 1)));
            send(&console, &attack);
            assert_eq!(device.events(), report(key(held, 0)), "{attack:?}");
            assert!(is_closed(&console), "{attack:?}");
        }
        assert!(!is_closed(&bystander));
        send(&bystander, &report(key(held, 1)));
        assert_eq!(device.events(), report(key(held, 1)));
    }
}

#[test]
fn longest_report_is_one_of_64_events() {
    let mut device = TestSource::keyboard();
    let console = device.connect();
    let mut longest: Vec<Event> = (1..=64).map(|code| key(code, 1)).collect();
    longest.push(Event::REPORT);
    send(&console, &longest);
    assert_eq!(device.events(), longest);
    assert!(!is_closed(&console));
}

#[test]
fn consoles_are_told_the_leds_at_the_start_and_when_they_change() {
    let mut device = TestSource::keyboard();
    let leds = |on: [i32; 3]| {
        let mut report: Vec<_> = (0..)
            .zip(on)
            .map(|(code, on)| Event::new(EV_LED, code, on))
            .collect();
        report.push(Event::REPORT);
        report
    };
    let one = device.connect();
    assert_eq!(received(&one), leds([0, 0, 0]));
    device.set_leds(&[LED_CAPSL]);
    assert_eq!(received(&one), leds([0, 1, 0]));
    let two = device.connect();
    assert_eq!(received(&two), leds([0, 1, 0]));
    device.set_leds(&[0, 2]);
    assert_eq!(received(&one), leds([1, 0, 1]));
    assert_eq!(received(&two), leds([1, 0, 1]));
}

/// It blocks nobody, nothing grows, and it is told the newest state in the end.
#[test]
fn console_that_does_not_read_gets_the_newest_leds_later() {
    let mut device = TestSource::keyboard();
    let [deaf, other] = [device.connect(), device.connect()];
    for n in 0..20_000_u16 {
        device.set_leds(&[n % 3]);
        received(&other);
    }
    device.set_leds(&[0, 1, 2]);
    let mut got = Vec::new();
    for _ in 0..10 {
        got.extend(received(&deaf));
        // The source is ready now, and sends what it could not.
        device.events();
    }
    assert!(got.len() < 20_000, "{} events", got.len());
    let on = (0..3).map(|code| Event::new(EV_LED, code, 1));
    let newest: Vec<Event> = on.chain([Event::REPORT]).collect();
    assert_eq!(got.get(got.len() - 4..), Some(newest.as_slice()));
    assert_eq!(
        got.iter().filter(|event| event.ends_report()).count() * 4,
        got.len()
    );
    // It is no longer watched for room that it has.
    assert_eq!(device.events(), []);
    let mut none = Vec::new();
    let idle = device.source.read(&mut none).unwrap_err();
    assert_eq!(idle.kind(), ErrorKind::WouldBlock);
}

/// A read takes a part of each console's flood, so that all have their turns.
#[test]
fn flood_of_one_console_leaves_turns_to_the_others() {
    let mut device = TestSource::new(VirtualDevice::Tablet);
    let [flood, other] = [device.connect(), device.connect()];
    let mut sent = 0;
    loop {
        let event = report(Event::new(EV_ABS, ABS_X, sent))
            .map(Event::to_bytes)
            .concat();
        if (&flood).write_all(&event).is_err() {
            break;
        }
        sent += 1;
    }
    assert!(sent > 100, "{sent}");
    send(&other, &report(key(0x111, 1)));
    let mut events = Vec::new();
    let outcome = device.source.read(&mut events).unwrap();
    assert_eq!(outcome, ReadOutcome::MaybeMore);
    assert!(events.len() <= 64 + 2, "{} events", events.len());
    assert!(events.contains(&key(0x111, 1)));
}

#[test]
fn fifth_console_is_turned_away() {
    let mut device = TestSource::keyboard();
    let consoles: Vec<UnixStream> = (0..4).map(|_| device.connect()).collect();
    let fifth = device.connect();
    assert!(is_closed(&fifth));
    drop(consoles);
    device.events();
    assert!(!is_closed(&device.connect()));
}

#[test]
fn devices_are_what_linux_takes_for_a_keyboard_and_an_absolute_mouse() {
    let keyboard = VirtualDevice::Keyboard.info();
    // udev: a keyboard has all of the first 31 keys (ID_INPUT_KEYBOARD).
    assert!((1..32).all(|code| keyboard.has(EV_KEY, code)));
    assert!(keyboard.codes(EV_REL).is_none() && keyboard.codes(EV_ABS).is_none());
    let tablet = VirtualDevice::Tablet.info();
    // udev: absolute axes and mouse buttons, no pen and no touch (ID_INPUT_MOUSE).
    assert!(tablet.has(EV_ABS, 0) && tablet.has(EV_ABS, 1) && tablet.has(EV_KEY, 0x110));
    assert!(!tablet.has(EV_KEY, 0x140) && !tablet.has(EV_KEY, 0x14a));
    assert!(tablet.properties.is_empty());
}
