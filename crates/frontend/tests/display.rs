// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The display, driven as by a backend.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use frontend::gpu::{Display, DisplayOptions, DisplayThread, Edid, EdidAnswer, Request};

fn message(request: Request, body: &[u8]) -> Vec<u8> {
    let header = [request as u32, 0, body.len() as u32];
    header
        .iter()
        .flat_map(|w| w.to_ne_bytes())
        .chain(body.iter().copied())
        .collect()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_ne_bytes()).collect()
}

fn update(scanout: u32, x: u32, y: u32, w: u32, h: u32, pixel: u32) -> Vec<u8> {
    let mut body = words(&[scanout, x, y, w, h]);
    body.extend(words(&vec![pixel; (w * h) as usize]));
    message(Request::Update, &body)
}

fn answer(socket: &mut UnixStream) -> (u32, u32, Vec<u8>) {
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut header = [0; 12];
    socket.read_exact(&mut header).unwrap();
    let word = |n: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[n + i]));
    let mut body = vec![0; word(8) as usize];
    socket.read_exact(&mut body).unwrap();
    (word(0), word(4), body)
}

#[test]
fn picture_is_drawn_where_it_belongs() {
    let (mut display, mut backend) = Display::new(DisplayOptions::default()).unwrap();
    backend
        .write_all(&message(Request::Scanout, &words(&[2, 8, 4])))
        .unwrap();
    backend
        .write_all(&update(2, 0, 0, 8, 4, 0x0011_2233))
        .unwrap();
    backend
        .write_all(&update(2, 6, 3, 2, 1, 0xff44_5566))
        .unwrap();
    display.serve_all().unwrap();
    let surface = display.surface(2).unwrap();
    assert_eq!((surface.width, surface.height), (8, 4));
    for (x, y) in (0..4).flat_map(|y| (0..8).map(move |x| (x, y))) {
        let wanted = if x >= 6 && y == 3 {
            [0x44, 0x55, 0x66]
        } else {
            [0x11, 0x22, 0x33]
        };
        assert_eq!(surface.rgb(x, y), Some(wanted), "{x}, {y}");
    }
    assert_eq!(surface.rgb(8, 0), None);
    assert!(display.surface(0).is_err());
    assert_eq!(display.received.len(), 3);
    assert_eq!(display.received[2].size, 12 + 20 + 8);
    assert_eq!(display.bytes, 24 + (12 + 20 + 128) + (12 + 20 + 8));

    backend
        .write_all(&message(Request::Scanout, &words(&[2, 0, 0])))
        .unwrap();
    display.serve_all().unwrap();
    assert!(display.surface(2).is_err());
}

#[test]
fn display_rejects_what_qemu_rejects() {
    let scanout = message(Request::Scanout, &words(&[0, 8, 8]));
    let mut unknown = message(Request::Scanout, &[]);
    unknown[0] = 77;
    let mut flagged = scanout.clone();
    flagged[4] = 1;
    let mut short = update(0, 0, 0, 2, 2, 0);
    short.truncate(short.len() - 4);
    short[8] -= 4;
    let cases = [
        ("unknown", unknown),
        ("flags", flagged),
        ("scanout 16", message(Request::Scanout, &words(&[16, 8, 8]))),
        ("before a SCANOUT", update(1, 0, 0, 1, 1, 0)),
        ("outside", update(0, 7, 0, 2, 1, 0)),
        ("outside", update(0, u32::MAX, 0, 1, 1, 0)),
        ("bytes instead of", short),
        ("bytes", message(Request::CursorPos, &words(&[0, 1]))),
        ("bytes", message(Request::CursorPos, &words(&[0, 1, 2, 3]))),
        (
            "descriptors",
            message(
                Request::DmabufScanout,
                &words(&[0, 0, 0, 8, 8, 8, 8, 32, 0, 0]),
            ),
        ),
    ];
    for (word, bytes) in cases {
        let (mut display, mut backend) = Display::new(DisplayOptions::default()).unwrap();
        backend.write_all(&scanout).unwrap();
        backend.write_all(&bytes).unwrap();
        let error = display.serve_all().unwrap_err().to_string();
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
}

#[test]
fn questions_are_answered_as_configured() {
    let mut options = DisplayOptions::with_modes(&[(800, 600), (640, 480)]);
    let blocks = vec![Edid::make("one", 800, 600)];
    options.edid = EdidAnswer::Blocks(blocks.clone());
    let (display, mut backend) = DisplayThread::start(options).unwrap();
    backend
        .write_all(&message(Request::GetProtocolFeatures, &[]))
        .unwrap();
    assert_eq!(answer(&mut backend), (1, 4, 1_u64.to_ne_bytes().to_vec()));
    backend
        .write_all(&message(Request::SetProtocolFeatures, &1_u64.to_ne_bytes()))
        .unwrap();
    backend
        .write_all(&message(Request::GetDisplayInfo, &[]))
        .unwrap();
    let (request, flags, body) = answer(&mut backend);
    assert_eq!((request, flags, body.len()), (3, 4, 24 + 16 * 24));
    assert_eq!(body[24..48], words(&[0, 0, 800, 600, 1, 0]));
    assert_eq!(body[48..72], words(&[800, 0, 640, 480, 1, 0]));
    assert!(body[72..].iter().all(|b| *b == 0));
    // The one it has; none beyond.
    backend
        .write_all(&message(Request::GetEdid, &words(&[1])))
        .unwrap();
    backend
        .write_all(&message(Request::GetEdid, &words(&[0])))
        .unwrap();
    let (request, _, body) = answer(&mut backend);
    assert_eq!((request, body.len()), (11, 24 + 8 + 1024));
    assert_eq!(body[32..32 + 128], blocks[0]);
    assert_eq!(display.lock().protocol_features, Some(1));
    display.finish().unwrap();
}

#[test]
fn display_thread_keeps_its_first_error() {
    let (display, mut backend) = DisplayThread::start(DisplayOptions::default()).unwrap();
    backend.write_all(&update(0, 0, 0, 1, 1, 0)).unwrap();
    let error = display
        .wait("anything", |_| None::<()>)
        .unwrap_err()
        .to_string();
    assert!(error.contains("before a SCANOUT"), "{error}");
    // And closes the socket, as QEMU does.
    backend
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    // With what it has not read, the kernel may call that a reset.
    let closed = backend.read(&mut [0]);
    assert!(
        matches!(closed, Ok(0)) || closed.is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
    );
}

#[test]
fn display_is_stuck_until_told_to_go_on() {
    let options = DisplayOptions {
        buffer: Some(4096),
        ..DisplayOptions::default()
    };
    let (display, mut backend) = DisplayThread::start_stuck(options).unwrap();
    backend
        .write_all(&message(Request::Scanout, &words(&[0, 64, 64])))
        .unwrap();
    backend
        .set_write_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let picture = update(0, 0, 0, 64, 64, 1);
    let mut sent = 0;
    while let Ok(n) = backend.write(&picture[sent..]) {
        sent += n;
        assert!(
            sent < picture.len(),
            "a display that does not read has taken a whole picture"
        );
    }
    assert!(display.lock().received.is_empty());
    display.resume();
    backend
        .set_write_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    backend.write_all(&picture[sent..]).unwrap();
    display.wait_count(Request::Update, 1).unwrap();
    display.finish().unwrap();
}

#[test]
fn display_closes_when_told() {
    let options = DisplayOptions {
        close_after: Some(30),
        ..DisplayOptions::default()
    };
    let (mut display, mut backend) = Display::new(options).unwrap();
    backend
        .write_all(&message(Request::Scanout, &words(&[0, 8, 8])))
        .unwrap();
    backend
        .write_all(&message(Request::Scanout, &words(&[1, 8, 8])))
        .unwrap();
    display.serve_all().unwrap();
    assert!(display.closed);
    assert_eq!((display.bytes, display.received.len()), (30, 1));

    let cut_answer = Some((Request::GetDisplayInfo, 20));
    let options = DisplayOptions {
        cut_answer,
        ..DisplayOptions::default()
    };
    let (mut display, mut backend) = Display::new(options).unwrap();
    backend
        .write_all(&message(Request::GetDisplayInfo, &[]))
        .unwrap();
    display.serve_all().unwrap();
    let mut bytes = Vec::new();
    backend.read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), 20);
}

#[test]
fn cursor_is_where_it_was_put() {
    let (mut display, mut backend) = Display::new(DisplayOptions::default()).unwrap();
    let mut body = words(&[3, 10, 20, 5, 6]);
    body.extend(words(&[0x8012_3456; 64 * 64]));
    backend
        .write_all(&message(Request::CursorUpdate, &body))
        .unwrap();
    display
        .serve_until("the cursor", |d| !d.cursor.pixels.is_empty())
        .unwrap();
    let cursor = &display.cursor;
    assert_eq!(
        (cursor.scanout, cursor.position, cursor.hot_spot),
        (3, (10, 20), (5, 6))
    );
    assert!(cursor.visible);
    backend
        .write_all(&message(Request::CursorPosHide, &words(&[3, 1, 2])))
        .unwrap();
    display.serve_all().unwrap();
    assert_eq!(
        (display.cursor.position, display.cursor.visible),
        ((1, 2), false)
    );
}
