// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The messages between a program and its opener.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

/// Longest message. A file name has at most 255 bytes.
const MAX_MESSAGE: usize = 512;

/// What the program tells its opener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// What was opened last is the device.
    Accepted,
    /// The device is gone.
    Lost,
    /// What was opened is not the device.
    Refused,
    /// What was opened is used by another process, and is to be opened again later.
    Busy,
}

impl Order {
    const ALL: [Self; 4] = [Self::Accepted, Self::Lost, Self::Refused, Self::Busy];

    fn byte(self) -> u8 {
        match self {
            Self::Accepted => b'a',
            Self::Lost => b'l',
            Self::Refused => b'r',
            Self::Busy => b'b',
        }
    }

    pub(super) fn send(self, socket: &OwnedFd) -> Result<(), Errno> {
        send(socket, &[self.byte()], SendFlags::NOSIGNAL).map(drop)
    }

    /// The next order, on a socket that has one or is at its end; `None` at the end.
    pub(super) fn receive(socket: &OwnedFd) -> Result<Option<Self>, Errno> {
        let mut message = [MaybeUninit::uninit(); 1];
        let ((message, _), _) = rustix::net::recv(socket, &mut message, RecvFlags::empty())?;
        let byte = message.first();
        Ok(byte.and_then(|byte| Self::ALL.into_iter().find(|order| order.byte() == *byte)))
    }
}

/// What an opener tells its program.
#[derive(Debug)]
pub(in crate::input::source::evdev_source) enum Answer {
    /// The name leads to a device, which may be the one.
    Opened {
        /// The device.
        file: OwnedFd,
        /// The name of its node, such as `event7`.
        node: OsString,
        /// Whether nothing has changed for a while. A device that is not settled is opened again if it is refused.
        settled: bool,
    },
    /// The name leads to a device that was there beside the one that is waited for.
    Another {
        /// The name of its node.
        node: OsString,
    },
    /// Nothing tells these apart, of which one may be the device.
    Several {
        /// The names of their nodes.
        nodes: Vec<OsString>,
    },
    /// There is something, which cannot be opened.
    Failed(io::Error),
}

const OPENED: u8 = b'o';
const SETTLED: u8 = b'O';
const ANOTHER: u8 = b'a';
const SEVERAL: u8 = b's';
/// What separates names: no name contains it.
const SEPARATOR: u8 = b'/';
/// Most nodes of [`Answer::Several`], each of a few bytes.
const MAX_NODES: usize = 8;
const FAILED: u8 = b'f';

impl Answer {
    pub(super) fn send(&self, socket: &OwnedFd) -> Result<(), Errno> {
        match self {
            Self::Opened {
                file,
                node,
                settled,
            } => {
                let kind = if *settled { SETTLED } else { OPENED };
                send_with(socket, kind, node.as_bytes(), Some(file.as_fd()))
            }
            Self::Another { node } => send_with(socket, ANOTHER, node.as_bytes(), None),
            Self::Several { nodes } => {
                let nodes = nodes.iter().take(MAX_NODES);
                let nodes: Vec<_> = nodes.map(|node| node.as_bytes()).collect();
                send_with(socket, SEVERAL, &nodes.join(&SEPARATOR), None)
            }
            Self::Failed(error) => {
                let errno = error.raw_os_error().unwrap_or(libc::EIO);
                send_with(socket, FAILED, &errno.to_ne_bytes(), None)
            }
        }
    }

    /// The next answer, on a non-blocking socket. `PIPE` at the end.
    pub(super) fn receive(socket: &OwnedFd) -> Result<Self, Errno> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            flags,
        )?;
        let mut files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files),
            _ => None,
        });
        let file = files.next().and_then(|mut files| files.next());
        let Some((kind, text)) = bytes.get(..received.bytes).and_then(<[u8]>::split_first) else {
            return Err(Errno::PIPE);
        };
        let name = || OsString::from_vec(text.to_vec());
        match (*kind, file) {
            (OPENED | SETTLED, Some(file)) => Ok(Self::Opened {
                file,
                node: name(),
                settled: *kind == SETTLED,
            }),
            // The program has no descriptor left to receive it.
            (OPENED | SETTLED, None) => Ok(Self::Failed(Errno::MFILE.into())),
            (ANOTHER, _) => Ok(Self::Another { node: name() }),
            (SEVERAL, _) => {
                let nodes = text.split(|byte| *byte == SEPARATOR);
                let nodes = nodes.map(|node| OsString::from_vec(node.to_vec()));
                Ok(Self::Several {
                    nodes: nodes.collect(),
                })
            }
            _ => {
                let errno = text.try_into().map_or(libc::EIO, i32::from_ne_bytes);
                Ok(Self::Failed(io::Error::from_raw_os_error(errno)))
            }
        }
    }
}

fn send_with(
    socket: &OwnedFd,
    kind: u8,
    text: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files: Vec<_> = file.into_iter().collect();
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(Errno::NOBUFS);
    }
    let parts = [
        IoSlice::new(std::slice::from_ref(&kind)),
        IoSlice::new(text),
    ];
    sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL).map(drop)
}
