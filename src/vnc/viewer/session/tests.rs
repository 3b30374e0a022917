// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{ErrorKind, Read as _};
use std::os::unix::net::UnixStream;

use super::*;
use crate::vnc::head::{CursorShape, SENT_CURSOR_LEN};

fn session(encodings: &[Encoding]) -> (Session, Head) {
    let head = Head::new("vm1".to_owned());
    let mut session = Session::new(head.size(), LedState::default());
    let encodings = encodings.iter().copied().collect();
    session.take(ClientMessage::SetEncodings(encodings), &head);
    (session, head)
}

/// All that the viewer is sent now.
fn sent(session: &mut Session, head: &Head) -> Vec<u8> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let mut output = Output::default();
    let mut bytes = Vec::new();
    while session.encode(head, &mut output) || output.unsent() > 0 {
        output.send(&ours).unwrap();
        match theirs.read_to_end(&mut bytes) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{other:?}"),
        }
    }
    bytes
}

fn fence(number: u8) -> (ClientMessage, Vec<u8>) {
    let flags = Fence::REQUEST | Fence::SYNC_NEXT;
    let fence = Fence::new(flags, &[number]).unwrap();
    let mut answer = Vec::new();
    fence.answer().write(&mut answer);
    (ClientMessage::Fence(fence), answer)
}

#[test]
fn fence_for_the_next_message_is_answered_after_that_one() {
    let (mut session, head) = session(&[]);
    let (first, first_answer) = fence(1);
    let (second, second_answer) = fence(2);
    session.take(first, &head);
    assert!(sent(&mut session, &head).is_empty());
    session.take(second, &head);
    assert_eq!(sent(&mut session, &head), first_answer);
    let pointer = ClientMessage::PointerEvent {
        buttons: 0,
        x: 1,
        y: 1,
    };
    session.take(pointer, &head);
    assert_eq!(sent(&mut session, &head), second_answer);
    assert!(sent(&mut session, &head).is_empty());
}

#[test]
fn each_request_for_all_pixels_is_answered_with_the_size() {
    let request = |incremental| ClientMessage::FramebufferUpdateRequest {
        incremental,
        rect: rfb::Rect::of_size(1, 1),
    };
    // An update of one rectangle, whose encoding follows its four numbers.
    let encoding = |update: &[u8]| -> Encoding {
        assert_eq!(update[..4], [0, 0, 0, 1]);
        Encoding(i32::from_be_bytes(update[12..16].try_into().unwrap()))
    };
    let (mut extended, head) = session(&[Encoding::EXTENDED_DESKTOP_SIZE]);
    let (mut plain, _) = session(&[Encoding::DESKTOP_SIZE]);
    for _ in 0..2 {
        extended.take(request(false), &head);
        let update = sent(&mut extended, &head);
        assert_eq!(encoding(&update), Encoding::EXTENDED_DESKTOP_SIZE);
        // The head of the update, of the rectangle and of the list, and one screen. One request has one update.
        assert_eq!(update.len(), 4 + 12 + 4 + 16);
        extended.take(request(true), &head);
        assert_eq!(encoding(&sent(&mut extended, &head)), Encoding::RAW);
        extended.take(request(true), &head);
        assert!(sent(&mut extended, &head).is_empty());
        plain.take(request(false), &head);
        assert_eq!(encoding(&sent(&mut plain, &head)), Encoding::RAW);
    }
}

#[test]
fn requests_for_all_pixels_add_them_once() {
    let (mut session, head) = session(&[]);
    let all = rfb::Rect::of_size(1024, 768);
    let request = |incremental, rect| ClientMessage::FramebufferUpdateRequest { incremental, rect };
    session.take(request(true, all), &head);
    let whole = sent(&mut session, &head).len();
    assert!(whole > 4 * 1024 * 768);
    for _ in 0..256 {
        session.take(request(false, rfb::Rect::new(0, 0, 8, 8)), &head);
        session.take(request(false, rfb::Rect::new(8, 8, 8, 8)), &head);
        assert!(session.damage.is_empty(), "a request takes long");
    }
    // One update of one rectangle around them all.
    assert_eq!(sent(&mut session, &head).len(), 4 + 12 + 4 * 16 * 16);
    session.take(request(true, all), &head);
    assert!(sent(&mut session, &head).is_empty());
}

/// Draws the Raw rectangles of an update.
fn draw(update: &[u8], picture: &mut [u8], width: usize) {
    let number = |bytes: &[u8]| usize::from(u16::from_be_bytes(bytes.try_into().unwrap()));
    let (header, mut rest) = update.split_at(4);
    for _ in 0..number(&header[2..]) {
        let (rect, pixels) = rest.split_at(12);
        assert_eq!(rect[8..], [0; 4]);
        let (x, y) = (number(&rect[..2]), number(&rect[2..4]));
        let (row_len, rows) = (4 * number(&rect[4..6]), number(&rect[6..8]));
        let (pixels, after) = pixels.split_at(row_len * rows);
        for (row, pixels) in pixels.chunks_exact(row_len).enumerate() {
            let start = 4 * ((y + row) * width + x);
            picture[start..start + row_len].copy_from_slice(pixels);
        }
        rest = after;
    }
    assert!(rest.is_empty());
}

#[test]
fn cursor_is_not_painted_beside_a_smaller_picture() {
    let (mut session, mut head) = session(&[]);
    let small = Size::new(640, 480);
    head.set_scanout(small);
    head.add_damage(&DamageMap::full(small));
    let white = [255; SENT_CURSOR_LEN];
    head.set_cursor_shape(CursorShape::from_sent(&white, 0, 0), 620, 460);
    let mut seen = vec![0; 4 * 1024 * 768];
    let mut look = |head: &mut Head| -> Vec<(usize, usize)> {
        session.note_changes(head);
        head.forget_changes();
        let request = ClientMessage::FramebufferUpdateRequest {
            incremental: true,
            rect: rfb::Rect::of_size(1024, 768),
        };
        session.take(request, head);
        draw(&sent(&mut session, head), &mut seen, 1024);
        let pixels = seen.chunks_exact(4).enumerate();
        let bright = pixels.filter(|(_, pixel)| pixel[..3] != [0; 3]);
        bright.map(|(n, _)| (n % 1024, n / 1024)).collect()
    };
    let bright = look(&mut head);
    assert_eq!((bright.len(), bright[0]), (20 * 20, (620, 460)));
    head.move_cursor(true, 100, 100);
    let bright = look(&mut head);
    assert_eq!((bright.len(), bright[0]), (64 * 64, (100, 100)));
}

/// A viewer that asks for all pixels each time.
#[test]
fn size_does_not_take_the_place_of_pixels_for_ever() {
    let (mut session, head) = session(&[Encoding::EXTENDED_DESKTOP_SIZE]);
    let mut look = || {
        let request = ClientMessage::FramebufferUpdateRequest {
            incremental: false,
            rect: rfb::Rect::of_size(8, 8),
        };
        session.take(request, &head);
        sent(&mut session, &head).len()
    };
    for _ in 0..3 {
        assert_eq!(look(), 4 + 12 + 4 + 16);
        assert_eq!(look(), 4 + 12 + 4 * 8 * 8);
    }
}
