// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sends messages to the front-end, one at a time, as far as it reads.

use std::collections::VecDeque;
use std::io;
use std::time::Instant;

use super::dmabuf_ack::{DmabufAck, PixelFallback};
use super::outgoing_message::{FrontEndRequest, OutgoingMessage};
use super::stream::Stream;
use crate::gpu::kept_state::KeptRequest;
use crate::gpu::renderer::PIECE_COST;
use crate::gpu::scanout::PendingUpdates;

/// Work after which sending pauses: the worker serves other events before it sends more. The unit is a byte sent.
const MAX_SEND_WORK: u64 = 64 << 20;

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
    /// Goes on with the message and the requests that a predecessor left.
    pub(super) fn resume(requests: Vec<KeptRequest>, current: Option<OutgoingMessage>) -> Self {
        Self {
            requests: requests.into_iter().map(From::from).collect(),
            current,
            ..Self::default()
        }
    }

    /// Sends `request` after those before it, and ahead of all updates.
    pub(super) fn request(&mut self, request: FrontEndRequest, stream: &Stream) {
        self.requests.push_back(request);
        self.record(stream);
    }

    /// Records the requests that wait, for a successor.
    fn record(&self, stream: &Stream) {
        let kept = self.requests.iter();
        stream.put_waiting(kept.filter_map(|request| KeptRequest::try_from(*request).ok()));
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

    fn next(
        &mut self,
        updates: Option<&mut PendingUpdates<'_>>,
        stream: &Stream,
    ) -> Option<OutgoingMessage> {
        match self.requests.pop_front() {
            Some(request) => {
                self.record(stream);
                Some(OutgoingMessage::request(request))
            }
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

    /// Sends as much as the socket of `stream` takes.
    pub(super) fn send(
        &mut self,
        stream: &mut Stream,
        mut updates: Option<PendingUpdates<'_>>,
        now: Instant,
    ) -> io::Result<SendProgress> {
        let mut work: u64 = 0;
        loop {
            if self.current.is_none() {
                self.current = self.next(updates.as_mut(), stream);
                if let Some(message) = &self.current {
                    let may_be_lost = message.is_sent_again() && message.fits_one_call();
                    stream.begin(message.head(), message.len(), may_be_lost);
                }
            }
            let Some(message) = &mut self.current else {
                return Ok(SendProgress::Done);
            };
            let result = message.send(stream);
            work = work.saturating_add(message.take_pieces().saturating_mul(PIECE_COST));
            match result {
                Ok(sent) => work = work.saturating_add(sent as u64),
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
            } else {
                stream.was_cut(message.head(), message.sent());
            }
            if work >= MAX_SEND_WORK {
                return Ok(SendProgress::Blocked);
            }
        }
    }
}
