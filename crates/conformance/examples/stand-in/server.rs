// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user connection.

use std::fs::File;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::abort;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::devices::Device;
use crate::memory::{Broken, Memory};
use crate::ring::{PACKED, Ring};
use crate::{State, enter, fault};

const VERSION_1: u64 = 1 << 32;
const PROTOCOL_FEATURES: u64 = 1 << 30;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT: u64 = 1 << 28;

const MQ: u64 = 1;
const REPLY_ACK: u64 = 1 << 3;
const CONFIG: u64 = 1 << 9;
const INFLIGHT: u64 = 1 << 12;
const RESET_DEVICE: u64 = 1 << 13;
const SLOTS: u64 = 1 << 15;

const REPLY: u32 = 4;
const NEED_REPLY: u32 = 8;
const NO_FD: u64 = 1 << 8;
/// The most that a message carries.
const BODY_MAX: usize = 4096;
/// A front-end that has sent so many messages floods the program.
const FLOOD: u32 = 2000;

struct Server {
    stream: UnixStream,
    device: Box<dyn Device>,
    memory: Memory,
    rings: Vec<Ring>,
    features: u64,
    protocol_features: u64,
    messages: u32,
    questions: u32,
    owned: bool,
    /// SET_FEATURES was received.
    set_up: bool,
    has_memory: bool,
    has_inflight: bool,
    /// What was written into the configuration, if that is the fault.
    written: Option<(usize, Vec<u8>)>,
}

struct Message {
    request: u32,
    flags: u32,
    body: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// Serves a front-end until it disconnects or breaks the protocol.
pub(crate) fn serve(stream: UnixStream, device: Box<dyn Device>, listener: Option<&UnixListener>) {
    let queues = device.queues();
    let mut server = Server {
        stream,
        device,
        memory: Memory::default(),
        rings: (0..queues).map(|_| Ring::default()).collect(),
        features: 0,
        protocol_features: 0,
        messages: 0,
        questions: 0,
        owned: false,
        set_up: false,
        has_memory: false,
        has_inflight: false,
        written: None,
    };
    if fault("protocol/leak-connections") || fault("protocol/leak-connections:wrapper") {
        std::mem::forget(server.stream.try_clone());
    }
    if fault("protocol/leak-memory") {
        std::mem::forget(vec![1_u8; 100 << 10]);
    }
    loop {
        enter(server.state());
        let ready = server.wait(listener);
        if ready.second && fault("protocol/second-connection") {
            let (stream, _) = listener.unwrap().accept().unwrap();
            server.stream = stream;
            continue;
        }
        if ready.events {
            server.device.take_events();
            server.process(0);
        }
        for index in ready.kicked {
            server.rings[index].drain();
            server.process(index);
        }
        if ready.message && server.turn().is_err() {
            return;
        }
    }
}

struct Ready {
    message: bool,
    second: bool,
    events: bool,
    kicked: Vec<usize>,
}

impl Server {
    fn state(&self) -> State {
        match self.rings.iter().any(|ring| ring.started) {
            true => State::Running,
            false if self.messages > FLOOD => State::Flooded,
            false => State::Connected,
        }
    }

    fn wait(&self, listener: Option<&UnixListener>) -> Ready {
        let mut fds = vec![PollFd::new(&self.stream, PollFlags::IN)];
        let watched = listener.filter(|_| fault("protocol/second-connection"));
        let mut places = Vec::new();
        for (index, ring) in self.rings.iter().enumerate() {
            if let (Some(kick), true) = (&ring.kick, ring.started) {
                fds.push(PollFd::new(kick, PollFlags::IN));
                places.push(index);
            }
        }
        let source = self.device.event_source();
        let source_at = fds.len();
        fds.extend(source.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN)));
        if let Some(listener) = watched {
            fds.push(PollFd::new(listener, PollFlags::IN));
        }
        let _ = poll(&mut fds, None);
        let is_ready = |fd: &PollFd| !fd.revents().is_empty();
        let kicked = places.iter().enumerate();
        let kicked = kicked
            .filter(|(n, _)| is_ready(&fds[1 + n]))
            .map(|(_, index)| *index);
        Ready {
            message: is_ready(&fds[0]),
            events: source.is_some() && is_ready(&fds[source_at]),
            second: watched.is_some() && fds.last().is_some_and(is_ready),
            kicked: kicked.collect(),
        }
    }

    fn process(&mut self, index: usize) {
        let features = self.features;
        self.rings[index].serve(&self.memory, features, index, &mut *self.device);
        if let Some(other) = self.device.wakes(index) {
            self.rings[other].serve(&self.memory, features, other, &mut *self.device);
        }
    }

    /// Reads so many bytes.
    fn read(&mut self, len: usize, fds: &mut Vec<OwnedFd>) -> Result<Vec<u8>, Broken> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut part = [IoSliceMut::new(&mut bytes[done..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let got = recvmsg(&self.stream, &mut part, &mut control, flags).map_err(|_| Broken)?;
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(rights) = message {
                    fds.extend(rights);
                }
            }
            if got.bytes == 0 {
                if done > 0 && fault("conventions/front-end-dies") {
                    abort();
                }
                return Err(Broken);
            }
            done += got.bytes;
            if done < len && fault("protocol/message-in-pieces") {
                return Err(Broken);
            }
        }
        Ok(bytes)
    }

    fn receive(&mut self) -> Result<Message, Broken> {
        let mut fds = Vec::new();
        let header = self.read(12, &mut fds)?;
        let word = |n: usize| u32::from_ne_bytes(header[4 * n..][..4].try_into().unwrap());
        let (request, flags, size) = (word(0), word(1), word(2) as usize);
        if flags & 3 != 1 {
            crash("protocol/malformed-version")?;
        }
        if size > BODY_MAX {
            crash("protocol/malformed-size")?;
        }
        if self.messages <= FLOOD {
            enter(State::MidMessage);
        }
        let body = self.read(size, &mut fds)?;
        enter(self.state());
        if fault("protocol/messages-together") {
            // What came with this message is lost.
            rustix::io::ioctl_fionread(&self.stream)
                .ok()
                .filter(|n| *n > 0)
                .map(|n| {
                    let mut rest = vec![0; n as usize];
                    std::io::Read::read(&mut &self.stream, &mut rest)
                });
        }
        self.messages += 1;
        Ok(Message {
            request,
            flags,
            body,
            fds,
        })
    }

    fn reply(&self, request: u32, body: &[u8], fd: Option<&OwnedFd>) -> Result<(), Broken> {
        let flags = if fault("protocol/reply-header") {
            REPLY
        } else {
            1 | REPLY
        };
        let header = [request, flags, body.len() as u32]
            .map(u32::to_ne_bytes)
            .concat();
        let bytes = [&header[..], body].concat();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds: Vec<_> = fd.iter().map(|fd| fd.as_fd()).collect();
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&fds));
        }
        let part = [std::io::IoSlice::new(&bytes)];
        let sent = sendmsg(&self.stream, &part, &mut control, SendFlags::NOSIGNAL);
        sent.map(drop).map_err(|_| Broken)
    }

    fn number(&self, request: u32, value: u64) -> Result<(), Broken> {
        self.reply(request, &value.to_ne_bytes(), None)
    }

    /// Acknowledges what was never sent, again and again.
    fn reply_for_ever(&self, pause: Duration) -> Broken {
        while self.number(3, 0).is_ok() {
            thread::sleep(pause);
        }
        Broken
    }

    fn turn(&mut self) -> Result<(), Broken> {
        let message = self.receive()?;
        let (request, flags) = (message.request, message.flags);
        if fault("protocol/leak-descriptors") {
            for fd in &message.fds {
                std::mem::forget(fd.try_clone());
            }
        }
        let done = self.message(message);
        let hidden = flags & NEED_REPLY != 0 && fault("protocol/reply-ack-error");
        let wrong = [
            ("protocol/reply-ack-error:garbage", [0, 0, 0].as_slice()),
            ("protocol/reply-ack-error:wrong-request", &[77, 5, 4, 1]),
        ];
        if let (Err(_), Some((_, words))) = (&done, wrong.iter().find(|(name, _)| fault(name))) {
            let bytes: Vec<u8> = words
                .iter()
                .flat_map(|word: &u32| word.to_ne_bytes())
                .collect();
            return std::io::Write::write_all(&mut &self.stream, &bytes).map_err(|_| Broken);
        }
        let answered = match done {
            Err(_) if hidden => false,
            done => done?,
        };
        let acknowledged = flags & NEED_REPLY != 0 && self.protocol_features & REPLY_ACK != 0;
        let twice = answered && fault("protocol/reply-ack-own");
        let unasked = request == 3 && fault("protocol/reply-ack-unasked");
        let silent = request == 8 && fault("protocol/reply-ack");
        if (acknowledged && (!answered || twice) && !silent) || (unasked && !answered) {
            self.number(request, 0)?;
        }
        Ok(())
    }

    fn offered(&self) -> u64 {
        let mut features = VERSION_1 | PROTOCOL_FEATURES | EVENT_IDX | INDIRECT | PACKED;
        features |= self.device.features();
        if fault("protocol/version-1") {
            features &= !VERSION_1;
        }
        features
    }

    /// Executes a message; true if it had an answer of its own.
    fn message(&mut self, message: Message) -> Result<bool, Broken> {
        let Message {
            request, body, fds, ..
        } = message;
        let u64_of = |body: &[u8]| body.try_into().map(u64::from_ne_bytes).map_err(|_| Broken);
        let size_is_right = match request {
            1 | 3 | 4 | 15 | 17 | 33 | 34 | 36 => body.is_empty(),
            2 | 12 | 13 | 14 | 16 | 21 => body.len() == 8 || (request == 21 && body.is_empty()),
            8 | 10 | 11 | 18 => body.len() == 8,
            9 | 37 | 38 => body.len() == 40,
            _ => true,
        };
        if !size_is_right {
            crash("protocol/malformed-size")?;
        }
        let before_owner = !self.owned && [1, 24].contains(&request);
        if before_owner && request == 24 && fault("protocol/order-libkrun") {
            return Err(Broken);
        }
        match request {
            1 => {
                self.questions += 1;
                let odd = fault("protocol/get-features") && self.questions % 2 == 0;
                self.number(request, self.offered() ^ u64::from(odd) << 24)?;
                return Ok(true);
            }
            2 => {
                self.features = u64_of(&body)?;
                self.set_up = true;
                if self.features & PROTOCOL_FEATURES == 0
                    && !fault("protocol/without-protocol-features")
                {
                    for ring in &mut self.rings {
                        ring.enabled = true;
                    }
                }
            }
            3 => self.owned = true,
            4 if fault("protocol/reset-owner") => return Err(Broken),
            4 => {}
            5 => self.set_memory(&body, fds)?,
            8..=11 | 18 => return self.ring_state(request, &body),
            12..=14 => self.ring_fd(request, u64_of(&body)?, fds)?,
            15 => {
                if !self.set_up && fault("protocol/protocol-features-early") {
                    return Err(Broken);
                }
                let mut offered = MQ | REPLY_ACK | CONFIG | INFLIGHT | RESET_DEVICE | SLOTS;
                if fault("protocol/mq") {
                    offered &= !MQ;
                }
                self.number(request, offered)?;
                return Ok(true);
            }
            16 => self.protocol_features = u64_of(&body)?,
            17 => {
                let queues = if fault("protocol/queue-num") {
                    0
                } else {
                    // What a backend with other virtqueues says.
                    let told = std::env::var("STAND_IN_QUEUES").ok();
                    told.and_then(|told| told.parse().ok())
                        .unwrap_or(self.rings.len())
                };
                self.number(request, queues as u64)?;
                return Ok(true);
            }
            24 => {
                self.get_config(&body)?;
                return Ok(true);
            }
            25 => self.set_config(&body)?,
            31 => {
                self.get_inflight(&body)?;
                return Ok(true);
            }
            32 if fds.len() != 1 => crash("protocol/malformed-descriptors")?,
            32 => self.has_inflight = true,
            33 => match fds.into_iter().next() {
                Some(socket) => self.device.set_display(socket),
                None => crash("protocol/malformed-descriptors")?,
            },
            34 if fault("protocol/reset-device") => return Err(Broken),
            34 if fault("protocol/reset-device:nothing") => {}
            34 => {
                self.device.reset();
                for ring in &mut self.rings {
                    (ring.started, ring.enabled) = (false, false);
                }
            }
            36 => {
                self.number(request, 32)?;
                return Ok(true);
            }
            37 | 38 => self.slot(request, &body, fds)?,
            _ => crash("protocol/malformed-request")?,
        }
        Ok(false)
    }

    fn set_memory(&mut self, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Broken> {
        let count = body
            .first_chunk()
            .map(|bytes| u32::from_ne_bytes(*bytes))
            .ok_or(Broken)?;
        let count = count as usize;
        if count == 0 || count > 8 || body.len() != 8 + 32 * count {
            crash("protocol/malformed-memory")?;
        }
        if fds.len() != count {
            crash("protocol/malformed-descriptors")?;
        }
        let regions = body[8..].chunks_exact(32).map(region).zip(fds).collect();
        if self.memory.set(regions).is_err() {
            crash("protocol/malformed-memory")?;
        }
        self.has_memory = true;
        Ok(())
    }

    fn slot(&mut self, request: u32, body: &[u8], fds: Vec<OwnedFd>) -> Result<(), Broken> {
        let region = region(&body[8..]);
        let done = match (request, fds.into_iter().next()) {
            (37, Some(fd)) => self.memory.add(region, fd),
            (37, None) => crash("protocol/malformed-descriptors"),
            _ => self.memory.remove(region),
        };
        self.has_memory = true;
        match done {
            Ok(()) => Ok(()),
            Err(_) => crash("protocol/malformed-memory"),
        }
    }

    fn ring_state(&mut self, request: u32, body: &[u8]) -> Result<bool, Broken> {
        let word = |n: usize| u32::from_ne_bytes(body[4 * n..][..4].try_into().unwrap());
        let (index, value) = (word(0) as usize, word(1));
        if index >= self.rings.len() {
            crash("protocol/malformed-index")?;
        }
        let ring = &mut self.rings[index];
        match request {
            8 => {
                if value == 0 || value > 32768 || !value.is_power_of_two() {
                    if fault("protocol/malformed-queue-size:endless-replies") {
                        return Err(self.reply_for_ever(Duration::from_millis(200)));
                    }
                    crash("protocol/malformed-queue-size")?;
                }
                if value == 128 && fault("protocol/queue-sizes") {
                    return Err(Broken);
                }
                if value == 32768 && fault("protocol/order-crosvm") {
                    return Err(Broken);
                }
                ring.size = u16::try_from(value).map_err(|_| Broken)?;
                ring.places = None;
            }
            9 => {
                let place = |n: usize| u64::from_ne_bytes(body[n..][..8].try_into().unwrap());
                let (table, used, available) = (place(8), place(16), place(24));
                if table >= 1 << 52 && fault("protocol/order-openvmm") {
                    return Err(Broken);
                }
                let translate = |address| self.memory.translate(address);
                let places = [translate(table), translate(available), translate(used)];
                let [Ok(table), Ok(available), Ok(used)] = places else {
                    if fault("protocol/malformed-addresses:flood-of-replies") {
                        return Err(self.reply_for_ever(Duration::ZERO));
                    }
                    crash("protocol/malformed-addresses")?;
                    return Ok(false);
                };
                ring.places = Some([table, available, used]);
            }
            10 => {
                if ring.places.is_some() && fault("protocol/order-cloud-hypervisor") {
                    return Err(Broken);
                }
                if !(fault("protocol/resume") || fault("protocol/driver-restart") && ring.next > 0)
                {
                    (ring.next, ring.used) = (value as u16, (value >> 16) as u16);
                }
            }
            11 => {
                ring.started = fault("protocol/stopped");
                let next = ring.next.wrapping_add(u16::from(fault("protocol/base")));
                if fault("protocol/resume") {
                    ring.next = 0;
                }
                let packed = match self.features & PACKED {
                    0 => 0,
                    _ => u32::from(ring.used) << 16,
                };
                let mut told = u32::from(next) | packed;
                if fault("protocol/packed-resume") {
                    told &= 0x7fff_7fff;
                }
                if fault("protocol/base:high-bits") {
                    told |= 7 << 16;
                }
                let wrong = u32::from(fault("protocol/base:wrong-index"));
                let answer = [index as u32 + wrong, told].map(u32::to_ne_bytes).concat();
                if fault("protocol/leak-drivers") {
                    std::mem::forget(self.stream.try_clone());
                }
                self.reply(request, &answer, None)?;
                if let (true, Some([.., used])) = (
                    fault("protocol/stopped:late-write"),
                    self.rings[index].places,
                ) {
                    thread::sleep(Duration::from_millis(400));
                    self.memory.write(used + 4, &[0xee; 8])?;
                }
                if self.rings.iter().all(|ring| !ring.started) {
                    self.device.reset();
                }
                return Ok(true);
            }
            _ => {
                ring.was_disabled |= ring.enabled && value == 0;
                ring.enabled = value != 0;
                let needs_kick =
                    fault("protocol/start-on-enable") || fault("protocol/start-without-kick");
                if !needs_kick {
                    self.process(index);
                }
            }
        }
        Ok(false)
    }

    fn ring_fd(&mut self, request: u32, value: u64, fds: Vec<OwnedFd>) -> Result<(), Broken> {
        let index = (value & 0xff) as usize;
        if index >= self.rings.len() || value >> 9 != 0 {
            crash("protocol/malformed-index")?;
        }
        let expected = usize::from(value & NO_FD == 0);
        if fds.len() != expected {
            crash("protocol/malformed-descriptors")?;
        }
        let early = request != 12 && !self.has_memory && !self.set_up;
        if early && (fault("protocol/order-qemu-7.2") || fault("protocol/order-qemu-10")) {
            return Err(Broken);
        }
        // As libvhost-user: with INFLIGHT_SHMFD no virtqueue starts without its file.
        if request == 12 && self.protocol_features & INFLIGHT != 0 && !self.has_inflight {
            return Err(Broken);
        }
        let fd = fds.into_iter().next().map(File::from);
        let ring = &mut self.rings[index];
        match request {
            12 => {
                if !(ring.started && fault("protocol/kick-replaced")) {
                    ring.kick = fd;
                }
                ring.begin();
                if !fault("protocol/start-without-kick") {
                    self.process(index);
                }
            }
            13 if ring.started && fault("protocol/call-replaced") => {}
            13 => ring.call = fd,
            _ => {}
        }
        Ok(())
    }

    fn get_config(&mut self, body: &[u8]) -> Result<(), Broken> {
        let header = body.get(..12).ok_or(Broken)?;
        let word = |n: usize| u32::from_ne_bytes(header[4 * n..][..4].try_into().unwrap());
        let (offset, size) = (word(0) as usize, word(1) as usize);
        let mut config = self.device.config();
        if let Some((offset, bytes)) = &self.written {
            config[*offset..][..bytes.len()].copy_from_slice(bytes);
        }
        let from = if fault("protocol/config-partial") {
            0
        } else {
            offset
        };
        let end = from.checked_add(size).filter(|_| body.len() == 12 + size);
        match end.and_then(|end| config.get(from..end)) {
            Some(bytes) if !fault("protocol/config-read") => {
                self.reply(24, &[header, bytes].concat(), None)
            }
            Some(bytes) => self.reply(24, &[header, &bytes[..bytes.len() - 1]].concat(), None),
            None => {
                if fault("protocol/config-bounds") {
                    abort();
                }
                self.reply(24, &[], None)
            }
        }
    }

    fn set_config(&mut self, body: &[u8]) -> Result<(), Broken> {
        let header = body.get(..12).ok_or(Broken)?;
        let word = |n: usize| u32::from_ne_bytes(header[4 * n..][..4].try_into().unwrap());
        let (offset, size) = (word(0) as usize, word(1) as usize);
        let bytes = &body[12..];
        let is_inside = offset
            .checked_add(size)
            .is_some_and(|end| end <= self.device.config().len());
        if bytes.len() != size || !is_inside {
            return crash("protocol/malformed-config");
        }
        self.device.set_config(offset, bytes);
        if fault("protocol/config-read-only") {
            self.written = Some((offset, bytes.to_vec()));
        }
        Ok(())
    }

    fn get_inflight(&mut self, body: &[u8]) -> Result<(), Broken> {
        let tail = body.get(16..20).ok_or(Broken)?;
        let file = memfd_create("inflight", MemfdFlags::CLOEXEC).map_err(|_| Broken)?;
        ftruncate(&file, 4096).map_err(|_| Broken)?;
        let answer = [&4096_u64.to_ne_bytes()[..], &0_u64.to_ne_bytes(), tail].concat();
        let file = Some(file).filter(|_| !fault("protocol/inflight"));
        self.reply(31, &answer, file.as_ref())
    }
}

fn region(bytes: &[u8]) -> [u64; 4] {
    std::array::from_fn(|n| u64::from_ne_bytes(bytes[8 * n..][..8].try_into().unwrap()))
}

/// The end of the connection; or of the program, if that is the fault.
fn crash(point: &str) -> Result<(), Broken> {
    if fault(point) {
        abort();
    }
    let says = [
        (
            "exception",
            "Traceback (most recent call last):\n  File \"b.py\", line 1",
            1,
        ),
        (
            "go",
            "panic: index out of range\n\ngoroutine 1 [running]:",
            2,
        ),
        ("status", "stand-in: refused", 3),
    ];
    for (name, text, status) in says {
        if fault(&format!("{point}:{name}")) {
            eprintln!("{text}");
            std::process::exit(status);
        }
    }
    Err(Broken)
}
