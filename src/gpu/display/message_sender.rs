//! Sends messages to the front-end, one at a time, as far as it reads.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::dmabuf_ack::{DmabufAck, PixelFallback};
use super::outgoing_message::{FrontEndRequest, OutgoingMessage};
use crate::gpu::scanout::PendingUpdates;

/// Bytes after which sending pauses: the worker serves other events before it sends more.
const MAX_SEND_BYTES: usize = 64 << 20;

/// How far sending came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendProgress {
    /// All is sent.
    Done,
    /// The rest is to be sent when the socket takes more.
    Blocked,
}

/// The message that is being sent, and the requests that come after it.
#[derive(Default)]
pub(super) struct MessageSender {
    requests: VecDeque<FrontEndRequest>,
    current: Option<OutgoingMessage>,
    dmabuf_ack: DmabufAck,
}

impl MessageSender {
    /// Sends `request` after those before it, and ahead of all updates.
    pub(super) fn request(&mut self, request: FrontEndRequest) {
        self.requests.push_back(request);
    }

    /// How many requests wait to be sent.
    pub(super) fn waiting_requests(&self) -> usize {
        self.requests.len()
    }

    /// The answer to `DMABUF_UPDATE`.
    pub(super) fn dmabuf_ack(&self) -> &DmabufAck {
        &self.dmabuf_ack
    }

    /// An answer to `DMABUF_UPDATE` came.
    pub(super) fn dmabuf_update_answered(&mut self) {
        self.dmabuf_ack.answered();
    }

    /// Gives up waiting for the answer to `DMABUF_UPDATE` if it is late.
    pub(super) fn expire(&mut self, now: Instant) -> Option<PixelFallback> {
        self.dmabuf_ack.expire(now)
    }

    fn next(&mut self, updates: Option<&mut PendingUpdates<'_>>) -> Option<OutgoingMessage> {
        match self.requests.pop_front() {
            Some(request) => Some(OutgoingMessage::request(request)),
            None => {
                let update = updates?.take_next(self.dmabuf_ack.is_pending())?;
                let message = OutgoingMessage::update(update);
                if message.is_dmabuf_update() {
                    self.dmabuf_ack.sending();
                }
                Some(message)
            }
        }
    }

    /// Sends as much as `socket` takes.
    pub(super) fn send(
        &mut self,
        socket: &UnixStream,
        mut updates: Option<PendingUpdates<'_>>,
        now: Instant,
    ) -> io::Result<SendProgress> {
        let mut bytes: usize = 0;
        loop {
            if self.current.is_none() {
                self.current = self.next(updates.as_mut());
            }
            let Some(message) = &mut self.current else {
                return Ok(SendProgress::Done);
            };
            match message.send(socket) {
                Ok(sent) => bytes = bytes.saturating_add(sent),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(SendProgress::Blocked);
                }
                Err(e) => return Err(e),
            }
            if message.is_sent() {
                if message.is_dmabuf_update() {
                    self.dmabuf_ack.sent(now);
                }
                self.current = None;
            }
            if bytes >= MAX_SEND_BYTES {
                return Ok(SendProgress::Blocked);
            }
        }
    }
}
