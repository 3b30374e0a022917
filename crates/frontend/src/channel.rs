// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user messages over the unix socket, as bytes and descriptors.
//!
//! The crate `vhost` has a front-end too. It blocks without a limit, has no `GPU_SET_SOCKET`, and
//! cannot send what a well-behaved front-end never sends: so the messages are made here, and only
//! their numbers are the crate's.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use vhost::vhost_user::message::MAX_MSG_SIZE;

use crate::{DEFAULT_LIMIT, Deadline, Error, Result};

/// Most descriptors the kernel passes with one message (`SCM_MAX_FD`).
const MAX_FDS: usize = 253;
/// request, flags and size, 32 bits each.
const HEADER_SIZE: usize = 12;

/// The vhost-user protocol's version, in a message's flags.
pub(crate) const VERSION: u32 = 1;
pub(crate) const VERSION_MASK: u32 = 3;
pub(crate) const REPLY: u32 = 1 << 2;
pub(crate) const NEED_REPLY: u32 = 1 << 3;

/// One vhost-user message as it came.
#[derive(Debug)]
pub struct Message {
    /// The request's number.
    pub request: u32,
    /// Version in bits 0 and 1, reply in bit 2, reply wanted in bit 3.
    pub flags: u32,
    /// What followed the header.
    pub body: Vec<u8>,
    /// The descriptors that came with it.
    pub fds: Vec<OwnedFd>,
}

/// The front-end's end of a vhost-user socket.
#[derive(Debug)]
pub struct Channel {
    socket: UnixStream,
    /// How long a message may take.
    pub limit: Duration,
    /// When all of them must be over, if there is such a moment: a backend that sends what nobody asked for, again and
    /// again, must not keep its front-end for ever.
    pub until: Option<Deadline>,
}

impl Channel {
    /// Speaks over `socket`.
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            limit: DEFAULT_LIMIT,
            until: None,
        }
    }

    /// The socket itself.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// How long the next message may take.
    pub fn left(&self) -> Duration {
        let until = self.until.map_or(self.limit, |until| until.left());
        self.limit.min(until)
    }

    /// Sends one message with a right header.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Timeout`], or as `sendmsg(2)`.
    pub fn send(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<()> {
        let size = u32::try_from(body.len())
            .map_err(|_| Error::Protocol("a body of 4 GiB and more".into()))?;
        let mut message = Vec::with_capacity(HEADER_SIZE + body.len());
        for word in [request, flags, size] {
            message.extend_from_slice(&word.to_ne_bytes());
        }
        message.extend_from_slice(body);
        self.send_bytes(&message, fds)
    }

    /// Sends any bytes, whether they are a message or not; the descriptors go with the first.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub fn send_bytes(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> Result<()> {
        let deadline = Deadline::after(self.left());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        while !bytes.is_empty() {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
                return Err(Error::Protocol(format!(
                    "{} descriptors in one message",
                    fds.len()
                )));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(sent) => {
                    bytes = &bytes[sent..];
                    fds = &[];
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !deadline.ready(&self.socket, PollFlags::OUT)? {
                        return Err(deadline.missed("room in the vhost-user socket"));
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    return Err(Error::Closed {
                        what: "sending a vhost-user message".into(),
                    });
                }
                Err(e) => return Err(Error::os("sending a vhost-user message")(e)),
            }
        }
        Ok(())
    }

    /// Receives one message.
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Timeout`], [`Error::Protocol`] for a size no message has, or as
    /// `recvmsg(2)`.
    pub fn receive(&self) -> Result<Message> {
        let deadline = Deadline::after(self.left());
        if let Some(until) = self.until.filter(Deadline::passed) {
            return Err(until.missed("a vhost-user message"));
        }
        let mut header = [0; HEADER_SIZE];
        let mut fds = Vec::new();
        self.fill(&mut header, &mut fds, &deadline)?;
        let word = |n: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|i| header[4 * n + i]));
        let size = word(2) as usize;
        if size > MAX_MSG_SIZE {
            return Err(Error::Protocol(format!("a message of {size} bytes")));
        }
        let mut body = vec![0; size];
        self.fill(&mut body, &mut fds, &deadline)?;
        Ok(Message {
            request: word(0),
            flags: word(1),
            body,
            fds,
        })
    }

    /// Waits until the backend closes the socket; what it still sends is thrown away.
    ///
    /// # Errors
    /// [`Error::Timeout`], or as `recvmsg(2)`.
    pub fn wait_closed(&self) -> Result<()> {
        let deadline = Deadline::after(self.left());
        let mut fds = Vec::new();
        let mut byte = [0];
        loop {
            // What it sends without a pause is no end.
            if deadline.passed() {
                return Err(deadline.missed("the backend to close the vhost-user socket"));
            }
            match self.fill(&mut byte, &mut fds, &deadline) {
                Err(Error::Closed { .. }) => return Ok(()),
                Err(Error::Timeout { .. }) => {
                    return Err(deadline.missed("the backend to close the vhost-user socket"));
                }
                other => other?,
            }
        }
    }

    fn fill(
        &self,
        mut buffer: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        deadline: &Deadline,
    ) -> Result<()> {
        while !buffer.is_empty() {
            match receive_some(&self.socket, buffer, fds) {
                Ok(0) => {
                    return Err(Error::Closed {
                        what: "waiting for a vhost-user message".into(),
                    });
                }
                Ok(n) => buffer = &mut buffer[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !deadline.ready(&self.socket, PollFlags::IN)? {
                        return Err(deadline.missed("a vhost-user message"));
                    }
                }
                Err(Errno::CONNRESET) => {
                    return Err(Error::Closed {
                        what: "waiting for a vhost-user message".into(),
                    });
                }
                Err(e) => return Err(Error::os("receiving a vhost-user message")(e)),
            }
        }
        Ok(())
    }
}

/// One `recvmsg(2)` that does not block; descriptors are added to `fds`.
pub(crate) fn receive_some(
    socket: &UnixStream,
    buffer: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> rustix::io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}
