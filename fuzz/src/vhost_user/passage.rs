// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The proxy alone, between two peers that send anything.

use std::io::{Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;

use vhost_user_backends::backend::fuzzing::Passage;

use super::*;

/// Bytes of a message's header.
const HEADER: usize = 12;
/// Most bytes of a payload that pass.
const PAYLOAD_MAX: usize = 64 << 10;

/// The proxy passes whole messages on unchanged, whatever they are, and nothing else but what it adds
/// for the daemon.
pub(super) fn pass(bytes: &mut Bytes<'_>) {
    let (front_end, ours) = UnixStream::pair().expect("cannot make a socket");
    let (theirs, daemon) = UnixStream::pair().expect("cannot make a socket");
    for socket in [&front_end, &daemon] {
        socket
            .set_nonblocking(true)
            .expect("fcntl(2) does not fail");
    }
    let mut passage = Passage::new(ours, theirs).expect("fcntl(2) does not fail");
    let mut ways = [Passed::default(), Passed::default()];
    let ends = [&front_end, &daemon];
    let mut goes_on = true;
    while goes_on && !bytes.is_empty() {
        let way = usize::from(bytes.u8() & 1);
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
        let mut end = ends[way];
        if let Ok(written) = end.write(&part) {
            ways[way].sent.extend(&part[..written]);
        }
        goes_on = passage.pass();
        for (from, to) in [(0, 1), (1, 0)] {
            let mut buffer = [0; 4096];
            let mut end = ends[to];
            while let Ok(count @ 1..) = end.read(&mut buffer) {
                ways[from].got.extend(&buffer[..count]);
            }
            ways[from].check(goes_on, from == 0);
        }
    }
}

/// What was sent at one end, and what came out at the other.
#[derive(Default)]
struct Passed {
    sent: Vec<u8>,
    got: Vec<u8>,
}

impl Passed {
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
            for features in again
                .into_iter()
                .filter(|features| features & PROTOCOL_FEATURES != 0)
            {
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
