// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The other end of a display socket: the front-end's, which checks each message as QEMU would, or a console's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost_user_backends::gpu::fuzzing::{ExpectedDisplay, MAX_SCANOUTS};

use crate::bytes::Bytes;
use replies::{edid, modes};

mod replies;

const GET_PROTOCOL_FEATURES: u32 = 1;
const SET_PROTOCOL_FEATURES: u32 = 2;
const GET_DISPLAY_INFO: u32 = 3;
const CURSOR_POS: u32 = 4;
const CURSOR_POS_HIDE: u32 = 5;
const CURSOR_UPDATE: u32 = 6;
const SCANOUT: u32 = 7;
const UPDATE: u32 = 8;
const DMABUF_SCANOUT: u32 = 9;
const DMABUF_UPDATE: u32 = 10;
const GET_EDID: u32 = 11;
const DMABUF_SCANOUT2: u32 = 12;
const RESIZE: u32 = 0x1000;
const REPLY: u32 = 4;
/// Answers to `RESIZE`; other numbers are less.
const INVALID_SIZE: u32 = 2;
const NO_SUCH_SCANOUT: u32 = 3;
/// Bytes of a message's header, and of a cursor.
const HEADER: usize = 12;
const CURSOR: usize = 64 * 64 * 4;
/// The feature bit of `RESIZE`.
const FEATURE_RESIZE: u64 = 1 << 32;
/// Sizes that it asks for before it has an answer.
const MOST_RESIZES: usize = 200;
/// Questions that may be without an answer.
const MOST_QUESTIONS: usize = 10;

/// What it was shown last of a scanout.
#[derive(Debug)]
enum Shown {
    /// Columns, rows, and the pixels.
    Pixels(u32, u32, Vec<u32>),
    /// A buffer, its columns and rows, and whether any update came with it.
    Dmabuf(OwnedFd, u32, u32, bool),
}

/// Whose end of the socket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    FrontEnd,
    Console,
}

/// A front-end or a console that knows the protocol, and may do without it.
pub struct FrontEnd {
    socket: UnixStream,
    role: Role,
    arrived: Vec<u8>,
    /// Descriptors that came, in their order.
    fds: VecDeque<OwnedFd>,
    scanouts: BTreeMap<u32, Shown>,
    /// The scanouts that it was told of.
    told: BTreeSet<u32>,
    /// The protocol features in use, once it was told.
    features: Option<u64>,
    /// The sizes that it asked for and has no answer to.
    resizes: VecDeque<[u32; 3]>,
    /// What it has to say and has not sent.
    outbox: Vec<u8>,
    /// Whether all it said was an answer or what it may ask, and went out.
    is_honest: bool,
    /// Messages that came.
    heard: usize,
    /// What it was asked and has not answered.
    questions: VecDeque<u32>,
    /// How many there may be.
    most: usize,
}

impl FrontEnd {
    /// A front-end, and the device's end of its socket.
    pub fn new() -> (Self, UnixStream) {
        let (socket, theirs) = UnixStream::pair().expect("cannot make a socket");
        (Self::on(socket, Role::FrontEnd), theirs)
    }

    /// A console that is connected by `socket`.
    pub fn console(socket: UnixStream) -> Self {
        Self::on(socket, Role::Console)
    }

    fn on(socket: UnixStream, role: Role) -> Self {
        socket
            .set_nonblocking(true)
            .expect("fcntl(2) does not fail");
        Self {
            socket,
            role,
            arrived: Vec::new(),
            fds: VecDeque::new(),
            scanouts: BTreeMap::new(),
            told: BTreeSet::new(),
            features: None,
            resizes: VecDeque::new(),
            outbox: Vec::new(),
            is_honest: true,
            heard: 0,
            questions: VecDeque::new(),
            most: MOST_QUESTIONS,
        }
    }

    /// Reads at most `most` bytes and looks at what is whole of them.
    pub fn read(&mut self, most: usize) {
        let before = self.arrived.len();
        self.arrived
            .resize(before.saturating_add(most.min(1 << 20)), 0);
        let mut have = before;
        while have < self.arrived.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut self.arrived[have..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            match recvmsg(&self.socket, &mut into, &mut with, flags) {
                Ok(got) if got.bytes == 0 => break,
                Ok(got) => have += got.bytes,
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
            for message in with.drain() {
                if let RecvAncillaryMessage::ScmRights(fds) = message {
                    self.fds.extend(fds);
                }
            }
        }
        self.arrived.truncate(have);
        let mut at = 0;
        while let Some((header, rest)) = self.arrived[at..].split_at_checked(HEADER) {
            let header = words(header);
            let Some(payload) = rest.get(..header[2] as usize) else {
                break;
            };
            let (kind, flags, len) = (header[0], header[1], payload.len());
            let payload = words(payload);
            at += HEADER + len;
            self.heard += 1;
            if kind == RESIZE {
                self.take_resized(flags, &payload);
            } else {
                assert_eq!(flags, 0, "a request has no flags");
                self.take(kind, &payload, len);
            }
            assert!(
                self.questions.len() <= self.most,
                "questions without an end"
            );
        }
        self.arrived.drain(..at);
    }

    /// Reads all there is.
    pub fn read_all(&mut self) {
        loop {
            let before = self.arrived.len();
            self.read(1 << 20);
            if self.arrived.len() <= before {
                break;
            }
        }
    }

    /// Answers what it was asked, as it should.
    pub fn answer(&mut self, bytes: &mut Bytes<'_>) {
        while let Some(question) = self.questions.pop_front() {
            let payload = match question {
                GET_PROTOCOL_FEATURES => {
                    let offered = bytes.u8();
                    let resize = u64::from(offered >> 2 & 1) << 32;
                    (u64::from(offered & 3) | resize).to_ne_bytes().to_vec()
                }
                GET_DISPLAY_INFO => modes(bytes),
                DMABUF_UPDATE => Vec::new(),
                _ => edid(bytes),
            };
            self.reply(question, REPLY, &payload);
        }
    }

    /// Sends a message of any content.
    pub fn rave(&mut self, bytes: &mut Bytes<'_>) {
        let kind = match self.role {
            Role::Console if bytes.u8() & 1 == 0 => RESIZE,
            _ => bytes.mostly(&[
                GET_PROTOCOL_FEATURES,
                GET_DISPLAY_INFO,
                GET_EDID,
                9,
                12,
                0,
                DMABUF_UPDATE,
            ]),
        };
        let flags = bytes.mostly(&[REPLY, REPLY, REPLY, 0]);
        let payload = match bytes.u8() {
            0..=63 => modes(bytes),
            64..=127 => edid(bytes),
            128..=159 => Vec::new(),
            _ => bytes.some(2048).to_vec(),
        };
        // It may be taken for the answer to what it was not said to.
        self.most += MOST_QUESTIONS;
        self.is_honest = false;
        self.reply(kind, flags, &payload);
    }

    /// Sends any bytes.
    pub fn stammer(&mut self, bytes: &mut Bytes<'_>) {
        self.most += 50 * MOST_QUESTIONS;
        self.is_honest = false;
        let _ = self.socket.write(bytes.some(512));
    }

    /// Asks for a size, if that was agreed on. A console's messages go out with [`FrontEnd::send`].
    pub fn resize(&mut self, size: [u32; 3]) {
        let may_resize = self
            .features
            .is_some_and(|features| features & FEATURE_RESIZE != 0);
        if may_resize && self.resizes.len() < MOST_RESIZES {
            self.resizes.push_back(size);
            let payload: Vec<u8> = size.into_iter().flat_map(u32::to_ne_bytes).collect();
            self.reply(RESIZE, 0, &payload);
        }
    }

    fn reply(&mut self, kind: u32, flags: u32, payload: &[u8]) {
        let header = [kind, flags, payload.len() as u32];
        self.outbox
            .extend(header.into_iter().flat_map(u32::to_ne_bytes));
        self.outbox.extend(payload);
        if self.role == Role::FrontEnd {
            self.send(usize::MAX);
            // Where there is no room, the rest is lost: that is a front-end, too.
            self.is_honest &= self.outbox.is_empty();
            self.outbox.clear();
        }
    }

    /// Sends at most `most` bytes of what it has to say, as far as the socket takes them.
    pub fn send(&mut self, most: usize) {
        let len = most.min(self.outbox.len());
        if let Ok(sent) = self.socket.write(&self.outbox[..len]) {
            self.outbox.drain(..sent);
        }
    }

    /// The socket.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// It does from now on what the protocol does not provide for.
    pub fn misbehave(&mut self) {
        self.is_honest = false;
    }

    /// Whether it keeps to the protocol.
    pub fn is_honest(&self) -> bool {
        self.is_honest
    }

    /// Whether the device closed the socket.
    pub fn is_closed(&self) -> bool {
        let mut sockets = [PollFd::new(&self.socket, PollFlags::empty())];
        let polled = poll(&mut sockets, Some(&Timespec::default()));
        polled.expect("poll(2) does not fail");
        sockets[0].revents().contains(PollFlags::HUP)
    }

    /// How many sizes that it asked for have no answer.
    pub fn unanswered(&self) -> usize {
        self.resizes.len()
    }

    /// How many messages came.
    pub fn heard(&self) -> usize {
        self.heard
    }

    /// Checks what it was shown last, when there is nothing more to be sent.
    pub fn check(&self, expected: &[ExpectedDisplay]) {
        if !self.is_honest {
            return;
        }
        let is_told = self.role != Role::Console || self.told.len() == MAX_SCANOUTS;
        assert!(is_told, "a console knows {:?} only", self.told);
        for (id, expected) in (0..).zip(expected) {
            match (expected, self.scanouts.get(&id)) {
                (ExpectedDisplay::Unchanged, _) | (ExpectedDisplay::Disabled, None) => {}
                (ExpectedDisplay::Dmabuf(inode), Some(Shown::Dmabuf(fd, _, _, is_updated))) => {
                    let shown = fstat(fd).expect("fstat(2) does not fail").st_ino;
                    assert_eq!(shown, *inode, "scanout {id} shows another buffer");
                    assert!(is_updated, "scanout {id} is passed without an update");
                }
                (
                    ExpectedDisplay::Pixels(width, height, wanted),
                    Some(Shown::Pixels(w, h, pixels)),
                ) => {
                    assert_eq!((width, height), (w, h), "scanout {id}");
                    let differ = |(wanted, shown): (&Option<u32>, &u32)| {
                        wanted.is_some_and(|wanted| wanted != *shown)
                    };
                    let differ = wanted.iter().zip(pixels).position(differ);
                    assert_eq!(differ, None, "scanout {id} shows other pixels");
                }
                (_, shown) => {
                    let is_dmabuf = matches!(shown, Some(Shown::Dmabuf(..)));
                    let shown = shown.is_some();
                    panic!("scanout {id} is shown: {shown}, as a buffer: {is_dmabuf}");
                }
            }
        }
    }
}

impl FrontEnd {
    /// Takes the answer to a request for another size.
    fn take_resized(&mut self, flags: u32, payload: &[u32]) {
        assert_eq!(flags, REPLY, "a console is not asked for a size");
        let [result] = payload else {
            panic!("an answer of {} words", payload.len());
        };
        let asked = self.resizes.pop_front();
        if self.is_honest {
            let [id, width, height] = asked.expect("an answer to nothing");
            let is_head = (id as usize) < MAX_SCANOUTS;
            let right = match (is_head, width.min(height)) {
                (false, _) => *result == NO_SUCH_SCANOUT,
                (true, 0) => [INVALID_SIZE, NO_SUCH_SCANOUT].contains(result),
                (true, _) => *result <= NO_SUCH_SCANOUT,
            };
            assert!(right, "{width}x{height} of {id} is answered by {result}");
        }
    }

    fn take(&mut self, kind: u32, payload: &[u32], len: usize) {
        let on_scanout = |wanted: usize| {
            assert_eq!(len, wanted, "message {kind} has {len} bytes");
            assert!(
                (payload[0] as usize) < MAX_SCANOUTS,
                "scanout {}",
                payload[0]
            );
        };
        let is_inside = |rect: &[u32], columns: u32, rows: u32| {
            let (end_x, end_y) = (rect[0].checked_add(rect[2]), rect[1].checked_add(rect[3]));
            let inside = end_x.is_some_and(|x| x <= columns) && end_y.is_some_and(|y| y <= rows);
            assert!(
                inside,
                "an update {rect:?} of a scanout of {columns}x{rows}"
            );
            assert!(rect[2] != 0 && rect[3] != 0, "an update of nothing");
        };
        let is_for_consoles = matches!(
            kind,
            GET_PROTOCOL_FEATURES
                | SET_PROTOCOL_FEATURES
                | CURSOR_POS
                | CURSOR_POS_HIDE
                | CURSOR_UPDATE
                | SCANOUT
                | UPDATE
        );
        assert!(
            self.role != Role::Console || is_for_consoles,
            "a console is sent message {kind}"
        );
        match kind {
            GET_PROTOCOL_FEATURES | GET_DISPLAY_INFO => {
                assert_eq!(len, 0);
                self.questions.push_back(kind);
            }
            GET_EDID => {
                on_scanout(4);
                self.questions.push_back(kind);
            }
            SET_PROTOCOL_FEATURES => {
                let [low, high] = payload else {
                    panic!("features of {len} bytes");
                };
                let features = u64::from(*low) | u64::from(*high) << 32;
                let known = match self.role {
                    Role::FrontEnd => 3,
                    Role::Console => FEATURE_RESIZE,
                };
                assert_eq!(
                    features & !known,
                    0,
                    "features {features:#x} are not for it"
                );
                self.features = Some(features);
            }
            CURSOR_POS | CURSOR_POS_HIDE => on_scanout(12),
            CURSOR_UPDATE => on_scanout(20 + CURSOR),
            SCANOUT => {
                on_scanout(12);
                let [id, width, height] = payload else {
                    unreachable!("of 12 bytes")
                };
                self.scanouts.remove(id);
                self.told.insert(*id);
                if *width != 0 && *height != 0 {
                    // What nothing is sent of is not by chance what it should be.
                    let pixels = vec![0xdead_beef; *width as usize * *height as usize];
                    self.scanouts
                        .insert(*id, Shown::Pixels(*width, *height, pixels));
                }
            }
            UPDATE => {
                let (head, new) = payload.split_at_checked(5).expect("an update's head");
                on_scanout(20 + head[3] as usize * head[4] as usize * 4);
                let Some(Shown::Pixels(columns, rows, pixels)) = self.scanouts.get_mut(&head[0])
                else {
                    panic!("pixels of scanout {} without its size", head[0]);
                };
                is_inside(&head[1..], *columns, *rows);
                let [x, y, width] = [1, 2, 3].map(|at| head[at] as usize);
                let lines = pixels.chunks_exact_mut(*columns as usize).skip(y);
                for (line, new) in lines.zip(new.chunks_exact(width)) {
                    line[x..x + width].copy_from_slice(new);
                }
            }
            DMABUF_SCANOUT | DMABUF_SCANOUT2 => {
                on_scanout(if kind == DMABUF_SCANOUT { 40 } else { 48 });
                self.scanouts.remove(&payload[0]);
                if payload[1..].iter().all(|word| *word == 0) {
                    assert_eq!(kind, DMABUF_SCANOUT);
                    return;
                }
                let [width, height] = [payload[3], payload[4]];
                assert_eq!(payload[1..3], [0, 0]);
                assert_eq!(payload[5..7], [width, height]);
                assert!(width != 0 && height != 0 && payload[7] != 0);
                let fd = self.fds.pop_front().expect("a buffer has a descriptor");
                let shown = Shown::Dmabuf(fd, width, height, false);
                self.scanouts.insert(payload[0], shown);
            }
            DMABUF_UPDATE => {
                on_scanout(20);
                let Some(Shown::Dmabuf(_, columns, rows, is_updated)) =
                    self.scanouts.get_mut(&payload[0])
                else {
                    panic!("an update of scanout {}, which has no buffer", payload[0]);
                };
                is_inside(&payload[1..], *columns, *rows);
                let is_all = payload[1..] == [0, 0, *columns, *rows];
                assert!(
                    *is_updated || is_all,
                    "a buffer's first update is of a part"
                );
                *is_updated = true;
                let is_alone = !self.questions.contains(&DMABUF_UPDATE);
                assert!(
                    is_alone || !self.is_honest,
                    "an update before the last was answered"
                );
                self.questions.push_back(kind);
            }
            unknown => panic!("message {unknown} is sent"),
        }
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
    words.map(|word| u32::from_ne_bytes(*word)).collect()
}
