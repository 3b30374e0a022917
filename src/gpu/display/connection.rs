// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A connected display socket: negotiation, queries and their replies, and time limits.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use display_protocol::{Features, Resize, ResizeResult};
use rustix::net::sockopt;

use super::dmabuf_ack::PixelFallback;
use super::message_receiver::{Incoming, MessageReceiver, Reply};
use super::message_sender::{MessageSender, SendProgress};
use super::outgoing_message::{FrontEndRequest, OutgoingMessage};
use super::read_limit::ReadLimit;
use super::stream::{KeptStream, LeftStream, Stream};
use super::{DisplayError, DisplayRole};
use crate::backend::EventSet;
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::kept_state::{KeptRequest, StreamRecord};
use crate::gpu::protocol::DisplayInfo;
use crate::gpu::scanout::{DmabufSupport, PendingUpdates, Scanouts};

/// How long a reply is awaited; the driver waits as long.
pub(crate) const REPLY_LIMIT: Duration = Duration::from_secs(3);
/// After how long a front-end that did not reply is asked again.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);
/// Bytes that the socket is to buffer: a frame goes out in rounds of it, and each wakes both sides.
/// (Twice the default, and the most that an unprivileged process may have.)
const SEND_BUFFER: usize = 416 << 10;
/// Most queries without a reply.
pub(super) const MAX_UNANSWERED: usize = 8;
/// Most answers to a console that wait for it to read, before no more of its requests are read.
const MAX_ANSWERS: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Negotiation {
    /// `GET_PROTOCOL_FEATURES` is not answered yet: nothing else is sent.
    Pending,
    /// These features are in use.
    Done(Features),
}

impl Negotiation {
    fn has(self, feature: Features) -> bool {
        match self {
            Self::Pending => false,
            Self::Done(features) => features.contains(feature),
        }
    }
}

/// What was not answered in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expired {
    /// A query.
    pub(crate) query: bool,
    /// A `DMABUF_UPDATE`, and what follows from that.
    pub(crate) dmabuf_update: Option<PixelFallback>,
}

/// What came by the socket.
#[derive(Debug)]
pub(super) enum Received {
    /// Nothing more.
    Nothing,
    /// Something that replies to no pending query.
    Other,
    /// The reply to the pending query.
    Reply(DisplayReply),
    /// A console asks for this, and [awaits an answer](DisplayConnection::answer_resize).
    Resize(Resize),
}

/// A connected display.
pub(super) struct DisplayConnection {
    stream: Stream,
    role: DisplayRole,
    sender: MessageSender,
    receiver: MessageReceiver,
    read_limit: ReadLimit,
    negotiation: Negotiation,
    unanswered: VecDeque<FrontEndRequest>,
    /// When the first of the unanswered requests expires.
    deadline: Option<Instant>,
    silent_since: Option<Instant>,
    /// The scanouts that the last reply to `GET_DISPLAY_INFO` has a display for: a bit for each.
    heads: u16,
    blocked: bool,
}

impl DisplayConnection {
    /// Starts the negotiation on `socket`. A successor goes on with it by what is `kept`.
    pub(super) fn new(
        socket: UnixStream,
        role: DisplayRole,
        kept: Option<KeptStream>,
        now: Instant,
    ) -> Self {
        // A smaller buffer works too.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let mut connection = Self {
            stream: match kept {
                Some(kept) => Stream::begin_kept(socket, kept),
                None => Stream::new(socket),
            },
            role,
            sender: MessageSender::default(),
            receiver: MessageReceiver::default(),
            read_limit: ReadLimit::default(),
            negotiation: Negotiation::Pending,
            unanswered: VecDeque::new(),
            deadline: None,
            silent_since: None,
            heads: 0,
            blocked: false,
        };
        connection.send_request(FrontEndRequest::Features, now);
        connection
    }

    /// Goes on where a predecessor was: with the rest of its message, whose pixels are those of `scanouts`, and with the
    /// requests that are not answered. Their time begins anew.
    pub(super) fn resume(
        socket: UnixStream,
        role: DisplayRole,
        kept: KeptStream,
        left: LeftStream,
        scanouts: &Scanouts,
        now: Instant,
    ) -> Self {
        let LeftStream {
            state,
            waiting,
            incoming,
            message,
        } = left;
        let message = message
            .and_then(|(message, sent)| OutgoingMessage::resume(message.head(), sent, scanouts));
        let unanswered: VecDeque<_> = state.unanswered.into_iter().map(From::from).collect();
        Self {
            stream: Stream::resume(socket, kept, incoming.taken),
            role,
            sender: MessageSender::resume(waiting, message),
            receiver: MessageReceiver::resume(incoming.bytes),
            read_limit: ReadLimit::default(),
            negotiation: match state.features {
                Some(features) => Negotiation::Done(Features(features)),
                None => Negotiation::Pending,
            },
            deadline: (!unanswered.is_empty()).then(|| now + REPLY_LIMIT),
            unanswered,
            silent_since: state.is_silent.then_some(now),
            heads: state.heads,
            blocked: false,
        }
    }

    /// Closes the socket. Returns what the next one may be kept by.
    pub(super) fn close(self) -> Option<KeptStream> {
        self.stream.close()
    }

    /// Records how far it is, while `query` is awaited, for the successor that gets the socket that is kept as `id`.
    pub(super) fn record(&self, id: u64, query: Option<DisplayQuery>) {
        if !self.stream.is_kept() {
            return;
        }
        let unanswered = self.unanswered.iter();
        self.stream.put_state(&StreamRecord {
            socket: id,
            features: match self.negotiation {
                Negotiation::Pending => None,
                Negotiation::Done(features) => Some(features.0),
            },
            heads: self.heads,
            is_silent: self.silent_since.is_some(),
            query: query.map(|query| match query {
                DisplayQuery::DisplayInfo => KeptRequest::DisplayInfo,
                DisplayQuery::Edid(scanout) => KeptRequest::Edid(scanout),
            }),
            unanswered: unanswered
                .filter_map(|request| KeptRequest::try_from(*request).ok())
                .collect(),
        });
    }

    /// Which dmabufs it can be passed, if there are any.
    pub(super) fn dmabuf_support(&self) -> DmabufSupport {
        if self.sender.dmabuf_ack().is_unresponsive() {
            return DmabufSupport::None;
        }
        match self.negotiation {
            Negotiation::Done(features) if !features.contains(Features::DMABUF2) => {
                DmabufSupport::LinearOnly
            }
            Negotiation::Done(_) | Negotiation::Pending => DmabufSupport::Modifiers,
        }
    }

    fn send_request(&mut self, request: FrontEndRequest, now: Instant) {
        self.sender.request(request, &self.stream);
        if request.has_reply() {
            self.unanswered.push_back(request);
            self.deadline.get_or_insert(now + REPLY_LIMIT);
        }
    }

    /// Whether it is to be asked: `false` while it owes many replies, or left one out of late.
    pub(super) fn can_query(&mut self, now: Instant) -> bool {
        // A driver that starts over before it has its reply asks again.
        if self.unanswered.len() >= MAX_UNANSWERED {
            return false;
        }
        if let Some(since) = self.silent_since {
            if now.saturating_duration_since(since) < RETRY_AFTER {
                return false;
            }
            self.silent_since = None;
        }
        true
    }

    /// Sends the next request that `query` needs, once the negotiation is done.
    pub(super) fn send_query(&mut self, query: DisplayQuery, now: Instant) {
        if self.negotiation == Negotiation::Pending {
            return;
        }
        let edid = self.negotiation.has(Features::EDID);
        match query {
            DisplayQuery::Edid(scanout) if edid && self.has_display(scanout) => {
                self.send_request(FrontEndRequest::Edid(scanout), now);
            }
            DisplayQuery::Edid(_) | DisplayQuery::DisplayInfo => {
                self.send_request(FrontEndRequest::DisplayInfo, now);
            }
        }
    }

    /// Whether the front-end is known to have a display for `scanout`: it does not answer `GET_EDID`
    /// for one that it has not. The first one always exists.
    fn has_display(&self, scanout: u32) -> bool {
        let bit = 1_u16.checked_shl(scanout).unwrap_or(0);
        scanout == 0 || self.heads & bit != 0
    }

    /// The socket, and the events to watch it for.
    pub(super) fn interest(&self) -> (&Arc<UnixStream>, EventSet) {
        let mut interest = EventSet::empty();
        if !self.is_read_later() {
            interest |= EventSet::IN;
        }
        if self.blocked {
            interest |= EventSet::OUT;
        }
        (self.stream.socket(), interest)
    }

    /// When [`DisplayConnection::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let update = self.sender.dmabuf_ack().deadline();
        let read = self.read_limit.deadline();
        let deadlines = [self.deadline, update, read];
        deadlines.into_iter().flatten().min()
    }

    /// Gives up waiting for what is late.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        self.read_limit.expire(now);
        let dmabuf_update = self.sender.expire(now);
        let query = self.deadline.is_some_and(|at| at <= now);
        if query {
            self.deadline = None;
            self.silent_since = Some(now);
            if self.negotiation == Negotiation::Pending {
                self.negotiation = Negotiation::Done(Features::default());
            }
        }
        Expired {
            query,
            dmabuf_update,
        }
    }

    /// Reads the next message, while `pending` is the query whose reply is awaited.
    pub(super) fn receive(
        &mut self,
        pending: Option<DisplayQuery>,
        now: Instant,
    ) -> Result<Received, DisplayError> {
        if self.is_read_later() {
            return Ok(Received::Nothing);
        }
        let may_resize = self.negotiation.has(Features::RESIZE);
        let Some(message) = self.receiver.receive(&mut self.stream, may_resize)? else {
            return Ok(Received::Nothing);
        };
        if self.role == DisplayRole::Console {
            self.read_limit.count(now);
        }
        match message {
            Incoming::Resize(resize) => Ok(Received::Resize(resize)),
            Incoming::Reply(reply) if !self.may_reply(&reply) => Err(DisplayError::Unasked),
            Incoming::Reply(reply) => {
                let replied = self.take_reply(reply, pending, now);
                Ok(replied.map_or(Received::Other, Received::Reply))
            }
        }
    }

    /// Whether this reply is tolerated: a VMM's may be late, or answer something else.
    fn may_reply(&self, reply: &Reply) -> bool {
        let is_asked = || self.unanswered.iter().any(|asked| reply.answers(asked));
        self.role != DisplayRole::Console || is_asked()
    }

    /// Whether a console has sent more than is read now: too much in a short time, or without reading the answers.
    fn is_read_later(&self) -> bool {
        let answers = self.sender.waiting_requests();
        let is_console = self.role == DisplayRole::Console;
        is_console && (self.read_limit.is_reached() || answers >= MAX_ANSWERS)
    }

    /// Answers [`Received::Resize`].
    pub(super) fn answer_resize(&mut self, result: ResizeResult) {
        let answer = FrontEndRequest::Resized(result);
        self.sender.request(answer, &self.stream);
    }

    fn take_reply(
        &mut self,
        reply: Reply,
        pending: Option<DisplayQuery>,
        now: Instant,
    ) -> Option<DisplayReply> {
        if matches!(reply, Reply::DmabufUpdated) {
            self.sender.dmabuf_update_answered();
            return None;
        }
        // Front-ends answer in order: what this one left out before, it will not answer.
        let position = self.unanswered.iter().position(|r| reply.answers(r))?;
        let request = self.unanswered.drain(..=position).next_back();
        self.silent_since = None;
        self.deadline = (!self.unanswered.is_empty()).then(|| now + REPLY_LIMIT);
        match reply {
            Reply::Features(offered) => {
                self.accept_features(offered, now);
                if let Some(query) = pending {
                    self.send_query(query, now);
                }
                None
            }
            Reply::DisplayInfo(info) => {
                self.heads = heads_of(&info);
                let edid = self.negotiation.has(Features::EDID);
                match pending? {
                    DisplayQuery::Edid(id) if edid && info.enabled(id).is_some() => {
                        self.send_request(FrontEndRequest::Edid(id), now);
                        None
                    }
                    DisplayQuery::Edid(_) | DisplayQuery::DisplayInfo => {
                        Some(DisplayReply::DisplayInfo(info))
                    }
                }
            }
            Reply::Edid(edid) => match (pending?, request?) {
                (DisplayQuery::Edid(asked), FrontEndRequest::Edid(id)) if asked == id => {
                    Some(edid.map_or(DisplayReply::Nothing, DisplayReply::Edid))
                }
                _ => None,
            },
            Reply::DmabufUpdated => None,
        }
    }

    fn accept_features(&mut self, offered: Features, now: Instant) {
        let known = match self.role {
            DisplayRole::Vmm { has_dmabufs: false } => Features::EDID,
            DisplayRole::Vmm { has_dmabufs: true } => Features::EDID.union(Features::DMABUF2),
            DisplayRole::Console => Features::RESIZE,
        };
        let accepted = offered.intersection(known);
        self.send_request(FrontEndRequest::SetFeatures(accepted), now);
        self.negotiation = Negotiation::Done(accepted);
    }

    /// Sends as much as the socket takes: requests, then `updates` once the negotiation is done.
    pub(super) fn send(
        &mut self,
        updates: Option<PendingUpdates<'_>>,
        now: Instant,
    ) -> Result<(), DisplayError> {
        let updates = updates.filter(|_| self.negotiation != Negotiation::Pending);
        match self.sender.send(&mut self.stream, updates, now) {
            Ok(progress) => {
                self.blocked = progress == SendProgress::Blocked;
                Ok(())
            }
            Err(e) => Err(match e.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => DisplayError::Closed,
                _ => e.into(),
            }),
        }
    }

    /// See [`Display::kept_messages`](super::Display::kept_messages).
    #[cfg(feature = "fuzzing")]
    pub(super) fn kept_messages(&self) -> usize {
        let waiting = self.sender.waiting_requests();
        waiting.saturating_add(self.unanswered.len())
    }

    #[cfg(test)]
    pub(super) fn awaits_dmabuf_ack(&self) -> bool {
        self.sender.dmabuf_ack().is_pending()
    }
}

/// The scanouts with a display: a bit for each.
fn heads_of(info: &DisplayInfo) -> u16 {
    let enabled = (0..u16::BITS).filter(|scanout| info.enabled(*scanout).is_some());
    enabled.fold(0, |heads, scanout| heads | 1 << scanout)
}
