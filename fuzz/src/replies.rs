// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages that arrive on the display socket.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use vhost_user_backends::gpu::fuzzing::{
    DisplayQuery, DisplayReply, FuzzDisplay, MAX_EDID_LEN, REPLY_LIMIT,
};

use crate::bytes::Bytes;
use crate::front_end::FrontEnd;

const MAX_STEPS: usize = 300;

/// A front-end in any mood, and a device that asks it.
pub fn display_replies(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    if bytes.u8() & 1 == 0 {
        converse(&mut bytes);
    } else {
        split(&mut bytes);
    }
}

fn converse(bytes: &mut Bytes<'_>) {
    let (mut front_end, socket) = FrontEnd::new();
    let mut now = Instant::now();
    let mut display = FuzzDisplay::default();
    display.attach(socket, now);
    for _ in 0..MAX_STEPS {
        if bytes.is_empty() {
            break;
        }
        match bytes.u8() {
            0..=39 => {
                let question = question(bytes);
                // The queue that asks does not ask again before it has an answer.
                if display.is_query_pending() {
                    continue;
                }
                let asked = display.ask(question, now);
                assert_eq!(asked, display.is_query_pending());
            }
            40..=89 => {
                display.send(now);
                front_end.read_all();
            }
            90..=129 => front_end.answer(bytes),
            130..=149 => front_end.rave(bytes),
            150..=159 => front_end.stammer(bytes),
            160..=209 => {
                let received = display.receive(now);
                assert!(received || !display.is_connected());
            }
            210..=229 => check(display.is_query_pending(), display.take_reply()),
            230..=239 => {
                now += REPLY_LIMIT;
                display.expire(now);
                assert!(!display.is_query_pending());
            }
            240..=244 => display.cancel_query(),
            245..=249 => {
                let (again, socket) = FrontEnd::new();
                front_end = again;
                display.attach(socket, now);
                assert!(
                    !display.is_query_pending(),
                    "who asked the one before gets no answer"
                );
            }
            _ => {
                display.send(now);
            }
        }
        // Nobody waits for ever.
        assert!(!display.is_query_pending() || display.has_deadline());
    }
}

fn question(bytes: &mut Bytes<'_>) -> DisplayQuery {
    match bytes.u8() % 4 {
        0 => DisplayQuery::DisplayInfo,
        1 => DisplayQuery::Edid(0),
        _ => DisplayQuery::Edid(bytes.u8().into()),
    }
}

fn check(is_query_pending: bool, answer: Option<DisplayReply>) {
    assert!(
        !is_query_pending || answer.is_none(),
        "an answer that is still awaited"
    );
    if let Some(DisplayReply::Edid(edid)) = answer {
        assert!((1..=MAX_EDID_LEN).contains(&edid.len()));
    }
}

/// The same bytes mean the same however they arrive.
fn split(bytes: &mut Bytes<'_>) {
    let step = usize::from(bytes.u8()) % 64 + 1;
    let question = question(bytes);
    let stream = bytes.rest();
    assert_eq!(
        listen(stream, stream.len().max(1), question),
        listen(stream, step, question)
    );
}

fn listen(stream: &[u8], step: usize, question: DisplayQuery) -> (bool, Option<DisplayReply>) {
    let (mut socket, theirs) = UnixStream::pair().expect("cannot make a socket");
    let now = Instant::now();
    let mut display = FuzzDisplay::default();
    display.attach(theirs, now);
    display.ask(question, now);
    let mut failed = false;
    for part in stream.chunks(step) {
        if socket.write_all(part).is_err() {
            break;
        }
        failed |= !display.receive(now);
    }
    (failed, display.take_reply())
}
