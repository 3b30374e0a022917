//! A connected display socket: negotiation, queries and their replies, and time limits.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::DisplayError;
use super::dmabuf_ack::PixelFallback;
use super::message_sender::{MessageSender, SendProgress};
use super::outgoing_message::FrontEndRequest;
use super::reply_receiver::{Reply, ReplyReceiver};
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

/// `VHOST_USER_GPU_PROTOCOL_F_EDID`, as a mask: the front-end answers `GET_EDID`.
const PROTOCOL_F_EDID: u64 = 1 << 0;
/// `VHOST_USER_GPU_PROTOCOL_F_DMABUF2`, as a mask: the front-end takes `DMABUF_SCANOUT2`.
const PROTOCOL_F_DMABUF2: u64 = 1 << 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Negotiation {
    /// `GET_PROTOCOL_FEATURES` is not answered yet: nothing else is sent.
    Pending,
    Done {
        edid: bool,
        dmabuf2: bool,
    },
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
}

/// A connected display.
pub(super) struct DisplayConnection {
    socket: Arc<UnixStream>,
    /// Whether the renderer exports dmabufs.
    has_dmabufs: bool,
    sender: MessageSender,
    receiver: ReplyReceiver,
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
    pub(super) fn new(socket: UnixStream, has_dmabufs: bool, now: Instant) -> Self {
        // A smaller buffer works too.
        let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let mut connection = Self {
            socket: Arc::new(socket),
            has_dmabufs,
            sender: MessageSender::default(),
            receiver: ReplyReceiver::default(),
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
            Negotiation::Done { dmabuf2: false, .. } => DmabufSupport::LinearOnly,
            Negotiation::Done { dmabuf2: true, .. } | Negotiation::Pending => {
                DmabufSupport::Modifiers
            }
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
        let Negotiation::Done { edid, .. } = self.negotiation else {
            return;
        };
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
        let interest = if self.blocked {
            EventSet::IN | EventSet::OUT
        } else {
            EventSet::IN
        };
        (&self.socket, interest)
    }

    /// When [`DisplayConnection::expire`] is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let update = self.sender.dmabuf_ack().deadline();
        self.deadline.into_iter().chain(update).min()
    }

    /// Gives up waiting for what is late.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let dmabuf_update = self.sender.expire(now);
        let query = self.deadline.is_some_and(|at| at <= now);
        if query {
            self.deadline = None;
            self.silent_since = Some(now);
            if self.negotiation == Negotiation::Pending {
                self.negotiation = Negotiation::Done {
                    edid: false,
                    dmabuf2: false,
                };
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
        let Some(reply) = self.receiver.receive(&self.socket)? else {
            return Ok(Received::Nothing);
        };
        let replied = self.take_reply(reply, pending, now);
        Ok(replied.map_or(Received::Other, Received::Reply))
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
                let edid = matches!(self.negotiation, Negotiation::Done { edid: true, .. });
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

    fn accept_features(&mut self, offered: u64, now: Instant) {
        let mut known = PROTOCOL_F_EDID;
        if self.has_dmabufs {
            known |= PROTOCOL_F_DMABUF2;
        }
        let accepted = offered & known;
        self.send_request(FrontEndRequest::SetFeatures(accepted), now);
        self.negotiation = Negotiation::Done {
            edid: accepted & PROTOCOL_F_EDID != 0,
            dmabuf2: accepted & PROTOCOL_F_DMABUF2 != 0,
        };
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

    #[cfg(test)]
    pub(super) fn awaits_dmabuf_ack(&self) -> bool {
        self.sender.dmabuf_ack().is_pending()
    }
}
