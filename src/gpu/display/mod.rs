//! A display: a front-end's display socket, what it is asked and what it is shown
//! (QEMU, docs/interop/vhost-user-gpu.rst).
//!
//! Nothing here blocks. Queries are sent and their replies come with a later event; updates go out as
//! far as the front-end reads, the rest when it reads again. A device may have several displays, each
//! at its own pace: what one is still to be sent is kept by the [scanouts](crate::gpu::scanout).

mod connection;
mod dmabuf_ack;
mod error;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzz_display;
mod message_sender;
mod outgoing_message;
mod reply_receiver;

pub(crate) use connection::Expired;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use connection::REPLY_LIMIT;
pub(crate) use dmabuf_ack::{ACK_LIMIT, PixelFallback};
pub(crate) use error::DisplayError;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use crate::backend::EventSet;
use crate::gpu::display_info::{DisplayQuery, DisplayReply};
use crate::gpu::scanout::{DmabufSupport, PendingUpdates};
use connection::{DisplayConnection, Received};

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
    /// Whether the renderer exports dmabufs.
    has_dmabufs: bool,
    connection: Option<DisplayConnection>,
    query: Query,
}

impl Display {
    /// A display that is not connected. It is passed dmabufs if the renderer exports them.
    pub(crate) fn new(has_dmabufs: bool) -> Self {
        Self {
            has_dmabufs,
            ..Self::default()
        }
    }

    /// Which dmabufs the display can be passed now. The protocol has a feature only for those with
    /// modifiers; every front-end takes the others, unless it does not answer in time.
    pub(crate) fn dmabuf_support(&self) -> DmabufSupport {
        match &self.connection {
            _ if !self.has_dmabufs => DmabufSupport::None,
            None => DmabufSupport::default(),
            Some(connection) => connection.dmabuf_support(),
        }
    }

    /// Uses `socket` from now on and closes the one before.
    pub(crate) fn attach(&mut self, socket: UnixStream, now: Instant) {
        self.detach();
        self.connection = Some(DisplayConnection::new(socket, self.has_dmabufs, now));
    }

    /// Closes the socket; a query that is pending is replied with nothing.
    pub(crate) fn detach(&mut self) {
        self.connection = None;
        self.fail_query();
    }

    fn fail_query(&mut self) {
        if self.is_query_pending() {
            self.query = Query::Replied(DisplayReply::Nothing);
        }
    }

    /// Asks the front-end; the reply comes with [`Display::take_reply`] after some event. `false` if
    /// nobody would reply.
    pub(crate) fn ask(&mut self, query: DisplayQuery, now: Instant) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        if !connection.can_query(now) {
            return false;
        }
        self.query = Query::Pending(query);
        connection.send_query(query, now);
        true
    }

    /// Forgets the query; a reply to it is ignored.
    pub(crate) fn cancel_query(&mut self) {
        self.query = Query::None;
    }

    /// Whether a reply is awaited.
    pub(crate) fn is_query_pending(&self) -> bool {
        matches!(self.query, Query::Pending(_))
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
        }
        expired
    }

    /// Reads what the front-end sent.
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

    fn try_receive(&mut self, now: Instant) -> Result<(), DisplayError> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        loop {
            let pending = match self.query {
                Query::Pending(query) => Some(query),
                Query::None | Query::Replied(_) => None,
            };
            match connection.receive(pending, now)? {
                Received::Nothing => return Ok(()),
                Received::Other => {}
                Received::Reply(reply) => self.query = Query::Replied(reply),
            }
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
