// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::os::unix::net::UnixStream;

use super::*;
use crate::backend::continuity::{Continuity, Descriptors};

fn event(code: u16) -> libc::input_event {
    libc::input_event {
        time: libc::timeval {
            tv_sec: 0,
            tv_usec: 5,
        },
        type_: 1,
        code,
        value: 1,
    }
}

fn write(pipe: &UnixStream, codes: &[u16]) {
    let events: Vec<_> = codes.iter().map(|code| event(*code)).collect();
    // SAFETY: structures of numbers without padding.
    let bytes = unsafe {
        std::slice::from_raw_parts(events.as_ptr().cast(), size_of_val(events.as_slice()))
    };
    assert_eq!(rustix::io::write(pipe, bytes), Ok(bytes.len()));
}

fn codes(inbox: &Inbox) -> Vec<u16> {
    inbox.events().map(|event| event.code).collect()
}

fn read(inbox: &mut Inbox, from: &UnixStream) -> Vec<u16> {
    inbox.read(from).unwrap();
    codes(inbox)
}

#[test]
fn successor_finds_what_was_read() {
    let descriptors = Descriptors::create().unwrap();
    let kept = descriptors.named().map(|(_, fd)| fd.try_clone().unwrap());
    let first = Continuity::begin("test", descriptors).unwrap();
    let mut inbox = first.inbox().unwrap();
    assert_eq!((inbox.number(), codes(&inbox)), (0, vec![]));
    let (reader, writer) = UnixStream::pair().unwrap();
    write(&writer, &[1, 2, 3]);
    assert_eq!(read(&mut inbox, &reader), [1, 2, 3]);
    let second = Continuity::resume("test", Descriptors::from_kept(kept));
    let second = second.unwrap().unwrap();
    let mut left = second.inbox().unwrap();
    assert_eq!((left.number(), codes(&left)), (1, vec![1, 2, 3]));
    write(&writer, &[4]);
    assert_eq!(read(&mut left, &reader), [4]);
    assert_eq!(codes(&left), [4]);
    drop(writer);
    assert!(read(&mut left, &reader).is_empty());
    assert_eq!(left.number(), 3);
}

/// What it left of the read before is none of the next one.
#[test]
fn successor_of_a_process_that_died_while_it_zeroed_events_reads_only_its_own() {
    let descriptors = Descriptors::create().unwrap();
    let kept = descriptors.try_clone().unwrap();
    let again = descriptors.try_clone().unwrap();
    let first = Continuity::begin("test", descriptors).unwrap();
    let mut inbox = first.inbox().unwrap();
    let (reader, writer) = UnixStream::pair().unwrap();
    write(&writer, &[1, 2, 3]);
    assert_eq!(read(&mut inbox, &reader), [1, 2, 3]);
    assert!(inbox.memory.write(AT_EVENTS, &[0; EVENT_LEN]));
    let second = Continuity::resume("test", kept).unwrap().unwrap();
    write(&writer, &[4]);
    assert_eq!(read(&mut second.inbox().unwrap(), &reader), [4]);
    let third = Continuity::resume("test", again).unwrap().unwrap();
    assert_eq!(codes(&third.inbox().unwrap()), [4]);
}

#[test]
fn most_events_of_a_read_fit() {
    let state = Continuity::begin("test", Descriptors::create().unwrap()).unwrap();
    let mut inbox = state.inbox().unwrap();
    let (reader, writer) = UnixStream::pair().unwrap();
    let all: Vec<u16> = (0..300).collect();
    write(&writer, &all);
    drop(writer);
    let mut got = Vec::new();
    loop {
        let codes = read(&mut inbox, &reader);
        if codes.is_empty() {
            break;
        }
        got.extend(codes);
    }
    assert_eq!(got, all);
}
