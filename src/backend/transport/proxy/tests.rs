// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;
use crate::backend::transport::forwarder::{MAX_FORWARDED_MESSAGES, Received};
use crate::backend::transport::message_header::HEADER;

fn message(request: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    let mut bytes = Vec::new();
    for field in [request, 1, size] {
        bytes.extend(field.to_ne_bytes());
    }
    bytes.extend(payload);
    bytes
}

fn joined() -> (VhostUserProxy, UnixStream, UnixStream) {
    let (front_end, proxy_front_end) = UnixStream::pair().unwrap();
    let (proxy_daemon, daemon) = UnixStream::pair().unwrap();
    let proxy = VhostUserProxy::new(
        proxy_front_end,
        proxy_daemon,
        DisplaySocketMailbox::default(),
        RequestLinks::default(),
    )
    .unwrap();
    (proxy, front_end, daemon)
}

const NOTHING: [PollFlags; 2] = [PollFlags::empty(); 2];

fn send_with_fd(to: &UnixStream, bytes: &[u8], fd: BorrowedFd<'_>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let sent = net::sendmsg(to, &[IoSlice::new(bytes)], &mut control, SendFlags::empty());
    assert_eq!(sent.unwrap(), bytes.len());
}

#[test]
fn messages_pass_whole_however_they_are_split() {
    let (mut proxy, mut front_end, mut daemon) = joined();
    let sent = [message(1, b""), message(5, b"payload"), message(2, b"x")].concat();
    for byte in &sent {
        front_end.write_all(&[*byte]).unwrap();
        assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    }
    let mut got = vec![0; sent.len()];
    daemon.read_exact(&mut got).unwrap();
    assert_eq!(got, sent);

    daemon.write_all(&message(1, b"reply")).unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    let mut got = vec![0; HEADER + 5];
    front_end.read_exact(&mut got).unwrap();
    assert_eq!(got, message(1, b"reply"));
}

#[test]
fn half_message_waits_for_its_rest() {
    let (mut proxy, mut front_end, daemon) = joined();
    daemon.set_nonblocking(true).unwrap();
    front_end.write_all(&message(5, b"payload")[..15]).unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    let nothing = (&daemon).read(&mut [0; 64]).unwrap_err();
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn flood_of_messages_leaves_a_turn_to_others() {
    let (mut proxy, mut front_end, mut daemon) = joined();
    daemon.set_nonblocking(true).unwrap();
    let sent = message(1, b"payload").repeat(2 * MAX_FORWARDED_MESSAGES);
    front_end.write_all(&sent).unwrap();
    let mut got = Vec::new();
    for passed in 1..=2 {
        assert_eq!(proxy.pass(NOTHING).unwrap(), None);
        let drained = daemon.read_to_end(&mut got).unwrap_err();
        assert_eq!(drained.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(got.len(), passed * sent.len() / 2);
    }
    assert_eq!(got, sent);
}

#[test]
fn descriptors_stay_with_their_message() {
    let (mut proxy, mut front_end, daemon) = joined();
    let file = File::open("/dev/null").unwrap();
    front_end.write_all(&message(1, b"")).unwrap();
    send_with_fd(&front_end, &message(12, b"12345678"), file.as_fd());
    front_end.write_all(&message(2, b"")).unwrap();
    proxy.pass(NOTHING).unwrap();

    let mut far = MessageForwarder::default();
    let mut with_fds = Vec::new();
    for _ in 0..3 {
        while !far.is_complete() {
            assert!(matches!(far.receive(&daemon).unwrap(), Received::Some));
        }
        with_fds.push((far.request().unwrap(), far.fds().len()));
        far = MessageForwarder::default();
    }
    assert_eq!(with_fds, [(1, 0), (12, 1), (2, 0)]);
}

#[test]
fn display_socket_is_duplicated_and_passed_on() {
    let (mut proxy, front_end, daemon) = joined();
    let slot = proxy.display_socket.clone();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let request = FrontendReq::GPU_SET_SOCKET as u32;
    send_with_fd(&front_end, &message(request, b""), theirs.as_fd());
    drop(theirs);
    proxy.pass(NOTHING).unwrap();
    let mut far = MessageForwarder::default();
    far.receive(&daemon).unwrap();
    assert_eq!(far.fds().len(), 1);
    drop(far);
    let mut kept = slot.take().expect("a display socket").into_socket();
    kept.write_all(b"x").unwrap();
    let mut byte = [0];
    (&ours).read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn daemon_that_does_not_read_blocks_nothing() {
    let (mut proxy, front_end, daemon) = joined();
    front_end.set_nonblocking(true).unwrap();
    let bytes = message(1, &[7; 4096]);
    let mut sent = 0;
    let mut part = 0;
    for _ in 0..10_000 {
        match (&front_end).write(&bytes[part..]) {
            Ok(written) => {
                sent += written;
                part = (part + written) % bytes.len();
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && proxy.requests.is_complete() => {
                break;
            }
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
        assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    }
    // More of the front-end's bytes wait, and the main thread sleeps all the same.
    let now = rustix::event::Timespec::default();
    let ready = rustix::event::poll(&mut proxy.poll_fds(), Some(&now)).unwrap();
    assert_eq!(ready, 0);

    daemon.set_nonblocking(true).unwrap();
    let mut got = 0;
    let mut buffer = vec![0; 65536];
    while got < sent {
        match (&daemon).read(&mut buffer) {
            Ok(read) => got += read,
            Err(_) if sent - got < bytes.len() => break,
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
        }
        proxy.pass(NOTHING).unwrap();
    }
    assert_eq!(got, sent / bytes.len() * bytes.len());
}

#[test]
fn side_that_closed_the_connection_is_known() {
    let (mut proxy, front_end, _daemon) = joined();
    drop(front_end);
    assert_eq!(proxy.pass(NOTHING).unwrap(), Some(ConnectionSide::FrontEnd));
    let (mut proxy, _front_end, daemon) = joined();
    drop(daemon);
    assert_eq!(proxy.pass(NOTHING).unwrap(), Some(ConnectionSide::Backend));
}

#[test]
fn oversized_messages_end_the_connection() {
    let (mut proxy, mut front_end, _daemon) = joined();
    let mut header = message(1, b"");
    header[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
    front_end.write_all(&header).unwrap();
    assert!(matches!(
        proxy.pass(NOTHING),
        Err(ProxyError::TooLarge(u32::MAX))
    ));
    // No room is made for the message afterwards either.
    assert!(matches!(
        proxy.pass(NOTHING),
        Err(ProxyError::TooLarge(u32::MAX))
    ));
}

#[test]
fn private_connection_has_room_for_one() {
    let (listener, ours) = private_connection().unwrap();
    let address = net::getsockname(&listener).unwrap();
    let intruder = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    assert_eq!(net::connect(&intruder, &address), Err(Errno::AGAIN));
    let (mut accepted, _) = listener.accept().unwrap();
    (&ours).write_all(b"x").unwrap();
    let mut byte = [0];
    accepted.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn sanitizer_messages_go_with_their_request() {
    let (mut proxy, mut front_end, mut daemon) = joined();
    let [owner, reset] = [FrontendReq::SET_OWNER, FrontendReq::RESET_OWNER];
    let set = |features: u64| message(FrontendReq::SET_FEATURES as u32, &features.to_ne_bytes());
    let [owner, reset] = [owner, reset].map(|request| message(request as u32, b""));
    let sent = [owner.clone(), set(1 << 30), owner.clone(), message(17, b"")];
    front_end.write_all(&sent.concat()).unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    let [first, features, second, last] = sent;
    let passed = [first, features.clone(), reset, second, features, last].concat();
    let mut got = vec![0; passed.len()];
    daemon.read_exact(&mut got).unwrap();
    assert_eq!(got, passed);
}

#[test]
fn features_not_offered_end_the_connection() {
    let (mut proxy, mut front_end, mut daemon) = joined();
    let message_of = |request, features: u64| message(request, &features.to_ne_bytes());
    let offer = message_of(FrontendReq::GET_FEATURES as u32, 1 << 32);
    daemon.write_all(&offer).unwrap();
    assert_eq!(proxy.pass(NOTHING).unwrap(), None);
    let taken = message_of(FrontendReq::SET_FEATURES as u32, 1 << 32 | 1 << 34);
    front_end.write_all(&taken).unwrap();
    let refused = proxy.pass(NOTHING).unwrap_err();
    assert!(refused.to_string().contains("packed"), "{refused}");
}

fn memfd() -> OwnedFd {
    let file = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, 1 << 30).unwrap();
    file
}

/// As bytes: `ADD_MEM_REG`, with an acknowledgement or without.
fn add_region(flags: u32, at: u64, len: u64) -> Vec<u8> {
    let region = [0, at, len, 1 << 50 | at, 0].map(u64::to_ne_bytes);
    let mut bytes = message(FrontendReq::ADD_MEM_REG as u32, region.as_flattened());
    bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

/// QEMU 11.1 would look for them after it removed them, and crash.
#[test]
fn maps_of_devices_are_not_taken_while_the_device_runs() {
    const ACKNOWLEDGED: u32 = 1 | 1 << 3;
    const ADD: u32 = FrontendReq::ADD_MEM_REG as u32;
    let reply = |request: u32, value: u64| {
        let mut reply = message(request, &value.to_ne_bytes());
        reply[4..8].copy_from_slice(&5_u32.to_ne_bytes());
        reply
    };
    const PLUGGED: u64 = 128 << 20;
    let memory = memfd();
    let other = || memfd();
    let again = || memory.try_clone().unwrap();
    for (runs, flags, file, len, is_declined) in [
        (true, ACKNOWLEDGED, other(), 0x1000, true),
        (true, ACKNOWLEDGED, other(), PLUGGED - 0x1000, true),
        (true, ACKNOWLEDGED, other(), PLUGGED, false),
        (true, ACKNOWLEDGED, again(), 0x1000, false),
        // It cannot be refused, or the front-end would not start the device.
        (true, 1, other(), 0x1000, false),
        (false, ACKNOWLEDGED, other(), 0x1000, false),
    ] {
        let (mut proxy, mut front_end, mut daemon) = joined();
        front_end.set_nonblocking(true).unwrap();
        daemon.set_nonblocking(true).unwrap();
        let first = add_region(1, 0, PLUGGED);
        send_with_fd(&front_end, &first, memory.as_fd());
        if runs {
            let kick = message(FrontendReq::SET_VRING_KICK as u32, &[0; 8]);
            let call = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
            send_with_fd(&front_end, &kick, call.as_fd());
            let enable = [0_u32, 1].map(u32::to_ne_bytes);
            let enable = message(FrontendReq::SET_VRING_ENABLE as u32, enable.as_flattened());
            front_end.write_all(&enable).unwrap();
        }
        let question = message(GET_FEATURES, &[]);
        front_end.write_all(&question).unwrap();
        proxy.pass(NOTHING).unwrap();
        let mut before = Vec::new();
        let _ = daemon.read_to_end(&mut before);
        assert!(before.ends_with(&question));
        let add = add_region(flags, 1 << 40, len);
        send_with_fd(&front_end, &add, file.as_fd());
        front_end.write_all(&question).unwrap();
        proxy.pass(NOTHING).unwrap();
        let mut got = Vec::new();
        let _ = daemon.read_to_end(&mut got);
        let added = match is_declined {
            true => question.clone(),
            false => add,
        };
        assert_eq!(got, [added, question].concat(), "{runs} {flags} {len:#x}");
        // All are answered in their order.
        let own = reply(GET_FEATURES, 7);
        daemon.write_all(&own).unwrap();
        let added = match is_declined {
            true => own.clone(),
            false => reply(ADD, 0),
        };
        daemon.write_all(&added).unwrap();
        daemon.write_all(&own).unwrap();
        proxy.pass(NOTHING).unwrap();
        let mut got = Vec::new();
        let _ = front_end.read_to_end(&mut got);
        let answered = reply(ADD, u64::from(is_declined));
        assert_eq!(got, [own.clone(), answered, own].concat());
    }
}
