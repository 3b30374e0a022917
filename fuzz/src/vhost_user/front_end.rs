// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A front-end: what QEMU does, and anything else.

use std::fs::File;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{EventfdFlags, eventfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::*;
use crate::guest::{Guest, QUEUES, REGIONS};

/// Where the front-end has the guest's memory.
const USER: u64 = 0x7000_0000;
/// VIRTIO_F_VERSION_1.
const VERSION_1: u64 = 1 << 32;

/// As all front-ends have them. One that blocks, given to two queues, holds up the worker, which is
/// this front-end's own, until it leaves.
fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::NONBLOCK).expect("the host has descriptors left")
}

/// A front-end and what it gives away.
pub(super) struct FrontEnd {
    pub(super) socket: UnixStream,
    memory: File,
    kicks: [OwnedFd; QUEUES],
    calls: [OwnedFd; QUEUES],
    null: File,
    displays: Vec<UnixStream>,
}

impl FrontEnd {
    /// With `memory` of the guest behind it.
    pub(super) fn new(socket: UnixStream, memory: File) -> Self {
        Self {
            socket,
            memory,
            kicks: [event(), event()],
            calls: [event(), event()],
            null: File::open("/dev/null").expect("there is /dev/null"),
            displays: Vec::new(),
        }
    }

    /// What QEMU does until the guest's driver runs.
    pub(super) fn set_up(&mut self, protocol: Protocol, bytes: &mut Bytes<'_>) {
        self.features(PROTOCOL_FEATURES | VERSION_1 | u64::from(bytes.u8()) << 28);
        let protocol = protocol
            | Protocol::MQ
            | Protocol::REPLY_ACK
            | Protocol::CONFIG
            | Protocol::RESET_DEVICE
            | Protocol::CONFIGURE_MEM_SLOTS;
        self.message(SET_PROTOCOL_FEATURES, &protocol.bits().to_ne_bytes(), &[]);
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

    /// Does something.
    pub(super) fn step(&mut self, guest: &mut Guest, bytes: &mut Bytes<'_>) {
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
            100..=104 => self.features(PROTOCOL_FEATURES | VERSION_1 | u64::from(bytes.u8()) << 28),
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
    pub(super) fn listen(&mut self) {
        let mut buffer = [0; 4096];
        while let Ok(1..) = self.socket.read(&mut buffer) {}
    }
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
