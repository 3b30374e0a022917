// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages between a program and the helper for its group, the same in both directions: what is asked for.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::input::device::release::{GrabRequest, ReleasedBy};

const ALL: [(u8, GrabRequest); 3] = [
    (b'g', GrabRequest::Grab),
    (b'c', GrabRequest::Release(ReleasedBy::Chord)),
    (b'r', GrabRequest::Release(ReleasedBy::Command)),
];

pub(super) fn send(socket: &OwnedFd, request: GrabRequest) -> Result<(), Errno> {
    let mut all = ALL.iter();
    let byte = all.find_map(|(byte, known)| (*known == request).then_some(*byte));
    let byte = byte.ok_or(Errno::INVAL)?;
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    rustix::net::send(socket, &[byte], flags).map(drop)
}

/// The next request; `None` at the other side's end.
pub(super) fn receive(socket: &OwnedFd) -> Result<Option<GrabRequest>, Errno> {
    loop {
        let mut message = [MaybeUninit::uninit(); 2];
        match rustix::net::recv(socket, &mut message, RecvFlags::DONTWAIT) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
            Ok((([], _), _)) => return Ok(None),
            Ok(((bytes, _), _)) => {
                let mut all = ALL.iter();
                let request =
                    all.find_map(|(byte, request)| (bytes == [*byte]).then_some(*request));
                return request.map(Some).ok_or(Errno::PROTO);
            }
        }
    }
}
