// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The display over a socket pair, with a front-end that reads, or does not.

use std::io::{self, Read, Write};
use std::time::Duration;

use super::connection::{MAX_UNANSWERED, RETRY_AFTER};
use super::*;
use crate::geometry::{Rect, Size};
use crate::gpu::protocol::{DisplayInfo, Header, Response};
use crate::gpu::region::Region;
use crate::gpu::resource::{Budget, Image, SharedImage};
use crate::gpu::scanout::{DisplayId, Position, Readback, ScanoutSource, Scanouts, Shape};

const GET_PROTOCOL_FEATURES: u32 = 1;
const SET_PROTOCOL_FEATURES: u32 = 2;
const GET_DISPLAY_INFO: u32 = 3;
const CURSOR_POS: u32 = 4;
const CURSOR_UPDATE: u32 = 6;
const SCANOUT: u32 = 7;
const UPDATE: u32 = 8;
const GET_EDID: u32 = 11;
const REPLY: u32 = 4;

struct FrontEnd {
    socket: UnixStream,
    now: Instant,
}

impl FrontEnd {
    fn new() -> (Self, Display) {
        let (socket, ours) = UnixStream::pair().unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let now = Instant::now();
        let mut display = Display::default();
        display.attach(ours, now);
        (Self { socket, now }, display)
    }

    /// After the features are settled.
    fn settled(features: u64) -> (Self, Display) {
        let (mut front_end, mut display) = Self::new();
        display.send(None, Instant::now()).unwrap();
        assert_eq!(front_end.message(), (GET_PROTOCOL_FEATURES, vec![]));
        front_end.reply(GET_PROTOCOL_FEATURES, &features.to_ne_bytes());
        display.receive(front_end.now).unwrap();
        display.send(None, Instant::now()).unwrap();
        let accepted = (features & 1).to_ne_bytes().to_vec();
        assert_eq!(front_end.message(), (SET_PROTOCOL_FEATURES, accepted));
        (front_end, display)
    }

    fn message(&mut self) -> (u32, Vec<u8>) {
        let mut header = [0; 12];
        self.socket.read_exact(&mut header).unwrap();
        let word = |i: usize| u32::from_ne_bytes(header[i * 4..][..4].try_into().unwrap());
        assert_eq!(word(1), 0, "a request has no flags");
        let mut payload = vec![0; word(2) as usize];
        self.socket.read_exact(&mut payload).unwrap();
        (word(0), payload)
    }

    fn nothing_arrived(&self) -> bool {
        self.socket.set_nonblocking(true).unwrap();
        let read = (&self.socket).read(&mut [0]);
        self.socket.set_nonblocking(false).unwrap();
        read.is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
    }

    fn raw(kind: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
        let words = [kind, flags, payload.len() as u32];
        let mut bytes: Vec<u8> = words.iter().flat_map(|w| w.to_ne_bytes()).collect();
        bytes.extend(payload);
        bytes
    }

    fn reply(&mut self, kind: u32, payload: &[u8]) {
        let bytes = Self::raw(kind, REPLY, payload);
        self.socket.write_all(&bytes).unwrap();
    }

    fn reply_modes(&mut self, modes: DisplayInfo) {
        let response = Response::DisplayInfo(Box::new(modes));
        self.reply(GET_DISPLAY_INFO, &response.encode(&Header::default()));
    }
}

fn two_displays() -> DisplayInfo {
    let mut modes = DisplayInfo::default();
    modes.0[1] = modes.0[0];
    modes
}

fn edid_reply(edid: &[u8]) -> Vec<u8> {
    Response::Edid(edid.to_vec())
        .encode(&Header::default())
        .to_vec()
}

fn words(bytes: &[u8]) -> Vec<u32> {
    let words = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
    words.map(|w| u32::from_ne_bytes(*w)).collect()
}

/// Scanouts of which the first shows an image of this size with numbered pixels, flushed.
fn scanouts(width: u32, height: u32) -> (Scanouts, SharedImage) {
    let mut image = Image::new(Size::new(width, height), &Budget::new(1 << 30)).unwrap();
    for y in 0..height {
        let row: Vec<u8> = (0..width)
            .flat_map(|x| (y << 16 | x | 1 << 31).to_le_bytes())
            .collect();
        image.merge_row(0, y, &row);
    }
    let image = SharedImage::new(image);
    let mut scanouts = Scanouts::with_vmm();
    scanouts.show(
        0,
        ScanoutSource::of_pixels(&image, Rect::sized(width, height)),
    );
    scanouts.flush(&image, &Rect::sized(width, height));
    (scanouts, image)
}

#[test]
fn features_come_first() {
    let (mut front_end, mut display) = FrontEnd::new();
    let (mut scanouts, _) = scanouts(4, 4);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    assert_eq!(front_end.message(), (GET_PROTOCOL_FEATURES, vec![]));
    assert!(front_end.nothing_arrived());
    front_end.reply(GET_PROTOCOL_FEATURES, &3_u64.to_ne_bytes());
    display.receive(front_end.now).unwrap();
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    assert_eq!(
        front_end.message(),
        (SET_PROTOCOL_FEATURES, 1_u64.to_ne_bytes().to_vec())
    );
    let (kind, payload) = front_end.message();
    assert_eq!((kind, words(&payload)), (SCANOUT, vec![0, 4, 4]));
    let (kind, payload) = front_end.message();
    assert_eq!(
        (kind, &words(&payload)[..5]),
        (UPDATE, &[0, 0, 0, 4, 4][..])
    );
    assert_eq!(display.deadline(), None);
}

#[test]
fn display_info_is_queried_and_replied() {
    let (mut front_end, mut display) = FrontEnd::settled(0);
    assert!(display.ask(DisplayQuery::DisplayInfo, front_end.now));
    display.send(None, Instant::now()).unwrap();
    assert_eq!(front_end.message(), (GET_DISPLAY_INFO, vec![]));
    assert!(display.is_query_pending());
    assert_eq!(display.take_reply(), None);
    front_end.reply_modes(two_displays());
    display.receive(front_end.now).unwrap();
    let answer = DisplayReply::DisplayInfo(Box::new(two_displays()));
    assert_eq!(display.take_reply(), Some(answer));
    assert!(!display.is_query_pending());
    assert_eq!(display.deadline(), None);
}

#[test]
fn query_before_the_negotiation_waits_for_it() {
    let (mut front_end, mut display) = FrontEnd::new();
    assert!(display.ask(DisplayQuery::Edid(0), front_end.now));
    display.send(None, Instant::now()).unwrap();
    front_end.message();
    assert!(front_end.nothing_arrived());
    front_end.reply(GET_PROTOCOL_FEATURES, &1_u64.to_ne_bytes());
    display.receive(front_end.now).unwrap();
    display.send(None, Instant::now()).unwrap();
    assert_eq!(front_end.message().0, SET_PROTOCOL_FEATURES);
    assert_eq!(front_end.message(), (GET_EDID, vec![0; 4]));
    front_end.reply(GET_EDID, &edid_reply(&[9; 128]));
    display.receive(front_end.now).unwrap();
    assert_eq!(display.take_reply(), Some(DisplayReply::Edid(vec![9; 128])));
}

#[test]
fn get_edid_is_not_sent_without_the_feature() {
    let (mut front_end, mut display) = FrontEnd::settled(2);
    assert!(display.ask(DisplayQuery::Edid(0), front_end.now));
    display.send(None, Instant::now()).unwrap();
    assert_eq!(front_end.message().0, GET_DISPLAY_INFO);
    front_end.reply_modes(DisplayInfo::default());
    display.receive(front_end.now).unwrap();
    display.send(None, Instant::now()).unwrap();
    let answer = DisplayReply::DisplayInfo(Box::default());
    assert_eq!(display.take_reply(), Some(answer));
    assert!(front_end.nothing_arrived());
}

#[test]
fn get_edid_is_not_sent_for_a_missing_display() {
    let (mut front_end, mut display) = FrontEnd::settled(1);
    for (scanout, there) in [(1, true), (2, false)] {
        assert!(display.ask(DisplayQuery::Edid(scanout), front_end.now));
        display.send(None, Instant::now()).unwrap();
        if scanout == 1 || !there {
            assert_eq!(front_end.message().0, GET_DISPLAY_INFO);
            front_end.reply_modes(two_displays());
            display.receive(front_end.now).unwrap();
            display.send(None, Instant::now()).unwrap();
        }
        if there {
            let (kind, payload) = front_end.message();
            assert_eq!((kind, words(&payload)), (GET_EDID, vec![scanout]));
            front_end.reply(GET_EDID, &edid_reply(&[1; 128]));
            display.receive(front_end.now).unwrap();
            assert_eq!(display.take_reply(), Some(DisplayReply::Edid(vec![1; 128])));
        } else {
            assert!(matches!(
                display.take_reply(),
                Some(DisplayReply::DisplayInfo(_))
            ));
            assert!(front_end.nothing_arrived());
        }
    }
}

#[test]
fn reply_may_arrive_byte_by_byte() {
    let (mut front_end, mut display) = FrontEnd::settled(1);
    display.ask(DisplayQuery::Edid(0), front_end.now);
    display.send(None, Instant::now()).unwrap();
    let reply = FrontEnd::raw(GET_EDID, REPLY, &edid_reply(&[2; 128]));
    for byte in reply {
        assert_eq!(display.take_reply(), None);
        front_end.socket.write_all(&[byte]).unwrap();
        display.receive(front_end.now).unwrap();
    }
    assert_eq!(display.take_reply(), Some(DisplayReply::Edid(vec![2; 128])));
}

#[test]
fn silent_front_end_is_not_awaited_twice() {
    let (mut front_end, mut display) = FrontEnd::settled(1);
    let asked = front_end.now;
    assert!(display.ask(DisplayQuery::Edid(0), asked));
    display.send(None, Instant::now()).unwrap();
    assert_eq!(display.deadline(), Some(asked + REPLY_LIMIT));
    assert!(
        !display
            .expire(asked + REPLY_LIMIT - Duration::from_millis(1))
            .query
    );
    let late = asked + REPLY_LIMIT;
    assert!(display.expire(late).query);
    assert_eq!(display.take_reply(), Some(DisplayReply::Nothing));
    assert!(!display.ask(DisplayQuery::DisplayInfo, late));
    assert_eq!(display.deadline(), None);

    // An answer that comes too late is no answer to the next query.
    assert_eq!(front_end.message().0, GET_EDID);
    assert!(display.ask(DisplayQuery::DisplayInfo, late + RETRY_AFTER));
    display.send(None, Instant::now()).unwrap();
    front_end.reply(GET_EDID, &edid_reply(&[3; 128]));
    display.receive(late).unwrap();
    assert_eq!(display.take_reply(), None);
    front_end.reply_modes(DisplayInfo::default());
    display.receive(late).unwrap();
    assert!(matches!(
        display.take_reply(),
        Some(DisplayReply::DisplayInfo(_))
    ));
    assert!(display.ask(DisplayQuery::DisplayInfo, late));
}

#[test]
fn missing_reply_does_not_spoil_the_next() {
    let (mut front_end, mut display) = FrontEnd::settled(1);
    display.ask(DisplayQuery::Edid(0), front_end.now);
    let later = front_end.now + REPLY_LIMIT + RETRY_AFTER;
    assert!(display.expire(front_end.now + REPLY_LIMIT).query);
    assert!(display.ask(DisplayQuery::DisplayInfo, later));
    display.send(None, Instant::now()).unwrap();
    front_end.reply_modes(DisplayInfo::default());
    display.receive(later).unwrap();
    assert!(matches!(
        display.take_reply(),
        Some(DisplayReply::DisplayInfo(_))
    ));
    assert_eq!(display.deadline(), None);
}

#[test]
fn unanswered_queries_do_not_pile_up() {
    let (_front_end, mut display) = FrontEnd::settled(1);
    let mut now = Instant::now();
    let mut asked = 0;
    for _ in 0..100 {
        asked += usize::from(display.ask(DisplayQuery::DisplayInfo, now));
        display.send(None, Instant::now()).unwrap();
        now += REPLY_LIMIT;
        display.expire(now);
        now += RETRY_AFTER;
    }
    assert_eq!(asked, MAX_UNANSWERED);
}

#[test]
fn missing_features_reply_means_no_features() {
    let (mut front_end, mut display) = FrontEnd::new();
    let (mut scanouts, _) = scanouts(2, 2);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    assert!(display.expire(front_end.now + REPLY_LIMIT).query);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    assert_eq!(front_end.message().0, GET_PROTOCOL_FEATURES);
    assert_eq!(front_end.message().0, SCANOUT);
    assert_eq!(front_end.message().0, UPDATE);
}

#[test]
fn closed_socket_replies_with_nothing() {
    let (front_end, mut display) = FrontEnd::settled(1);
    let now = front_end.now;
    display.ask(DisplayQuery::DisplayInfo, now);
    display.send(None, Instant::now()).unwrap();
    drop(front_end);
    assert!(display.receive(now).is_err());
    assert_eq!(display.take_reply(), Some(DisplayReply::Nothing));
    assert!(display.interest().is_none());
    assert!(!display.ask(DisplayQuery::DisplayInfo, now));
    display
        .send(
            scanouts(2, 2).0.pending_updates(DisplayId::VMM),
            Instant::now(),
        )
        .unwrap();
}

#[test]
fn front_end_that_violates_the_protocol_is_disconnected() {
    let wrong: [(u32, u32, &[u8]); 6] = [
        (GET_DISPLAY_INFO, 0, &[0; 408]),
        (GET_DISPLAY_INFO, REPLY, &[0; 407]),
        (GET_EDID, REPLY, &[0; 4]),
        (GET_PROTOCOL_FEATURES, REPLY, &[0; 4]),
        (UPDATE, REPLY, &[]),
        (77, REPLY, &[0; 8]),
    ];
    for (kind, flags, payload) in wrong {
        let (mut front_end, mut display) = FrontEnd::settled(1);
        let bytes = FrontEnd::raw(kind, flags, payload);
        front_end.socket.write_all(&bytes).unwrap();
        let result = display.receive(front_end.now);
        assert!(matches!(result, Err(DisplayError::Protocol { .. })));
        assert!(display.interest().is_none());
    }
    let (mut front_end, mut display) = FrontEnd::settled(1);
    let mut bytes = FrontEnd::raw(GET_EDID, REPLY, &[]);
    bytes[8..].copy_from_slice(&u32::MAX.to_ne_bytes());
    front_end.socket.write_all(&bytes).unwrap();
    let result = display.receive(front_end.now);
    assert!(matches!(result, Err(DisplayError::Protocol { .. })));
}

#[test]
fn edid_with_an_impossible_size_is_none() {
    let (mut front_end, mut display) = FrontEnd::settled(1);
    for size in [0_u32, 1025, u32::MAX] {
        display.ask(DisplayQuery::Edid(0), front_end.now);
        let mut reply = edid_reply(&[1; 128]);
        reply[24..28].copy_from_slice(&size.to_le_bytes());
        front_end.reply(GET_EDID, &reply);
        display.receive(front_end.now).unwrap();
        assert_eq!(display.take_reply(), Some(DisplayReply::Nothing));
    }
}

/// Sends all of `scanouts` to a front-end that reads `piece` bytes at a time, and returns what arrived.
fn trickle(
    display: &mut Display,
    front_end: &FrontEnd,
    scanouts: &mut Scanouts,
    piece: usize,
) -> Vec<u8> {
    let mut arrived = Vec::new();
    let mut buffer = vec![0; piece];
    front_end.socket.set_nonblocking(true).unwrap();
    loop {
        display
            .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
            .unwrap();
        match (&front_end.socket).read(&mut buffer) {
            Ok(count) => arrived.extend(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    let (_, interest) = display.interest().unwrap();
    assert_eq!(interest, EventSet::IN);
    arrived
}

#[test]
fn message_larger_than_the_socket_is_sent_in_parts() {
    for (part, piece) in [
        (Rect::sized(700, 1500), 100_001),
        (
            Rect {
                x: 3,
                y: 5,
                width: 690,
                height: 1490,
            },
            65_537,
        ),
    ] {
        let (front_end, mut display) = FrontEnd::settled(0);
        let (_, image) = scanouts(700, 1500);
        let mut scanouts = Scanouts::with_vmm();
        scanouts.show(0, ScanoutSource::of_pixels(&image, part));
        scanouts.flush(&image, &part);
        display
            .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
            .unwrap();
        let (_, interest) = display.interest().unwrap();
        assert_eq!(interest, EventSet::IN | EventSet::OUT);
        let arrived = words(&trickle(&mut display, &front_end, &mut scanouts, piece));
        let area = part.area() as usize;
        assert_eq!(arrived.len(), 6 + 8 + area);
        let size = (20 + area * 4) as u32;
        let head = [UPDATE, 0, size, 0, 0, 0, part.width, part.height];
        assert_eq!(arrived[6..14], head);
        let rows = (part.y..part.y + part.height)
            .flat_map(|y| (part.x..part.x + part.width).map(move |x| y << 16 | x | 1 << 31));
        assert!(arrived[14..].iter().copied().eq(rows));
    }
}

#[test]
fn resource_may_be_destroyed_while_it_is_sent() {
    let (front_end, mut display) = FrontEnd::settled(0);
    let (mut scanouts, image) = scanouts(700, 1500);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    scanouts.disable_showing(&image);
    drop(image);
    let arrived = words(&trickle(&mut display, &front_end, &mut scanouts, 1 << 20));
    let whole = 6 + 8 + 700 * 1500;
    assert_eq!(arrived[whole - 1], 1499 << 16 | 699 | 1 << 31);
    // And only then is the scanout disabled.
    assert_eq!(arrived[whole..], [SCANOUT, 0, 12, 0, 0, 0]);
}

#[test]
fn pixels_that_change_while_sent_are_sent_again() {
    let (front_end, mut display) = FrontEnd::settled(0);
    let (mut scanouts, image) = scanouts(700, 1500);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    let rect = Rect {
        x: 0,
        y: 0,
        width: 1,
        height: 1,
    };
    image.lock().merge_row(0, 0, &[7; 4]);
    let mut changed = Region::default();
    changed.add(rect);
    scanouts.add_damage(&image, &changed);
    scanouts.flush(&image, &rect);
    let arrived = words(&trickle(&mut display, &front_end, &mut scanouts, 1 << 20));
    let whole = 6 + 8 + 700 * 1500;
    assert_eq!(arrived[14], 1 << 31);
    let pixel = u32::from_le_bytes([7; 4]);
    assert_eq!(arrived[whole..], [UPDATE, 0, 24, 0, 0, 0, 1, 1, pixel]);
}

#[test]
fn display_that_does_not_read_costs_no_memory() {
    let (front_end, mut display) = FrontEnd::settled(0);
    let (mut scanouts, image) = scanouts(700, 1500);
    let shape = Shape {
        hot_x: 1,
        hot_y: 2,
        pixels: Box::new([4; 16384]),
    };
    for i in 0..10_000 {
        let rect = Rect {
            x: i % 700,
            y: i % 1500,
            width: 1,
            height: 1,
        };
        let mut changed = Region::default();
        changed.add(rect);
        scanouts.add_damage(&image, &changed);
        scanouts.flush(&image, &rect);
        let position = Position {
            x: i,
            y: i,
            visible: true,
        };
        scanouts.set_cursor_shape(0, position, shape.clone());
        display
            .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
            .unwrap();
    }
    let arrived = words(&trickle(&mut display, &front_end, &mut scanouts, 1 << 20));
    // The first cursor and the first pixels were on their way; what came after them is one cursor
    // and a few rectangles.
    let cursor = 8 + 64 * 64;
    let begun = cursor + 6 + 8 + 700 * 1500;
    let last = [CURSOR_UPDATE, 0, 20 + 16384, 0, 9999, 9999, 1, 2];
    assert_eq!(arrived[begun..begun + 8], last);
    let updates = arrived[begun + cursor..].len();
    assert!(updates <= 700 * 1500 + Region::MAX_RECTS * 9, "{updates}");
}

#[test]
fn socket_closed_within_a_message_is_given_up() {
    let (front_end, mut display) = FrontEnd::settled(0);
    let (mut scanouts, _image) = scanouts(700, 1500);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    drop(front_end);
    assert!(
        display
            .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
            .is_err()
    );
    assert!(display.interest().is_none());

    // The next one gets everything from its beginning.
    let (socket, ours) = UnixStream::pair().unwrap();
    let now = Instant::now();
    let mut front_end = FrontEnd { socket, now };
    display.attach(ours, now);
    scanouts.attach_display(DisplayId::VMM);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    front_end.message();
    front_end.reply(GET_PROTOCOL_FEATURES, &[0; 8]);
    display.receive(now).unwrap();
    let arrived = words(&trickle(&mut display, &front_end, &mut scanouts, 1 << 20));
    assert_eq!(arrived[..5], [SET_PROTOCOL_FEATURES, 0, 8, 0, 0]);
    assert_eq!(arrived[5..11], [SCANOUT, 0, 12, 0, 700, 1500]);
    assert_eq!(arrived.len(), 5 + 6 + 8 + 700 * 1500);
}

#[test]
fn new_socket_ends_the_wait_on_the_old_one() {
    let (front_end, mut display) = FrontEnd::settled(1);
    display.ask(DisplayQuery::DisplayInfo, front_end.now);
    let (_peer, ours) = UnixStream::pair().unwrap();
    display.attach(ours, front_end.now);
    assert_eq!(display.take_reply(), Some(DisplayReply::Nothing));
    let mut rest = Vec::new();
    (&front_end.socket).read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn cursor_positions_are_sent() {
    let (mut front_end, mut display) = FrontEnd::settled(0);
    let mut scanouts = Scanouts::with_vmm();
    let position = Position {
        x: 8,
        y: 9,
        visible: true,
    };
    scanouts.move_cursor(3, position);
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    let (kind, payload) = front_end.message();
    assert_eq!((kind, words(&payload)), (CURSOR_POS, vec![3, 8, 9]));
    scanouts.move_cursor(
        3,
        Position {
            visible: false,
            ..position
        },
    );
    display
        .send(scanouts.pending_updates(DisplayId::VMM), Instant::now())
        .unwrap();
    let (kind, payload) = front_end.message();
    assert_eq!((kind, words(&payload)), (CURSOR_POS + 1, vec![3, 8, 9]));
}

#[test]
fn unanswered_queries_are_bounded_if_cancelled() {
    let (mut front_end, mut display) = FrontEnd::settled(0);
    let asked = (0..100).filter(|_| {
        let asked = display.ask(DisplayQuery::DisplayInfo, front_end.now);
        // As when the queue is reset.
        display.cancel_query();
        asked
    });
    assert_eq!(asked.count(), MAX_UNANSWERED);
    display.send(None, Instant::now()).unwrap();
    for _ in 0..MAX_UNANSWERED {
        assert_eq!(front_end.message(), (GET_DISPLAY_INFO, vec![]));
    }
    assert!(front_end.nothing_arrived());
    front_end.reply_modes(DisplayInfo::default());
    display.receive(front_end.now).unwrap();
    assert!(display.ask(DisplayQuery::DisplayInfo, front_end.now));
}

mod consoles;
mod dmabuf_acks;
mod dmabufs;
mod kept;
