// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Messages on `NOTIFY_SOCKET`, with their descriptors.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};

/// Longest message in bytes, as systemd has it.
const SIZE_LIMIT: usize = 4096;
/// Most descriptors of one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;

/// One message.
#[derive(Debug, Default)]
pub(super) struct Datagram {
    /// Its lines.
    pub(super) lines: Vec<String>,
    pub(super) fds: Vec<OwnedFd>,
}

impl Datagram {
    /// Receives one, if there is one. One that is too long or holds a NUL has no lines: it is ignored.
    pub(super) fn receive(socket: &UnixDatagram) -> rustix::io::Result<Option<Self>> {
        let mut bytes = [0; SIZE_LIMIT + 1];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let iov = &mut [IoSliceMut::new(&mut bytes)];
        let received = match recvmsg(socket, iov, &mut control, flags) {
            Err(Errno::AGAIN) => return Ok(None),
            received => received?,
        };
        let mut datagram = Self::default();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                datagram.fds.extend(rights);
            }
        }
        let whole = !received.flags.contains(ReturnFlags::TRUNC) && received.bytes <= SIZE_LIMIT;
        let text = &bytes[..received.bytes];
        // One NUL at the end is a string's own.
        let text = text.strip_suffix(&[0]).unwrap_or(text);
        if whole && !text.contains(&0) {
            let text = String::from_utf8_lossy(text);
            datagram.lines = text.lines().map(str::to_owned).collect();
        }
        Ok(Some(datagram))
    }

    /// Whether one line is exactly this.
    pub(super) fn has(&self, line: &str) -> bool {
        self.lines.iter().any(|has| has == line)
    }

    /// What is assigned to `name`.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let mut lines = self.lines.iter().filter_map(|line| line.split_once('='));
        lines.find_map(|(has, value)| (has == name).then_some(value))
    }
}
