// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles: what they send, and what they are not asked.

use super::*;

const RESIZE: u32 = 0x1000;

/// A console that may resize, after its negotiation.
fn console() -> (FrontEnd, Display) {
    let (socket, ours) = UnixStream::pair().unwrap();
    let limit = Some(Duration::from_secs(10));
    socket.set_read_timeout(limit).unwrap();
    let now = Instant::now();
    let mut display = Display::new(DisplayRole::Console);
    display.attach(ours, now);
    let mut console = FrontEnd { socket, now };
    display.send(None, now).unwrap();
    assert_eq!(console.message(), (GET_PROTOCOL_FEATURES, vec![]));
    console.reply(GET_PROTOCOL_FEATURES, &u64::MAX.to_ne_bytes());
    display.receive(now).unwrap();
    display.send(None, now).unwrap();
    let accepted = (1_u64 << 32).to_ne_bytes().to_vec();
    assert_eq!(console.message(), (SET_PROTOCOL_FEATURES, accepted));
    (console, display)
}

fn ask(console: &mut FrontEnd, scanout: u32) {
    let words = [RESIZE, 0, 12, scanout, 640, 480];
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    console.socket.write_all(&bytes).unwrap();
}

fn is_read(display: &Display) -> bool {
    let (_, interest) = display.interest().unwrap();
    interest.contains(EventSet::IN)
}

#[test]
fn consoles_are_asked_nothing_and_passed_no_dmabufs() {
    let (_console, mut display) = console();
    assert!(!display.ask(DisplayQuery::DisplayInfo, Instant::now()));
    assert!(!display.ask(DisplayQuery::Edid(0), Instant::now()));
    assert_eq!(display.dmabuf_support(), DmabufSupport::None);
}

#[test]
fn console_that_sends_too_much_is_read_later() {
    let (mut console, mut display) = console();
    (0..100).for_each(|n| ask(&mut console, n));
    let mut now = console.now;
    let mut read = Vec::new();
    for _ in 0..10 {
        display.receive(now).unwrap();
        let before = read.len();
        while let Some(wanted) = display.take_resize() {
            read.push(wanted.scanout);
            display.answer_resize(ResizeResult::Refused);
            display.send(None, now).unwrap();
        }
        assert!(read.len() - before <= 32);
        if is_read(&display) {
            break;
        }
        // It is read again in time, and not before.
        let deadline = display.deadline().unwrap();
        assert!(deadline > now);
        display.receive(now).unwrap();
        assert!(display.take_resize().is_none());
        now = deadline;
        display.expire(now);
    }
    assert_eq!(read, (0..100).collect::<Vec<_>>());
    // The answers are in order, and there is one for each request.
    for _ in 0..100 {
        let mut answer = [0; 16];
        console.socket.read_exact(&mut answer).unwrap();
        let words = [RESIZE, REPLY, 4, 1].map(u32::to_ne_bytes);
        assert_eq!(answer[..], words.concat());
    }
}

#[test]
fn console_that_does_not_read_its_answers_is_not_read() {
    let (mut console, mut display) = console();
    let mut now = console.now;
    let mut read = 0;
    for n in 0..100 {
        ask(&mut console, n);
        now += Duration::from_secs(1);
        display.expire(now);
        display.receive(now).unwrap();
        while display.take_resize().is_some() {
            read += 1;
            // Nothing is sent: the socket is full.
            display.answer_resize(ResizeResult::Refused);
        }
    }
    assert_eq!(read, 16);
    assert!(!is_read(&display));
    display.send(None, now).unwrap();
    assert!(is_read(&display));
}

/// The end is noticed at once, even while nothing is read.
#[test]
fn console_that_hangs_up_is_gone() {
    let (mut console, mut display) = console();
    (0..40).for_each(|n| ask(&mut console, n));
    display.receive(console.now).unwrap();
    assert!(!is_read(&display));
    drop(console);
    assert!(matches!(display.hung_up(), Err(DisplayError::Closed)));
    assert!(!display.is_connected());
    assert!(display.take_resize().is_none());
}
