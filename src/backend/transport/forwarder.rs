// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A vhost-user message on its way, whole with its file descriptors, through non-blocking sockets.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    self, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use super::backend_channel::BackendChannel;
use super::journal::RecordError;
use super::message_header::HEADER;
use super::sanitize::{RequestError, RequestSanitizer};

/// Limit on a payload. The crate `vhost` accepts 4 KiB.
pub(super) const PAYLOAD_MAX: u32 = 64 * 1024;
/// Messages of one direction that are forwarded before signals and the other direction: a front-end can send without
/// end.
pub(super) const MAX_FORWARDED_MESSAGES: usize = 64;
/// Limit on the file descriptors of a message, as in the crate `vhost`.
pub(super) const FDS_MAX: usize = 32;

/// Why messages cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("a vhost-user message of {0} bytes came, more than {PAYLOAD_MAX}")]
    TooLarge(u32),
    #[error(
        "a vhost-user message came with more than {FDS_MAX} file descriptors, or with more than this \
         process may still open (RLIMIT_NOFILE)"
    )]
    TooManyFds,
    #[error(transparent)]
    Refused(#[from] RequestError),
    #[error("cannot receive a vhost-user message: {0}")]
    Receive(#[source] io::Error),
    #[error("cannot send a vhost-user message: {0}")]
    Send(#[source] io::Error),
    #[error("cannot go on for the process before this one: {0}")]
    Resume(#[from] RecordError),
}

/// Why a direction stopped passing messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ForwardResult {
    Waiting,
    /// More may be there.
    Limit,
    SourceClosed,
    SinkClosed,
}

/// One direction of the connection, with the one message under way.
#[derive(Default)]
pub(super) struct MessageForwarder {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The whole message was received.
    complete: bool,
    sent: usize,
}

impl MessageForwarder {
    /// A message to send.
    pub(super) fn outgoing(bytes: Vec<u8>, fds: Vec<OwnedFd>) -> Self {
        Self {
            bytes,
            fds,
            complete: true,
            sent: 0,
        }
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    fn header_field(&self, index: usize) -> Option<u32> {
        let header = self.bytes.first_chunk::<HEADER>()?;
        let field = header.chunks_exact(4).nth(index)?.first_chunk()?;
        Some(u32::from_ne_bytes(*field))
    }

    pub(super) fn request(&self) -> Option<u32> {
        self.header_field(0)
    }

    /// Puts another whole message in the place of this one.
    pub(super) fn replace(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
        self.fds.clear();
    }

    /// The number of the request, if it is not for the daemon: see [`RequestSanitizer::declines`].
    pub(super) fn declined(
        &self,
        sanitizer: &RequestSanitizer,
        channel: &BackendChannel,
    ) -> Option<u32> {
        let is_declined = sanitizer.declines(&self.bytes, &self.fds, channel.maps(&self.fds));
        self.request().filter(|_| is_declined)
    }

    /// The descriptors that came with the message and were not sent on.
    pub(super) fn fds(&self) -> &[OwnedFd] {
        &self.fds
    }

    fn payload_size(&self) -> Option<u32> {
        self.header_field(2)
    }

    pub(super) fn sanitize(&mut self, sanitizer: &mut RequestSanitizer) -> Result<(), ProxyError> {
        let Some(request) = self.request() else {
            return Ok(());
        };
        if let Some(payload) = self.bytes.get_mut(HEADER..) {
            let around = sanitizer.request(request, payload, &mut self.fds)?;
            self.bytes.splice(..0, around.before);
            self.bytes.extend(around.after);
        }
        Ok(())
    }

    pub(super) fn note_request(&self, channel: &mut BackendChannel) {
        if let (Some(request), Some(payload)) = (self.request(), self.bytes.get(HEADER..)) {
            channel.note(request, payload, &self.fds);
        }
    }

    pub(super) fn note_reply(&self, sanitizer: &mut RequestSanitizer) {
        if let (Some(request), Some(payload)) = (self.request(), self.bytes.get(HEADER..)) {
            sanitizer.reply(request, payload);
        }
    }

    /// Length of the message, as far as known. Refuses a payload of more than [`PAYLOAD_MAX`].
    fn length(&self) -> Result<usize, ProxyError> {
        match self.payload_size() {
            Some(size) if size > PAYLOAD_MAX => Err(ProxyError::TooLarge(size)),
            size => Ok(HEADER + size.map_or(0, |size| size as usize)),
        }
    }

    /// Whether no message is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Forwards messages until a side would block or is gone, or [`MAX_FORWARDED_MESSAGES`] were. `look` gets each whole
    /// message and may refuse it.
    pub(super) fn pump(
        &mut self,
        source: &UnixStream,
        sink: &UnixStream,
        mut look: impl FnMut(&mut Self) -> Result<(), ProxyError>,
    ) -> Result<ForwardResult, ProxyError> {
        let mut passed = 0;
        while passed < MAX_FORWARDED_MESSAGES {
            if self.is_complete() {
                match self.send(sink) {
                    Ok(()) => passed += 1,
                    Err(Errno::AGAIN) => return Ok(ForwardResult::Waiting),
                    Err(Errno::PIPE | Errno::CONNRESET) => return Ok(ForwardResult::SinkClosed),
                    Err(e) => return Err(ProxyError::Send(e.into())),
                }
                continue;
            }
            match self.receive(source)? {
                Received::Some if self.is_complete() => look(self)?,
                Received::Some => {}
                Received::Nothing => return Ok(ForwardResult::Waiting),
                Received::Closed => return Ok(ForwardResult::SourceClosed),
            }
        }
        Ok(ForwardResult::Limit)
    }

    /// Receives more of the message, and nothing of the next one.
    pub(super) fn receive(&mut self, source: &UnixStream) -> Result<Received, ProxyError> {
        let have = self.bytes.len();
        self.bytes.resize(self.length()?, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = net::recvmsg(
            source,
            &mut [IoSliceMut::new(
                self.bytes.get_mut(have..).unwrap_or_default(),
            )],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        );
        let got = received.as_ref().map_or(0, |message| message.bytes);
        self.bytes.truncate(have + got);
        let message = match received {
            Ok(message) if message.bytes == 0 => return Ok(Received::Closed),
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(e) => return Err(ProxyError::Receive(e.into())),
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.fds.extend(fds);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > FDS_MAX {
            return Err(ProxyError::TooManyFds);
        }
        let length = self.length()?;
        self.complete = self.bytes.len() == length;
        Ok(Received::Some)
    }

    /// Sends the rest of the message. Its descriptors go with the first byte.
    pub(super) fn send(&mut self, sink: &UnixStream) -> Result<(), Errno> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match net::sendmsg(sink, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            }
            self.fds.clear();
        }
        self.bytes.clear();
        self.complete = false;
        self.sent = 0;
        Ok(())
    }
}

pub(super) enum Received {
    Some,
    Nothing,
    Closed,
}
