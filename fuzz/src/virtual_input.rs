// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles at the events socket of a device without hardware: bytes of any kind, however they are cut.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tempfile::TempDir;
use vhost_user_backends::backend::FIRST_TOKEN;
use vhost_user_backends::backend::fuzzing::FakeContext;
use vhost_user_backends::input::event_codes::*;
use vhost_user_backends::input::testing::{event_from_bytes, event_to_bytes};
use vhost_user_backends::input::{
    DeviceState, EVENTS_SOCKET, Event, EventSource as _, VirtualDevice, VirtualSource,
};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};

use crate::bytes::Bytes;

const MAX_STEPS: usize = 300;
const MAX_READS: usize = 4000;
/// Bytes that a socket takes at once, and that a console sends without the device reading.
const MAX_UNREAD: usize = 4096;
const REL_WHEEL: u16 = 8;

/// Consoles that keep to the protocol, beside some that do not. The events that the device reads are whole reports of
/// its own, they lead to its state, and what is pressed is what consoles press.
pub fn virtual_input(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut machine = Machine::new(bytes.u8() & 1 == 0);
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        machine.step(&mut bytes);
        machine.check();
    }
    machine.end();
}

struct Console {
    stream: UnixStream,
    /// What it presses after all that it sent, and after its last whole report.
    sent: BTreeSet<u16>,
    pressed: BTreeSet<u16>,
    /// It sent bytes that may mean anything.
    hostile: bool,
    unread: usize,
    /// Bytes of the device that are no whole event yet.
    partial: Vec<u8>,
}

struct Machine {
    source: VirtualSource,
    context: FakeContext,
    is_keyboard: bool,
    consoles: BTreeMap<usize, Console>,
    next: usize,
    leds: [bool; 3],
    /// The state that the events led to.
    told: DeviceState,
    /// Whether all that consoles did was read.
    is_read: bool,
    folder: TempDir,
}

impl Machine {
    fn new(is_keyboard: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let device = if is_keyboard {
            VirtualDevice::Keyboard
        } else {
            VirtualDevice::Tablet
        };
        let context = FakeContext::new(GuestMemoryAtomic::new(GuestMemoryMmap::default()))
            .expect("the host has descriptors left");
        let listener = UnixListener::bind(folder.path().join("s")).expect("a socket can be made");
        let added = context.add_listener(EVENTS_SOCKET, listener);
        added.expect("the socket is one");
        let mut source = VirtualSource::new(device).expect("the host has descriptors left");
        let listening = source.listen(&context.context(), FIRST_TOKEN);
        listening.expect("the socket can be watched");
        Self {
            source,
            context,
            is_keyboard,
            consoles: BTreeMap::new(),
            next: 0,
            leds: [false; 3],
            told: DeviceState::new(0),
            is_read: true,
            folder,
        }
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=29 => self.connect(),
            30..=39 => self.leave(bytes),
            40..=159 => self.send_report(bytes),
            160..=179 => self.send_noise(bytes),
            180..=229 => self.read(usize::from(bytes.u8() % 4)),
            230..=244 => self.set_leds(bytes),
            _ => self.read_leds(bytes),
        }
    }

    fn connect(&mut self) {
        let path = self.folder.path().join("s");
        let stream = UnixStream::connect(path).expect("the device listens");
        stream.set_nonblocking(true).expect("it is a socket");
        self.source.accept();
        // Those that left are counted until the device has read that.
        let served = !is_closed(&stream);
        assert!(served || self.consoles.len() >= 4 || !self.is_read);
        if served {
            let console = Console {
                stream,
                sent: BTreeSet::new(),
                pressed: BTreeSet::new(),
                hostile: false,
                unread: 0,
                partial: Vec::new(),
            };
            self.consoles.insert(self.next, console);
            self.next += 1;
        }
    }

    fn choose(&self, bytes: &mut Bytes<'_>) -> Option<usize> {
        let ids: Vec<usize> = self.consoles.keys().copied().collect();
        (!ids.is_empty()).then(|| bytes.of(&ids))
    }

    fn leave(&mut self, bytes: &mut Bytes<'_>) {
        if let Some(id) = self.choose(bytes) {
            self.consoles.remove(&id);
            self.is_read = false;
        }
    }

    /// A whole report, or a part of one, as the protocol has it; perhaps in pieces.
    fn send_report(&mut self, bytes: &mut Bytes<'_>) {
        let Some(id) = self.choose(bytes) else { return };
        let is_keyboard = self.is_keyboard;
        let mut report = Vec::new();
        let mut keys = Vec::new();
        for _ in 0..bytes.u8() % 8 {
            let event = match (is_keyboard, bytes.u8() % 4) {
                (true, _) => Event::new(EV_KEY, bytes.of(&[1, 30, 31, 42, 248]), 1),
                (false, 0) => Event::new(EV_KEY, bytes.of(&[0x110, 0x111, 0x114]), 1),
                (false, 1) => Event::new(EV_REL, REL_WHEEL, bytes.of(&[1, -1, 0, 32767, -32767])),
                (false, axis) => {
                    Event::new(EV_ABS, u16::from(axis) - 2, i32::from(bytes.u16() & 0x7fff))
                }
            };
            let event = match event.kind {
                EV_KEY => Event::new(EV_KEY, event.code, i32::from(bytes.u8() & 1)),
                _ => event,
            };
            keys.extend((event.kind == EV_KEY).then_some((event.code, event.value)));
            report.push(event);
        }
        report.push(Event::REPORT);
        let all: Vec<u8> = report.into_iter().flat_map(event_to_bytes).collect();
        if self.unread(id) + all.len() > MAX_UNREAD {
            return self.read(1);
        }
        let cut = usize::from(bytes.u8()) % all.len();
        let (first, rest) = all.split_at(cut);
        self.write(id, first);
        if bytes.u8() & 7 == 0 {
            self.read(1);
        }
        self.write(id, rest);
        if let Some(console) = self.consoles.get_mut(&id) {
            for (code, value) in keys {
                match value {
                    0 => console.sent.remove(&code),
                    _ => console.sent.insert(code),
                };
            }
            console.pressed = console.sent.clone();
        }
    }

    fn send_noise(&mut self, bytes: &mut Bytes<'_>) {
        let Some(id) = self.choose(bytes) else { return };
        let noise = bytes.some(256);
        if self.unread(id) + noise.len() > MAX_UNREAD {
            return self.read(1);
        }
        self.write(id, noise);
        if let Some(console) = self.consoles.get_mut(&id) {
            console.hostile |= !noise.is_empty();
        }
    }

    fn unread(&self, id: usize) -> usize {
        self.consoles.get(&id).map_or(0, |console| console.unread)
    }

    fn write(&mut self, id: usize, bytes: &[u8]) {
        let Some(console) = self.consoles.get_mut(&id) else {
            return;
        };
        self.is_read &= bytes.is_empty();
        console.unread += bytes.len();
        if let Err(error) = (&console.stream).write_all(bytes) {
            let ended = matches!(
                error.kind(),
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
            );
            assert!(ended && console.hostile, "{error}");
        }
    }

    /// Reads up to `times`; with 0, all.
    fn read(&mut self, times: usize) {
        let most = if times == 0 { MAX_READS } else { times };
        for _ in 0..most {
            let mut events = Vec::new();
            match self.source.read(&mut events) {
                Ok(_) => self.take(&events),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    self.is_read = true;
                    self.consoles
                        .values_mut()
                        .for_each(|console| console.unread = 0);
                    return;
                }
            }
        }
        assert!(times != 0, "the device never comes to rest");
    }

    fn take(&mut self, events: &[Event]) {
        assert!(
            events.len() <= 4 * (2 * 64 + 250),
            "{} events",
            events.len()
        );
        assert!(
            events.last().is_none_or(Event::ends_report),
            "a part of a report"
        );
        let mut length = 0;
        for event in events {
            if event.ends_report() {
                assert!(length > 0, "an empty report");
                length = 0;
                continue;
            }
            length += 1;
            let info = self.source.info();
            assert!(info.has(event.kind, event.code), "{event:?}");
            match event.kind {
                EV_KEY => {
                    let was_pressed = self.told.keys.contains(event.code);
                    assert_eq!(was_pressed, event.value == 0, "{event:?} is no change");
                    assert!((0..=1).contains(&event.value));
                }
                EV_ABS => assert!((0..=32767).contains(&event.value), "{event:?}"),
                _ => assert!(event.value != 0 && event.value.abs() <= 32767, "{event:?}"),
            }
            self.told.apply(event);
        }
    }

    fn set_leds(&mut self, bytes: &mut Bytes<'_>) {
        if !self.is_keyboard {
            return;
        }
        let led = usize::from(bytes.u8() % 3);
        self.leds[led] = bytes.u8() & 1 == 1;
        let event = Event::new(EV_LED, led as u16, self.leds[led].into());
        let sent = self.source.send(&[event, Event::REPORT]);
        sent.expect("nobody fails because of LEDs");
    }

    fn read_leds(&mut self, bytes: &mut Bytes<'_>) {
        if let Some(id) = self.choose(bytes) {
            self.drain(id);
        }
    }

    /// Reads what the device sent to a console. Returns the last report.
    fn drain(&mut self, id: usize) -> Option<[bool; 3]> {
        let is_keyboard = self.is_keyboard;
        let console = self.consoles.get_mut(&id)?;
        let read = (&console.stream).read_to_end(&mut console.partial);
        if let Err(error) = read {
            assert!(
                error.kind() == ErrorKind::WouldBlock || console.hostile,
                "{error}"
            );
        }
        let mut newest = None;
        let mut leds = [false; 3];
        let whole = console.partial.len() / 8 * 8;
        for event in console.partial.drain(..whole).collect::<Vec<_>>().chunks(8) {
            let event = event_from_bytes(event.try_into().expect("they are 8 bytes"));
            assert!(is_keyboard, "a tablet has no LEDs");
            if event.ends_report() {
                newest = Some(leds);
            } else {
                assert!(event.kind == EV_LED && event.code < 3 && (0..=1).contains(&event.value));
                leds[usize::from(event.code)] = event.value == 1;
            }
        }
        newest
    }

    /// The device's state is what its events led to; and, once all was read, what consoles press.
    fn check(&mut self) {
        let state = self.source.state().expect("the device has a state");
        assert_eq!(state.keys, self.told.keys);
        assert_eq!(state.axes, self.told.axes);
        if !self.is_read {
            return;
        }
        self.consoles.retain(|_, console| {
            let closed = is_closed(&console.stream);
            assert!(
                !closed || console.hostile,
                "a console was disconnected without a reason"
            );
            !closed
        });
        let mut pressed = BTreeSet::new();
        let mut hostile = false;
        for console in self.consoles.values() {
            pressed.extend(console.pressed.iter().copied());
            hostile |= console.hostile;
        }
        let told: BTreeSet<u16> = self.told.keys.iter().collect();
        if !hostile {
            assert_eq!(told, pressed);
        }
        assert_eq!(self.context.has_clients(), !self.consoles.is_empty());
    }

    fn end(&mut self) {
        self.read(0);
        self.check();
        // Who did not read gets the newest LEDs, in the end.
        let ids: Vec<usize> = self.consoles.keys().copied().collect();
        for id in ids {
            let mut newest = None;
            for _ in 0..4 {
                newest = self.drain(id).or(newest);
                self.read(0);
            }
            if let Some(newest) = newest {
                assert_eq!(newest, self.leds);
            }
        }
        self.consoles.clear();
        self.is_read = false;
        self.read(0);
        assert!(
            self.told.keys.is_empty(),
            "{:?} stays pressed",
            self.told.keys
        );
        assert!(!self.context.has_clients());
    }
}

/// Whether the device closed the connection. What it sent stays there.
fn is_closed(stream: &UnixStream) -> bool {
    let at_once = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::new(stream, PollFlags::RDHUP)];
    poll(&mut fds, Some(&at_once)).expect("poll(2) does not fail");
    !fds[0].revents().is_empty()
}
