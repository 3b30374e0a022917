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
use super::outgoing_message::FrontEndRequest;
use super::read_limit::ReadLimit;
use super::{DisplayError, DisplayRole};
use crate::backend::EventSet;
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::protocol::DisplayInfo;
use crate::gpu::scanout::{DmabufSupport, PendingUpdates};

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
    socket: Arc<UnixStream>,
    role: DisplayRole,
    sender: MessageSender,
    receiver: MessageReceiver,
    read_limit: ReadLimit,
    negotiation: Negotiation,
    unanswered: VecDeque<FrontEndRequest>,
    /// When the first of the unanswered requests expires.
    deadline: Option<Instant>,
    silent_since: Option<Instant>,
    /// The last reply to `GET_DISPLAY_INFO`.
    display_info: Option<DisplayInfo>,
    blocked: bool,
}

impl DisplayConnection {
    /// Starts the negotiation on `socket`.
    pub(super) fn new(socket: UnixStream, role: DisplayRole, now: Instant) -> Self {
        // A smaller buffer works too.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let mut connection = Self {
            socket: Arc::new(socket),
            role,
            sender: MessageSender::default(),
            receiver: MessageReceiver::default(),
            read_limit: ReadLimit::default(),
            negotiation: Negotiation::Pending,
            unanswered: VecDeque::new(),
            deadline: None,
            silent_since: None,
            display_info: None,
            blocked: false,
        };
        connection.send_request(FrontEndRequest::Features, now);
        connection
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
        self.sender.request(request);
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
        scanout == 0
            || self
                .display_info
                .is_some_and(|info| info.enabled(scanout).is_some())
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
        (&self.socket, interest)
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
        let Some(message) = self.receiver.receive(&self.socket, may_resize)? else {
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
        self.sender.request(FrontEndRequest::Resized(result));
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
                self.display_info = Some(*info);
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
        match self.sender.send(&self.socket, updates, now) {
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
