//! The front-end's end of the display socket: what it is sent is checked as QEMU would take it.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use vhost_user_backends::gpu::fuzzing::{HEADER_LEN, MAX_EDID_LEN, MAX_SCANOUTS, MODES_LEN};

use crate::bytes::Bytes;

const GET_PROTOCOL_FEATURES: u32 = 1;
const SET_PROTOCOL_FEATURES: u32 = 2;
const GET_DISPLAY_INFO: u32 = 3;
const CURSOR_POS: u32 = 4;
const CURSOR_POS_HIDE: u32 = 5;
const CURSOR_UPDATE: u32 = 6;
const SCANOUT: u32 = 7;
const UPDATE: u32 = 8;
const DMABUF_UPDATE: u32 = 10;
const GET_EDID: u32 = 11;
const REPLY: u32 = 4;
/// Bytes of a message's header, and of a cursor.
const HEADER: usize = 12;
const CURSOR: usize = 64 * 64 * 4;
/// Questions that may be without an answer.
const MOST_QUESTIONS: usize = 10;

/// A front-end that knows the protocol, and may do without it.
pub struct FrontEnd {
    socket: UnixStream,
    arrived: Vec<u8>,
    /// The sizes that it was told.
    scanouts: BTreeMap<u32, (u32, u32)>,
    /// What it was asked and has not answered.
    questions: VecDeque<u32>,
    /// How many there may be.
    most: usize,
}

impl FrontEnd {
    /// A front-end, and the device's end of its socket.
    pub fn new() -> (Self, UnixStream) {
        let (socket, theirs) = UnixStream::pair().expect("cannot make a socket");
        socket
            .set_nonblocking(true)
            .expect("fcntl(2) does not fail");
        let front_end = Self {
            socket,
            arrived: Vec::new(),
            scanouts: BTreeMap::new(),
            questions: VecDeque::new(),
            most: MOST_QUESTIONS,
        };
        (front_end, theirs)
    }

    /// Reads at most `most` bytes and looks at what is whole of them.
    pub fn read(&mut self, most: usize) {
        let before = self.arrived.len();
        self.arrived
            .resize(before.saturating_add(most.min(1 << 20)), 0);
        let mut have = before;
        while have < self.arrived.len() {
            match self.socket.read(&mut self.arrived[have..]) {
                Ok(0) => break,
                Ok(count) => have += count,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
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
            assert_eq!(flags, 0, "a request has no flags");
            let head: Vec<u32> = words(&payload[..len.min(20)]);
            at += HEADER + len;
            take(&mut self.scanouts, &mut self.questions, kind, &head, len);
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
                GET_PROTOCOL_FEATURES => u64::from(bytes.u8() & 3).to_ne_bytes().to_vec(),
                GET_DISPLAY_INFO => modes(bytes),
                _ => edid(bytes),
            };
            self.reply(question, REPLY, &payload);
        }
    }

    /// Sends a message of any content.
    pub fn rave(&mut self, bytes: &mut Bytes<'_>) {
        let kind = bytes.mostly(&[
            GET_PROTOCOL_FEATURES,
            GET_DISPLAY_INFO,
            GET_EDID,
            9,
            12,
            0,
            DMABUF_UPDATE,
        ]);
        let flags = bytes.mostly(&[REPLY, REPLY, REPLY, 0]);
        let payload = match bytes.u8() {
            0..=63 => modes(bytes),
            64..=127 => edid(bytes),
            128..=159 => Vec::new(),
            _ => bytes.some(2048).to_vec(),
        };
        // It may be taken for the answer to what it was not said to.
        self.most += MOST_QUESTIONS;
        self.reply(kind, flags, &payload);
    }

    /// Sends any bytes.
    pub fn stammer(&mut self, bytes: &mut Bytes<'_>) {
        self.most += 50 * MOST_QUESTIONS;
        let _ = self.socket.write(bytes.some(512));
    }

    fn reply(&mut self, kind: u32, flags: u32, payload: &[u8]) {
        let header = [kind, flags, payload.len() as u32];
        let mut message: Vec<u8> = header.into_iter().flat_map(u32::to_ne_bytes).collect();
        message.extend(payload);
        // Where there is no room, the rest is lost: that is a front-end, too.
        let _ = self.socket.write(&message);
    }
}

fn take(
    scanouts: &mut BTreeMap<u32, (u32, u32)>,
    questions: &mut VecDeque<u32>,
    kind: u32,
    head: &[u32],
    len: usize,
) {
    let on_scanout = |len: usize, wanted: usize| {
        assert_eq!(len, wanted, "message {kind} has {len} bytes");
        assert!((head[0] as usize) < MAX_SCANOUTS, "scanout {}", head[0]);
    };
    match kind {
        GET_PROTOCOL_FEATURES | GET_DISPLAY_INFO => {
            assert_eq!(len, 0);
            questions.push_back(kind);
        }
        GET_EDID => {
            on_scanout(len, 4);
            questions.push_back(kind);
        }
        SET_PROTOCOL_FEATURES => assert_eq!(len, 8),
        CURSOR_POS | CURSOR_POS_HIDE => on_scanout(len, 12),
        CURSOR_UPDATE => on_scanout(len, 20 + CURSOR),
        SCANOUT => {
            on_scanout(len, 12);
            scanouts.insert(head[0], (head[1], head[2]));
        }
        UPDATE => {
            let [_, x, y, width, height] = head else {
                panic!("an update of {len} bytes");
            };
            let pixels = u64::from(*width) * u64::from(*height) * 4;
            on_scanout(len, 20 + pixels as usize);
            let (columns, rows) = scanouts.get(&head[0]).copied().unwrap_or_default();
            let inside = x.checked_add(*width).is_some_and(|end| end <= columns)
                && y.checked_add(*height).is_some_and(|end| end <= rows);
            assert!(
                inside,
                "an update {head:?} of a scanout of {columns}x{rows}"
            );
            assert_ne!(pixels, 0, "an update of nothing");
        }
        unknown => panic!("message {unknown} is sent"),
    }
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_ne_bytes(*word)).collect()
}

/// The payload of a reply to `GET_DISPLAY_INFO`.
pub fn modes(bytes: &mut Bytes<'_>) -> Vec<u8> {
    let mut payload = vec![0; HEADER_LEN + MODES_LEN];
    let count = usize::from(bytes.u8()) % (MAX_SCANOUTS + 1);
    for mode in payload[HEADER_LEN..].chunks_mut(24).take(count) {
        let fields = [
            0,
            0,
            bytes.mostly(&[640, 1280, 0, 1]),
            bytes.mostly(&[480, 800, 0, 1]),
            bytes.mostly(&[1, 1, 0]),
            0,
        ];
        for (to, field) in mode.chunks_mut(4).zip(fields) {
            to.copy_from_slice(&field.to_le_bytes());
        }
    }
    payload
}

/// The payload of a reply to `GET_EDID`.
pub fn edid(bytes: &mut Bytes<'_>) -> Vec<u8> {
    const OK_EDID: u32 = 0x1104;
    let mut payload = vec![0; HEADER_LEN + 8 + MAX_EDID_LEN];
    let kind = bytes.mostly(&[OK_EDID, OK_EDID, 0x1200, 0]);
    let size = bytes.mostly(&[128, 256, 1024, 0, 1025]);
    payload[..4].copy_from_slice(&kind.to_le_bytes());
    payload[HEADER_LEN..][..4].copy_from_slice(&size.to_le_bytes());
    payload[HEADER_LEN + 8..].fill(bytes.u8());
    payload
}
