// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A display: the VMM's or a console's socket, what it is asked and what it is shown
//! (QEMU, docs/interop/vhost-user-gpu.rst; the crate `display_protocol` for consoles).
//!
//! Nothing here blocks. Queries are sent and their replies come with a later event; updates go out as
//! far as the display reads, the rest when it reads again. A device may have several displays, each
//! at its own pace: what one is still to be sent is kept by the [scanouts](crate::gpu::scanout).
//!
//! The VMM is trusted, and knows the sizes of the guest's heads. A console is neither: it is sent pixels only, asked
//! nothing, and what it sends is bounded in rate.

mod connection;
mod dmabuf_ack;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz_display;
mod message_receiver;
mod message_sender;
mod outgoing_message;
mod read_limit;
mod stream;

pub(crate) use connection::Expired;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use connection::REPLY_LIMIT;
pub(crate) use dmabuf_ack::{ACK_LIMIT, PixelFallback};
pub(crate) use error::DisplayError;
pub(crate) use stream::KeptStream;

use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::continuity::FdId;
use crate::backend::{DisplaySocket, EventSet};
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::kept_state::{KeptRequest, KeptStateError, RecordError};
use crate::gpu::scanout::{DmabufSupport, PendingUpdates, Scanouts};
use connection::{DisplayConnection, Received};
use display_protocol::{Resize, ResizeResult};
use outgoing_message::OutgoingMessage;
use stream::LeftStream;

/// Whose display it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DisplayRole {
    /// The VMM's.
    Vmm {
        /// Whether the renderer exports dmabufs, which it is passed.
        has_dmabufs: bool,
    },
    /// A console's.
    Console,
}

impl Default for DisplayRole {
    /// The VMM's, without dmabufs.
    fn default() -> Self {
        Self::Vmm { has_dmabufs: false }
    }
}

/// State of the driver's query; at most one is outstanding.
#[derive(Debug, Default)]
enum Query {
    /// There is none.
    #[default]
    None,
    /// Its reply is awaited.
    Pending(DisplayQuery),
    /// Its reply is here.
    Replied(DisplayReply),
}

/// A display, connected or not.
#[derive(Default)]
pub(crate) struct Display {
    role: DisplayRole,
    connection: Option<DisplayConnection>,
    query: Query,
    /// What a console asked for and was not answered yet. No more than is read at a time.
    resizes: VecDeque<Resize>,
    /// What its socket is kept as for a successor.
    id: Option<FdId>,
    /// By what its next socket may be kept.
    kept: Option<KeptStream>,
    /// What a predecessor left.
    left: Option<LeftStream>,
}

impl Display {
    /// A display that is not connected.
    pub(crate) fn new(role: DisplayRole) -> Self {
        Self {
            role,
            ..Self::default()
        }
    }

    /// The VMM's display, which is not connected. Its socket is `kept` for a successor, and may be one that a predecessor
    /// used.
    ///
    /// # Errors
    /// If what a predecessor left cannot be used.
    pub(crate) fn resume(role: DisplayRole, kept: KeptStream) -> Result<Self, KeptStateError> {
        let mut left = kept.left()?;
        let message = left.as_ref().and_then(|left| left.message.as_ref());
        if let Some((message, sent)) = message {
            let is_over = OutgoingMessage::is_over(message.head(), *sent);
            let is_over = is_over.ok_or(KeptStateError::Record {
                name: "message to display",
                id: 0,
                source: RecordError::Field("head"),
            })?;
            if let Some(left) = left.as_mut().filter(|_| is_over) {
                left.message = None;
            }
        }
        Ok(Self {
            role,
            left,
            kept: Some(kept),
            ..Self::default()
        })
    }

    /// Whether a predecessor had a display.
    pub(crate) fn had_display(&self) -> bool {
        self.left.is_some()
    }

    /// Whether its socket is open.
    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Which dmabufs the display can be passed now. The protocol has a feature only for those with
    /// modifiers; every front-end takes the others, unless it does not answer in time.
    pub(crate) fn dmabuf_support(&self) -> DmabufSupport {
        let DisplayRole::Vmm { has_dmabufs: true } = self.role else {
            return DmabufSupport::None;
        };
        match &self.connection {
            None => DmabufSupport::default(),
            Some(connection) => connection.dmabuf_support(),
        }
    }

    /// Uses `socket` from now on and closes the one before.
    pub(crate) fn attach(&mut self, socket: UnixStream, now: Instant) {
        self.detach();
        self.connection = Some(DisplayConnection::new(socket, self.role, None, now));
    }

    /// Uses the VMM's `socket` from now on and closes the one before. Returns whether it is the one that a predecessor
    /// used: then the display goes on where that was, and knows what it was told. A message that was cut is sent to its
    /// end, with the pixels of `scanouts`.
    pub(crate) fn attach_vmm(
        &mut self,
        socket: DisplaySocket,
        scanouts: &Scanouts,
        now: Instant,
    ) -> bool {
        self.detach();
        let left = self.left.take();
        let Some(id) = socket.id() else {
            self.attach(socket.into_socket(), now);
            return false;
        };
        let socket = socket.into_socket();
        self.id = Some(id);
        let connection = match (self.kept.take(), left.filter(|left| left.is_of(id))) {
            (Some(kept), Some(left)) => {
                if let Some(query) = left.state.query {
                    self.query = match query {
                        KeptRequest::Edid(scanout) => Query::Pending(DisplayQuery::Edid(scanout)),
                        _ => Query::Pending(DisplayQuery::DisplayInfo),
                    };
                }
                let role = self.role;
                self.connection = Some(DisplayConnection::resume(
                    socket, role, kept, left, scanouts, now,
                ));
                return true;
            }
            (kept, _) => DisplayConnection::new(socket, self.role, kept, now),
        };
        self.connection = Some(connection);
        self.record();
        false
    }

    /// Closes the socket; a query that is pending is replied with nothing.
    pub(crate) fn detach(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.kept = connection.close();
            self.id = None;
        }
        self.resizes.clear();
        self.fail_query();
    }

    /// Records how far it is, for a successor.
    fn record(&self) {
        if let (Some(connection), Some(id)) = (&self.connection, self.id) {
            connection.record(id.to_bits(), self.pending_query());
        }
    }

    fn fail_query(&mut self) {
        if self.is_query_pending() {
            self.query = Query::Replied(DisplayReply::Nothing);
        }
    }

    /// Asks the front-end; the reply comes with [`Display::take_reply`] after some event. `false` if
    /// nobody would reply, and for a console.
    pub(crate) fn ask(&mut self, query: DisplayQuery, now: Instant) -> bool {
        if self.role == DisplayRole::Console {
            return false;
        }
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if !connection.can_query(now) {
            return false;
        }
        self.query = Query::Pending(query);
        connection.send_query(query, now);
        self.record();
        true
    }

    /// Forgets the query; a reply to it is ignored.
    pub(crate) fn cancel_query(&mut self) {
        self.query = Query::None;
        self.record();
    }

    fn pending_query(&self) -> Option<DisplayQuery> {
        match self.query {
            Query::Pending(query) => Some(query),
            Query::None | Query::Replied(_) => None,
        }
    }

    /// Whether a reply is awaited.
    pub(crate) fn is_query_pending(&self) -> bool {
        self.pending_query().is_some()
    }

    /// The reply to the last query, once it is here.
    pub(crate) fn take_reply(&mut self) -> Option<DisplayReply> {
        match std::mem::take(&mut self.query) {
            Query::Replied(reply) => Some(reply),
            other => {
                self.query = other;
                None
            }
        }
    }

    /// The next request for another size, to be answered by [`Display::answer_resize`].
    pub(crate) fn take_resize(&mut self) -> Option<Resize> {
        self.resizes.pop_front()
    }

    /// Answers a request for another size.
    pub(crate) fn answer_resize(&mut self, result: ResizeResult) {
        if let Some(connection) = &mut self.connection {
            connection.answer_resize(result);
        }
    }

    /// Messages that are kept for it or of it.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn kept_messages(&self) -> usize {
        let connection = self.connection.as_ref();
        let kept = connection.map_or(0, DisplayConnection::kept_messages);
        kept.saturating_add(self.resizes.len())
    }

    /// The socket, and the events to watch it for.
    pub(crate) fn interest(&self) -> Option<(&Arc<UnixStream>, EventSet)> {
        self.connection.as_ref().map(DisplayConnection::interest)
    }

    /// When [`Display::expire`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.connection.as_ref()?.deadline()
    }

    /// Gives up waiting for replies whose time is over.
    pub(crate) fn expire(&mut self, now: Instant) -> Expired {
        let Some(connection) = &mut self.connection else {
            return Expired::default();
        };
        let expired = connection.expire(now);
        if expired.query {
            self.fail_query();
            self.record();
        }
        expired
    }

    /// Reads what the other side sent.
    ///
    /// # Errors
    /// If the socket is of no more use. It is closed then, and a pending query is replied with nothing.
    pub(crate) fn receive(&mut self, now: Instant) -> Result<(), DisplayError> {
        let result = self.try_receive(now);
        if result.is_err() {
            self.detach();
        }
        result
    }

    /// The event loop says that the socket is of no more use; a console's is closed. The VMM's is read to its end.
    ///
    /// # Errors
    /// If it is closed.
    pub(crate) fn hung_up(&mut self) -> Result<(), DisplayError> {
        if self.role != DisplayRole::Console {
            return Ok(());
        }
        self.detach();
        Err(DisplayError::Closed)
    }

    fn try_receive(&mut self, now: Instant) -> Result<(), DisplayError> {
        loop {
            let pending = self.pending_query();
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            match connection.receive(pending, now)? {
                Received::Nothing => return Ok(()),
                Received::Other => {}
                Received::Reply(reply) => self.query = Query::Replied(reply),
                Received::Resize(resize) => self.resizes.push_back(resize),
            }
            self.record();
        }
    }

    /// Sends as much as the front-end takes: queries, then `updates`, if there are any to be sent.
    ///
    /// # Errors
    /// If the socket is of no more use. It is closed then, and a pending query is replied with nothing.
    pub(crate) fn send(
        &mut self,
        updates: Option<PendingUpdates<'_>>,
        now: Instant,
    ) -> Result<(), DisplayError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        let result = connection.send(updates, now);
        if result.is_err() {
            self.detach();
        }
        result
    }
}

#[cfg(test)]
mod tests;
