// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to the daemon, which carries out one message of the front-end at a time.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use vhost::vhost_user::message::FrontendReq;

use crate::backend::transport::forwarder::{MessageForwarder, ProxyError, Received};

const GET_FEATURES: u32 = FrontendReq::GET_FEATURES as u32;

/// How far the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Execution {
    Waiting,
    /// It has carried out all that it was sent.
    Done,
    /// It closed the connection.
    Closed,
}

/// The daemon's end of the proxy.
pub(super) struct DaemonLink {
    socket: UnixStream,
    queue: VecDeque<MessageForwarder>,
    receiving: MessageForwarder,
    replies: Vec<Vec<u8>>,
    /// Replies to `GET_FEATURES` that are to come; the last is the proxy's own.
    due: usize,
}

impl DaemonLink {
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            receiving: MessageForwarder::default(),
            replies: Vec::new(),
            due: 0,
        }
    }

    pub(super) fn poll_fd(&self) -> PollFd<'_> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.queue.is_empty());
        PollFd::new(&self.socket, flags)
    }

    /// Has the daemon carry out messages, whose bytes follow each other. The descriptors go with the first byte.
    pub(super) fn push(&mut self, request: u32, bytes: Vec<u8>, fds: Vec<OwnedFd>) {
        self.due += usize::from(request == GET_FEATURES);
        self.queue.push_back(MessageForwarder::outgoing(bytes, fds));
    }

    /// Has the daemon say when it has carried out all messages so far: not every message is answered, but this question is.
    pub(super) fn finish(&mut self, question: Vec<u8>) {
        self.push(GET_FEATURES, question, Vec::new());
    }

    /// Sends and receives what can be without blocking.
    pub(super) fn drive(&mut self) -> Result<Execution, ProxyError> {
        let mut is_closed = false;
        while let Some(message) = self.queue.front_mut() {
            match message.send(&self.socket) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(Errno::AGAIN) => break,
                // Its last reply may still be there.
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    is_closed = true;
                    break;
                }
                Err(error) => return Err(ProxyError::Send(error.into())),
            }
        }
        while self.due > 0 {
            match self.receiving.receive(&self.socket)? {
                Received::Some if self.receiving.is_complete() => self.take_reply(),
                Received::Some => {}
                Received::Nothing if is_closed => return Ok(Execution::Closed),
                Received::Nothing => return Ok(Execution::Waiting),
                Received::Closed => return Ok(Execution::Closed),
            }
        }
        Ok(Execution::Done)
    }

    fn take_reply(&mut self) {
        let reply = std::mem::take(&mut self.receiving);
        self.due -= usize::from(reply.request() == Some(GET_FEATURES));
        if self.due > 0 || reply.request() != Some(GET_FEATURES) {
            self.replies.push(reply.into_bytes());
        }
    }

    /// The replies to the messages that were carried out, but not to the proxy's own.
    pub(super) fn take_replies(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.replies)
    }
}
