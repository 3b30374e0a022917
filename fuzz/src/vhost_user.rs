//! What comes by the front-end's socket.

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use vhost_user_backends::backend::DeviceBuilder;
use vhost_user_backends::backend::fuzzing::{Connection, Passage};
use vhost_user_backends::gpu::Options as GpuOptions;
use vhost_user_backends::input::testing::FakeEvdev;
use vhost_user_backends::input::{HostAccess, InputBuilder};

use crate::bytes::Bytes;
use crate::guest::{Guest, QUEUES, REGIONS};
use crate::input::device_info;

const MAX_STEPS: usize = 100;
/// Bytes of a message's header.
const HEADER: usize = 12;
/// Most bytes of a payload that pass.
const PAYLOAD_MAX: usize = 64 << 10;
/// Where the front-end has the guest's memory.
const USER: u64 = 0x7000_0000;
/// The protocol's version, and the wish for an acknowledgement.
const VERSION: u32 = 1;
const NEED_REPLY: u32 = 8;

const SET_FEATURES: u32 = 2;
const SET_OWNER: u32 = 3;
const RESET_OWNER: u32 = 4;
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_NUM: u32 = 8;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_BASE: u32 = 10;
const GET_VRING_BASE: u32 = 11;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const SET_PROTOCOL_FEATURES: u32 = 16;
const SET_VRING_ENABLE: u32 = 18;
const GET_CONFIG: u32 = 24;
const SET_CONFIG: u32 = 25;
const GPU_SET_SOCKET: u32 = 33;
const RESET_DEVICE: u32 = 34;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;

/// A front-end that sends anything, and a guest behind it.
pub fn vhost_user(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    match bytes.u8() % 4 {
        0 => pass(&mut bytes),
        1 => {
            let info = device_info(&mut bytes);
            let source = FakeEvdev::new(info, HostAccess::UntilGrab);
            let source = source.expect("the host has descriptors left");
            serve(InputBuilder::new(source), &mut bytes);
        }
        _ => {
            let options = GpuOptions {
                max_hostmem: Some(2 << 20),
                ..GpuOptions::default()
            };
            serve(options, &mut bytes);
        }
    }
}

/// The relay passes whole messages on as they are, whatever they are, and nothing else but what it
/// adds for the daemon.
fn pass(bytes: &mut Bytes<'_>) {
    let (front_end, ours) = UnixStream::pair().expect("cannot make a socket");
    let (theirs, daemon) = UnixStream::pair().expect("cannot make a socket");
    for socket in [&front_end, &daemon] {
        socket
            .set_nonblocking(true)
            .expect("fcntl(2) does not fail");
    }
    let mut passage = Passage::new(ours, theirs).expect("fcntl(2) does not fail");
    let mut lanes = [Lane::default(), Lane::default()];
    let ends = [&front_end, &daemon];
    let mut goes_on = true;
    while goes_on && !bytes.is_empty() {
        let lane = usize::from(bytes.u8() & 1);
        let part = match bytes.u8() {
            0..=127 => {
                let mut message = Vec::new();
                for word in [bytes.u8().into(), VERSION, bytes.mostly(&[0, 1, 8, 300])] {
                    message.extend(word.to_ne_bytes());
                }
                message.extend(bytes.some(400));
                message
            }
            _ => bytes.some(600).to_vec(),
        };
        let mut end = ends[lane];
        if let Ok(written) = end.write(&part) {
            lanes[lane].sent.extend(&part[..written]);
        }
        goes_on = passage.pass();
        for (from, to) in [(0, 1), (1, 0)] {
            let mut buffer = [0; 4096];
            let mut end = ends[to];
            while let Ok(count @ 1..) = end.read(&mut buffer) {
                lanes[from].got.extend(&buffer[..count]);
            }
            lanes[from].check(goes_on, from == 0);
        }
    }
}

#[derive(Default)]
struct Lane {
    sent: Vec<u8>,
    got: Vec<u8>,
}

impl Lane {
    fn check(&self, goes_on: bool, of_front_end: bool) {
        let mut whole = 0;
        let mut passed = 0;
        let mut owned = false;
        let mut features = None;
        while let Some(header) = self.sent.get(whole..whole + HEADER) {
            let (request, len) = (word(header, 0), word(header, 8) as usize);
            if len > PAYLOAD_MAX {
                assert!(!goes_on, "a message of {len} bytes does not end it");
                break;
            }
            let end = whole + HEADER + len;
            let Some(sent) = self.sent.get(whole..end) else {
                break;
            };
            whole = end;
            let mut again = Vec::new();
            if of_front_end {
                let payload = sent[HEADER..].first_chunk();
                match request {
                    SET_FEATURES => features = payload.map(|value| u64::from_ne_bytes(*value)),
                    RESET_OWNER => owned = false,
                    SET_OWNER if std::mem::replace(&mut owned, true) => {
                        self.expect(&mut passed, &head(RESET_OWNER, VERSION, 0), 0..0);
                        again.extend(features);
                    }
                    RESET_DEVICE => again.extend(features),
                    _ => {}
                }
            }
            // A ring that cannot be where the driver wants it is placed outside the memory.
            let moved = of_front_end && request == SET_VRING_ADDR;
            let moved = if moved { 8..32 } else { 0..0 };
            self.expect(&mut passed, sent, moved);
            for features in again.into_iter().filter(|features| features & 1 << 30 != 0) {
                let mut message = head(SET_FEATURES, VERSION, 8);
                message.extend(features.to_ne_bytes());
                self.expect(&mut passed, &message, 0..0);
            }
        }
        assert!(self.got.len() <= passed, "a part of a message is passed on");
        // At most so many messages pass in one turn, and no more were sent.
        assert!(
            !goes_on || self.got.len() == passed,
            "a whole message is held back"
        );
    }

    /// Compares `message` with what came out at `at`, but for the bytes `except` of its payload.
    fn expect(&self, at: &mut usize, message: &[u8], except: Range<usize>) {
        let end = *at + message.len();
        if let Some(got) = self.got.get(*at..end) {
            let [from, to] = [except.start, except.end].map(|at| (HEADER + at).min(got.len()));
            let same = got[..from] == message[..from] && got[to..] == message[to..];
            assert!(same, "message {} is changed", word(message, 0));
        }
        *at = end;
    }
}

/// The 32 bits of a header at `at`.
fn word(header: &[u8], at: usize) -> u32 {
    let word: [u8; 4] = header[at..at + 4].try_into().expect("a word of 4 bytes");
    u32::from_ne_bytes(word)
}

/// As all front-ends have them. One that blocks, given to two queues, holds up the worker, which is
/// this front-end's own, until it leaves.
fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).expect("the host has descriptors left")
}

struct FrontEnd {
    socket: UnixStream,
    memory: File,
    kicks: [OwnedFd; QUEUES],
    calls: [OwnedFd; QUEUES],
    null: File,
    displays: Vec<UnixStream>,
}

fn serve(builder: impl DeviceBuilder, bytes: &mut Bytes<'_>) {
    let memory = memfd_create("guest", MemfdFlags::CLOEXEC).expect("the host has memory left");
    let len: usize = REGIONS.iter().map(|(_, len)| len).sum();
    let memory = File::from(memory);
    memory
        .set_len(len as u64)
        .expect("the host has memory left");
    let mut guest = Guest::in_file(&memory);
    let (socket, ours) = UnixStream::pair().expect("cannot make a socket");
    socket
        .set_nonblocking(true)
        .expect("fcntl(2) does not fail");
    let front_end = FrontEnd {
        socket,
        memory,
        kicks: [event(), event()],
        calls: [event(), event()],
        null: File::open("/dev/null").expect("there is /dev/null"),
        displays: Vec::new(),
    };
    let mut connection = Connection::new(ours, builder).expect("the host has threads left");
    let mut front_end = front_end;
    if bytes.u8() & 1 == 0 {
        front_end.set_up(bytes);
    }
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        front_end.step(&mut guest, bytes);
        if !connection.pass() {
            break;
        }
        front_end.listen();
    }
    // Closed by the front-end, but for what it may still be told.
    let _ = front_end.socket.shutdown(std::net::Shutdown::Write);
    // That a broken connection, or a broken kick, ends the program is as it should be; that it does
    // not panic or hang is what is looked at.
    connection.finish();
}

impl FrontEnd {
    /// What QEMU does until the guest's driver runs.
    fn set_up(&mut self, bytes: &mut Bytes<'_>) {
        self.features(1 << 30 | 1 << 32 | u64::from(bytes.u8()) << 28);
        self.message(
            SET_PROTOCOL_FEATURES,
            &(1_u64 << 9 | 1 | 1 << 3 | 1 << 13 | 1 << 15).to_ne_bytes(),
            &[],
        );
        match bytes.u8() & 1 {
            0 => self.table(REGIONS.len()),
            _ => (0..REGIONS.len()).for_each(|region| self.change(ADD_MEM_REG, region)),
        }
        self.display();
        for queue in 0..QUEUES as u32 {
            let size = if bytes.u8() & 1 == 0 { 64 } else { 16 };
            self.state(SET_VRING_NUM, queue, size);
            self.state(SET_VRING_BASE, queue, 0);
            self.addresses(queue, Guest::places(queue as usize));
            self.event(SET_VRING_CALL, queue);
            self.event(SET_VRING_KICK, queue);
            self.state(SET_VRING_ENABLE, queue, 1);
        }
    }

    fn step(&mut self, guest: &mut Guest, bytes: &mut Bytes<'_>) {
        let queue = u32::from(bytes.u8() & 1);
        match bytes.u8() {
            0..=39 => {
                let request = bytes.some(300).to_vec();
                guest.submit(queue as usize, &request, bytes);
            }
            40..=79 => {
                let _ = rustix::io::write(&self.kicks[queue as usize], &1_u64.to_ne_bytes());
            }
            80..=84 => guest.scribble(queue as usize, bytes),
            85..=89 => guest.run_away(queue as usize, bytes),
            90..=99 => self.features(bytes.u64()),
            100..=104 => self.features(1 << 30 | 1 << 32 | u64::from(bytes.u8()) << 28),
            105..=109 => self.table(usize::from(bytes.u8() % 4)),
            110..=119 => self.wild_table(bytes),
            120..=124 => self.state(SET_VRING_NUM, queue, bytes.mostly(&[64, 16, 1, 1024, 0, 3])),
            125..=129 => self.state(SET_VRING_BASE, queue, bytes.mostly(&[0, 1, 0xffff])),
            130..=139 => self.state(GET_VRING_BASE, queue, 0),
            140..=149 => self.state(SET_VRING_ENABLE, queue, bytes.mostly(&[1, 0, 2])),
            150..=154 => self.addresses(queue, Guest::places(queue as usize)),
            155..=159 => {
                let mut place = || match bytes.u8() {
                    0..=127 => u64::from(bytes.u16()) << 3,
                    _ => bytes.u64(),
                };
                let places = [place(), place(), place()];
                self.addresses(queue, places);
            }
            160..=163 => self.event(SET_VRING_KICK, queue),
            164..=167 => {
                self.kicks[queue as usize] = event();
                self.event(SET_VRING_KICK, queue);
            }
            168..=172 => self.event(SET_VRING_CALL, queue),
            173..=179 => {
                let request = bytes.of(&[SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR]);
                let number = bytes.mostly(&[0, 1, 2, 0x100, 0x101]);
                let fds = self.fds(bytes);
                self.message(request, &u64::from(number).to_ne_bytes(), &fds);
            }
            180..=184 => self.config(bytes),
            185..=189 => self.display(),
            190..=191 => self.displays.clear(),
            192..=193 => self.message(RESET_DEVICE, &[], &[]),
            194..=195 => self.message(bytes.of(&[SET_OWNER, RESET_OWNER]), &[], &[]),
            196..=199 => {
                let request = bytes.of(&[ADD_MEM_REG, REM_MEM_REG]);
                self.change(request, usize::from(bytes.u8()) % REGIONS.len());
            }
            200..=201 => {
                let request = bytes.of(&[ADD_MEM_REG, REM_MEM_REG]);
                let mut payload = vec![0; 8];
                payload.extend(region(bytes));
                let fds = self.fds(bytes);
                self.message(request, &payload, &fds);
            }
            202..=229 => {
                let request = bytes.mostly(&[1, 3, 15, 17, 20, 21, 26, 31, 32, 33, 36, 40, 43]);
                let payload = bytes.some(300);
                let fds = self.fds(bytes);
                self.message(request, payload, &fds);
            }
            230..=233 => self.send(bytes.some(600), &[]),
            _ => {
                let payload = bytes.some(4200);
                let request = bytes.u8().into();
                let flags = bytes.mostly(&[VERSION, VERSION | NEED_REPLY, 0, VERSION | 4]);
                let mut message = head(request, flags, payload.len() as u32 & 0x1fff);
                message.extend(payload);
                let fds = self.fds(bytes);
                self.send(&message, &fds);
            }
        }
    }

    /// Some descriptors, each of a kind that `bytes` choose.
    fn fds(&self, bytes: &mut Bytes<'_>) -> Vec<OwnedFd> {
        let count = match bytes.u8() {
            0..=99 => 1,
            100..=199 => 0,
            more => more % 34,
        };
        (0..count)
            .map(|_| {
                let fd = match bytes.u8() % 6 {
                    0 => self.memory.as_fd(),
                    1 => self.kicks[0].as_fd(),
                    2 => self.calls[1].as_fd(),
                    3 => self.null.as_fd(),
                    4 => self.socket.as_fd(),
                    _ => self.kicks[1].as_fd(),
                };
                fd.try_clone_to_owned()
                    .expect("the host has descriptors left")
            })
            .collect()
    }

    fn features(&mut self, features: u64) {
        self.message(SET_FEATURES, &features.to_ne_bytes(), &[]);
    }

    fn state(&mut self, request: u32, queue: u32, number: u32) {
        let payload = [queue, number].map(u32::to_ne_bytes).concat();
        self.message(request, &payload, &[]);
    }

    fn addresses(&mut self, queue: u32, [descriptors, avail, used]: [u64; 3]) {
        let mut payload = [queue, 0].map(u32::to_ne_bytes).concat();
        for at in [descriptors, used, avail, 0] {
            payload.extend(at.wrapping_add(USER).to_ne_bytes());
        }
        self.message(SET_VRING_ADDR, &payload, &[]);
    }

    fn event(&mut self, request: u32, queue: u32) {
        let fds = if request == SET_VRING_KICK {
            &self.kicks
        } else {
            &self.calls
        };
        let fd = fds[queue as usize].try_clone();
        let fd = fd.expect("the host has descriptors left");
        self.message(request, &u64::from(queue).to_ne_bytes(), &[fd]);
    }

    fn table(&mut self, count: usize) {
        let mut payload = [count as u32, 0].map(u32::to_ne_bytes).concat();
        let mut offset = 0;
        let mut fds = Vec::new();
        for (at, len) in REGIONS.iter().take(count) {
            for field in [*at, *len as u64, at + USER, offset] {
                payload.extend(field.to_ne_bytes());
            }
            offset += *len as u64;
            let fd = self.memory.as_fd().try_clone_to_owned();
            fds.push(fd.expect("the host has descriptors left"));
        }
        self.message(SET_MEM_TABLE, &payload, &fds);
    }

    /// Adds or removes a region of the guest's.
    fn change(&mut self, request: u32, region: usize) {
        let (at, len) = REGIONS[region];
        let offset: usize = REGIONS.iter().take(region).map(|(_, len)| len).sum();
        let words = [0, at, len as u64, at + USER, offset as u64];
        let payload = words.map(u64::to_ne_bytes).concat();
        let fd = self.memory.as_fd().try_clone_to_owned();
        let fds = [fd.expect("the host has descriptors left")];
        let count = usize::from(request == ADD_MEM_REG);
        self.message(request, &payload, &fds[..count]);
    }

    fn wild_table(&mut self, bytes: &mut Bytes<'_>) {
        let count = bytes.u8() % 10;
        let mut payload = [bytes.mostly(&[count.into()]), 0]
            .map(u32::to_ne_bytes)
            .concat();
        for _ in 0..count {
            payload.extend(region(bytes));
        }
        let fds = self.fds(bytes);
        self.message(SET_MEM_TABLE, &payload, &fds);
    }

    fn config(&mut self, bytes: &mut Bytes<'_>) {
        let request = bytes.of(&[GET_CONFIG, SET_CONFIG]);
        let offset = bytes.mostly(&[0, 1, 8, 136, 256]);
        let written = bytes.some(300);
        let size = match bytes.u8() {
            0..=199 => written.len() as u32,
            _ => bytes.u32(),
        };
        let mut payload = [offset, size, 0].map(u32::to_ne_bytes).concat();
        payload.extend(written);
        self.message(request, &payload, &[]);
    }

    fn display(&mut self) {
        let (ours, theirs) = UnixStream::pair().expect("cannot make a socket");
        self.displays.push(ours);
        self.message(GPU_SET_SOCKET, &[], &[theirs.into()]);
    }

    fn message(&mut self, request: u32, payload: &[u8], fds: &[OwnedFd]) {
        let flags = VERSION | NEED_REPLY;
        let mut message = head(request, flags, payload.len() as u32);
        message.extend(payload);
        self.send(&message, fds);
    }

    fn send(&mut self, message: &[u8], fds: &[OwnedFd]) {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        // What does not fit is not sent: then the rest is out of step, as it may be.
        let _ = sendmsg(&self.socket, &[IoSlice::new(message)], &mut control, flags);
    }

    /// Takes what it is told.
    fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(1..) = self.socket.read(&mut buffer) {}
    }
}

fn head(request: u32, flags: u32, size: u32) -> Vec<u8> {
    [request, flags, size].map(u32::to_ne_bytes).concat()
}

/// A region of memory (`VhostUserMemoryRegion`).
fn region(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut region = Vec::new();
    let mut field = |choices: &[u32]| match bytes.u8() {
        0xf8..=0xff => bytes.u64(),
        choice => choices[usize::from(choice) % choices.len()].into(),
    };
    let at = field(&[0x1000, 0x9000, 0x2_0000, 0]);
    let len = field(&[0x8000, 0x1000, 0x4000, 0, 0x20_0000]);
    let user = field(&[0x7000_1000, 0x7000_9000, 0x7002_0000, 0]);
    let offset = field(&[0, 0x8000, 0x1_0000, 0x1000, 1]);
    for field in [at, len, user, offset] {
        region.extend(field.to_ne_bytes());
    }
    region
}
