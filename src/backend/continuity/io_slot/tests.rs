// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;
use crate::backend::continuity::{Continuity, Descriptors};

const NONE: SendFlags = SendFlags::empty();
const DONTWAIT: RecvFlags = RecvFlags::DONTWAIT;

#[test]
fn transfers_are_counted_where_nothing_is_kept() {
    let mut slot = Continuity::default().slot(Slot::DisplayOut).unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    assert_eq!(slot.transferred(), 0);
    let parts = [IoSlice::new(b"abc"), IoSlice::new(b"defg")];
    assert_eq!(slot.send(&theirs, &parts, &[], NONE), Ok(7));
    assert_eq!(slot.transferred(), 7);
    let mut got = [0; 7];
    ours.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"abcdefg");
    ours.write_all(b"xyz").unwrap();
    let mut into = [0; 2];
    let mut buffers = [IoSliceMut::new(&mut into)];
    assert_eq!(slot.receive(&theirs, &mut buffers, DONTWAIT), Ok(2));
    assert_eq!(slot.receive_shared(&theirs, 100, DONTWAIT), Ok(1));
    assert_eq!(slot.shared_bytes(), b"z");
    assert_eq!(slot.transferred(), 10);
    let again = slot.receive_shared(&theirs, 100, DONTWAIT);
    assert_eq!(again, Err(Errno::AGAIN));
    assert_eq!(slot.transferred(), 10);
    drop(ours);
    assert_eq!(slot.receive_shared(&theirs, 100, DONTWAIT), Ok(0));
    let broken = slot.send(&theirs, &parts, &[], SendFlags::NOSIGNAL);
    assert_eq!(broken, Err(Errno::PIPE));
    assert_eq!(slot.transferred(), 10);
}

/// By the socket's rules: with the first byte of what one call sent.
#[test]
fn receiver_is_told_whether_descriptors_came() {
    let mut out = Continuity::default().slot(Slot::FrontEndOut).unwrap();
    let kept = Continuity::begin("test", Descriptors::create().unwrap()).unwrap();
    let mut slot = kept.slot(Slot::FrontEndIn).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut take = |len| {
        let mut into = vec![0; len];
        let got = slot.receive(&ours, &mut [IoSliceMut::new(&mut into)], DONTWAIT);
        // Another process sees the same.
        let seen = kept.slot(Slot::FrontEndIn).unwrap().brought_descriptors();
        (got, slot.brought_descriptors(), seen)
    };
    for (bytes, fds) in [(b"none", &[][..]), (b"some", &[theirs.as_fd()])] {
        let sent = out.send(&theirs, &[IoSlice::new(bytes)], fds, NONE);
        assert_eq!(sent, Ok(4));
    }
    assert_eq!(take(4), (Ok(4), false, false));
    assert_eq!(take(3), (Ok(3), true, true));
    assert_eq!(take(3), (Ok(1), false, false));
    assert_eq!(take(1), (Err(Errno::AGAIN), false, false));
}

#[test]
fn descriptors_go_with_the_first_byte() {
    let mut slot = Continuity::default().slot(Slot::FrontEndOut).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (passed, mut other) = UnixStream::pair().unwrap();
    let fds = [passed.as_fd(), passed.as_fd(), passed.as_fd()];
    let sent = slot.send(&theirs, &[IoSlice::new(b"x")], &fds, NONE);
    assert_eq!(sent, Ok(1));
    drop(passed);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(
        &ours,
        &mut [IoSliceMut::new(&mut byte)],
        &mut control,
        flags,
    )
    .unwrap();
    let mut count = 0;
    for part in control.drain() {
        if let rustix::net::RecvAncillaryMessage::ScmRights(fds) = part {
            for fd in fds {
                count += 1;
                rustix::io::write(&fd, b"y").unwrap();
            }
        }
    }
    assert_eq!(count, 3);
    let mut got = Vec::new();
    other.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"yyy");
}

/// A process that is killed in a loop of transfers leaves a count that is what was transferred.
#[test]
fn count_is_right_after_the_process_was_killed() {
    let flags = SocketFlags::CLOEXEC;
    for round in 0_u64..200 {
        let descriptors = Descriptors::create().unwrap();
        let kept = descriptors.named().map(|(_, fd)| fd.try_clone().unwrap());
        let state = Continuity::begin("test", descriptors).unwrap();
        let mut slot = state.slot(Slot::DisplayOut).unwrap();
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        // SAFETY: the child only makes system calls, and is killed.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let chunk = [7; 50];
            loop {
                let _ = slot.send(&theirs, &[IoSlice::new(&chunk)], &[], SendFlags::DONTWAIT);
            }
        }
        let mut got = 0;
        let mut buffer = [0; 997];
        while got < (round * 631) as usize {
            got += rustix::io::read(&ours, &mut buffer).unwrap();
        }
        // SAFETY: this is the child's number until it was waited for.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, ptr::null_mut(), 0);
        }
        drop(theirs);
        loop {
            match rustix::io::read(&ours, &mut buffer).unwrap() {
                0 => break,
                more => got += more,
            }
        }
        let successor = Continuity::resume("test", Descriptors::from_kept(kept));
        let successor = successor.unwrap().unwrap();
        let left = successor.slot(Slot::DisplayOut).unwrap();
        assert_eq!(left.transferred(), got as u64, "round {round}");
    }
}
