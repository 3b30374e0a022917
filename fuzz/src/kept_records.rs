// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Records of the devices and of the front-end's messages that a process forged which a guest broke into.

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};

use tempfile::TempDir;
use vhost_user_backends::backend::fuzzing::{Entry, FakeContext, Processes};
use vhost_user_backends::backend::{Device as _, DeviceBuilder as _};
use vhost_user_backends::input::event_codes::*;
use vhost_user_backends::input::testing::event_to_bytes;
use vhost_user_backends::input::{
    EVENTS_SOCKET, Event, Input, InputBuilder, VirtualDevice, VirtualSource,
};
use vmm_sys_util::epoll::EventSet;

use crate::bytes::Bytes;
use crate::gpu::resumed::Mortal;
use crate::guest::{Guest, QUEUES};
use crate::turns;

/// Processes that may be replaced in one run.
const MAX_PROCESSES: usize = 12;
const MAX_VALUE: usize = 200;

/// Successors of processes that forged records refuse them or go on: they neither panic nor hang, and keep to their
/// budgets.
pub fn kept_records(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.u8() % 3 {
        0 => gpu(&mut bytes),
        1 => input(&mut bytes),
        _ => proxy(&mut bytes),
    }
}

/// Forges some records: those that there are, changed, or others.
fn forge(processes: &Processes, device: bool, tables: &[u16], bytes: &mut Bytes<'_>) {
    for _ in 0..=bytes.u8() % 4 {
        let records = processes.records(device);
        let record = records.get(usize::from(bytes.u8()) % records.len().max(1));
        let (table, id, mut value) = match (bytes.u8(), record) {
            (0..=199, Some(record)) => record.clone(),
            _ => (bytes.of(tables), bytes.u8().into(), Vec::new()),
        };
        match bytes.u8() {
            0..=19 => {
                processes.remove(device, table, id);
                continue;
            }
            20..=119 => {
                let (at, any) = (usize::from(bytes.u16()), bytes.u8());
                let len = value.len().max(1);
                if let Some(byte) = value.get_mut(at % len) {
                    *byte = bytes.of(&[0, 1, 2, 0xff, 0x80, any, any]);
                }
            }
            120..=139 => value.truncate(usize::from(bytes.u16())),
            140..=159 => value.extend(bytes.some(MAX_VALUE)),
            160..=219 => {
                let at = usize::from(bytes.u16()) % (value.len() + 1);
                let wide = u64::from(bytes.mostly(&[0, 1, 4096, u32::MAX, 1 << 31, 64, 1 << 20]));
                for (to, from) in value.iter_mut().skip(at).zip(wide.to_le_bytes()) {
                    *to = from;
                }
            }
            _ => value = bytes.some(MAX_VALUE).to_vec(),
        }
        let id = match bytes.u8() {
            0..=219 => id,
            220..=239 => id.wrapping_add(1),
            _ => bytes.u64(),
        };
        processes.put(device, &(table, id, value) as &Entry);
    }
}

fn gpu(bytes: &mut Bytes<'_>) {
    const TABLES: [u16; 13] = [1, 16, 17, 18, 19, 20, 21, 22, 23, 32, 33, 34, 35];
    let mut machine = Mortal::new();
    for _ in 0..MAX_PROCESSES {
        let step = bytes.some(300);
        machine.step(&mut Bytes::new(step));
        if bytes.is_empty() {
            break;
        }
        forge(&machine.processes, true, &TABLES, bytes);
        // The lists that backings name begin there.
        for _ in 0..bytes.u8() % 4 {
            let at = u64::from(bytes.u8()) * 8;
            let number = u64::from(bytes.mostly(&[0, 1, 4096, 0x2000, u32::MAX, 1 << 20]));
            let shift = bytes.of(&[0, 0, 0, 32]);
            let written = (number << shift).to_le_bytes();
            let written = machine.processes.write_lists(at, &written);
            written.expect("the host has memory left");
        }
        if machine.resume().is_err() {
            return;
        }
        machine.rest();
    }
    machine.end();
}

/// A virtual keyboard with a client.
struct Keyboard {
    processes: Processes,
    input: Option<Input<VirtualSource>>,
    program: FakeContext,
    guest: Guest,
    client: UnixStream,
    device: VirtualDevice,
    folder: TempDir,
}

fn input(bytes: &mut Bytes<'_>) {
    const TABLES: [u16; 16] = [
        1, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
    ];
    let mut keyboard = Keyboard::new(bytes.u8() & 1 == 0);
    for _ in 0..MAX_PROCESSES {
        for _ in 0..bytes.u8() % 32 {
            keyboard.step(bytes);
        }
        if bytes.is_empty() {
            break;
        }
        keyboard.processes.commit();
        forge(&keyboard.processes, true, &TABLES, bytes);
        if !keyboard.resume() {
            return;
        }
        keyboard.rest();
    }
    keyboard.rest();
}

impl Keyboard {
    fn new(is_keyboard: bool) -> Self {
        let device = match is_keyboard {
            true => VirtualDevice::Keyboard,
            false => VirtualDevice::Tablet,
        };
        let processes = Processes::new().expect("the host has descriptors left");
        let folder = tempfile::tempdir().expect("a folder can be made");
        let mut guest = Guest::new();
        guest.vrings = processes
            .vrings(&guest.memory, QUEUES as u32)
            .expect("nothing was left");
        let (program, input) =
            build(&processes, &guest, &folder, device).expect("nothing was left");
        processes.replayed();
        guest.start(true, &mut Bytes::new(&[]));
        let client = UnixStream::connect(folder.path().join("s0")).expect("the device listens");
        client.set_nonblocking(true).expect("it is a socket");
        let mut keyboard = Self {
            processes,
            input: Some(input),
            program,
            guest,
            client,
            device,
            folder,
        };
        keyboard.rest();
        keyboard
    }

    /// Whether the next process goes on.
    fn resume(&mut self) -> bool {
        self.input = None;
        if self.processes.succeed().is_err() {
            return false;
        }
        let vrings = self.processes.vrings(&self.guest.memory, QUEUES as u32);
        let Ok(vrings) = vrings else {
            return false;
        };
        self.guest.vrings = vrings;
        let built = build(&self.processes, &self.guest, &self.folder, self.device);
        let Some((program, input)) = built else {
            return false;
        };
        self.program = program;
        self.input = Some(input);
        self.guest.start(false, &mut Bytes::new(&[]));
        self.processes.replayed();
        true
    }

    fn turn(&mut self, event: u16, set: EventSet) {
        let vrings = self.guest.vrings.clone();
        let input = self.input.as_mut().expect("a process lives");
        let handled = input.handle_event(event, set, &vrings);
        handled.expect("nothing ends the worker");
        self.processes.commit();
    }

    fn rest(&mut self) {
        for queue in 0..QUEUES {
            self.turn(queue as u16, EventSet::IN);
        }
        turns::rest(self, |run| &run.program, Self::turn);
    }

    fn step(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.u8() {
            0..=99 => {
                let (kind, code) =
                    bytes.of(&[(EV_KEY, 30), (EV_KEY, 31), (EV_ABS, 0), (EV_KEY, 0x110)]);
                let event = Event::new(kind, code, i32::from(bytes.u8() & 1));
                let _ = self.client.write(&event_to_bytes(event));
                if bytes.u8() < 200 {
                    let _ = self.client.write(&event_to_bytes(Event::REPORT));
                }
            }
            100..=119 => drop(self.client.write(bytes.some(20))),
            120..=179 => self.guest.offer(0, None),
            180..=199 => {
                let event = Event::new(EV_LED, bytes.of(&[0, 1, 2]), i32::from(bytes.u8() & 1));
                self.guest.offer(1, Some(event_to_bytes(event)));
            }
            200..=219 => {
                let query = [bytes.u8(), bytes.u8()];
                let input = self.input.as_mut().expect("a process lives");
                let _ = input.set_config(0, &query);
                let _ = input.get_config(0, 136);
            }
            _ => self.rest(),
        }
    }
}

/// The device of the process that lives; none if it does not go on.
fn build(
    processes: &Processes,
    guest: &Guest,
    folder: &TempDir,
    device: VirtualDevice,
) -> Option<(FakeContext, Input<VirtualSource>)> {
    let program = processes.context(guest.memory.clone());
    let program = program.expect("the host has descriptors left");
    // Another one for each process: the service manager keeps it.
    let number = (0..).find(|n| !folder.path().join(format!("s{n}")).exists())?;
    let listener = UnixListener::bind(folder.path().join(format!("s{number}")));
    let listener = listener.expect("a socket can be made");
    let added = program.add_listener(EVENTS_SOCKET, listener);
    added.expect("the socket is one");
    let source = VirtualSource::new(device).expect("the host has descriptors left");
    let input = InputBuilder::new(source).build(program.context()).ok()?;
    processes.commit();
    Some((program, input))
}

/// The front-end's messages, as a process recorded them.
fn proxy(bytes: &mut Bytes<'_>) {
    const TABLES: [u16; 5] = [1, 2, 3, 4, 5];
    let mut processes = Processes::new().expect("the host has descriptors left");
    let (mut front_end, ours) = UnixStream::pair().expect("cannot make a socket");
    let (other, _) = UnixStream::pair().expect("cannot make a socket");
    front_end.set_nonblocking(true).expect("it is a socket");
    processes.accept(&ours);
    drop(ours);
    let kept = processes.keep(&other).expect("the locker is empty");
    // Messages of each kind, with a descriptor that is kept or none.
    for _ in 0..bytes.u8() % 24 {
        let request = bytes.of(&[2_u32, 3, 5, 8, 9, 10, 12, 13, 14, 16, 18, 21, 33, 4, 34]);
        let mut value = (if bytes.u8() & 1 == 0 { kept } else { 0 })
            .to_le_bytes()
            .to_vec();
        value.push(0);
        let fields = [0, 1, 0x4000_0000, 0x1000, 64, 0x828b];
        for _ in 0..bytes.u8() % 6 {
            value.extend(u64::from(bytes.mostly(&fields)).to_ne_bytes());
        }
        let id = u64::from(request) << 32 | u64::from(bytes.mostly(&[0, 1]));
        let region = [0x10_0000_u64, 0x7000_0000, 0, kept].map(u64::to_le_bytes);
        let memory = [region.as_flattened(), &[0]].concat();
        match bytes.u8() {
            0..=199 => processes.put(false, &(3, id, value)),
            200..=229 => processes.put(false, &(4, u64::from(bytes.u8()) << 20, memory)),
            _ => processes.put(false, &(2, 0, bytes.some(MAX_VALUE).to_vec())),
        }
    }
    for _ in 0..MAX_PROCESSES {
        if bytes.is_empty() {
            break;
        }
        forge(&processes, false, &TABLES, bytes);
        if processes.succeed().is_err() {
            return;
        }
        let (mut daemon, theirs) = UnixStream::pair().expect("cannot make a socket");
        daemon.set_nonblocking(true).expect("it is a socket");
        let Ok(Some(mut proxy)) = processes.proxy(theirs) else {
            return;
        };
        let mut goes_on = true;
        for _ in 0..bytes.u8() % 16 {
            let _ = front_end.write(bytes.some(100));
            goes_on = goes_on && proxy.pass();
            let mut buffer = [0; 1 << 16];
            while let Ok(1..) = daemon.read(&mut buffer) {}
            // Any answer.
            let _ = daemon.write(bytes.some(100));
            goes_on = goes_on && proxy.pass();
            while let Ok(1..) = front_end.read(&mut buffer) {}
        }
        if !goes_on {
            return;
        }
    }
}
