// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A display for the targets in fuzz/.

use std::os::unix::net::UnixStream;
use std::time::Instant;

use super::Display;
use crate::gpu::display_info::{DisplayQuery, DisplayReply};

/// A display that has nothing to show.
#[derive(Default)]
pub struct FuzzDisplay(Display);

impl FuzzDisplay {
    /// Uses `socket` from now on and closes the one before.
    pub fn attach(&mut self, socket: UnixStream, now: Instant) {
        self.0.attach(socket, now);
    }

    /// Whether the socket is open.
    pub fn is_connected(&self) -> bool {
        self.0.interest().is_some()
    }

    /// Makes a query. `false` if nobody would reply.
    pub fn ask(&mut self, query: DisplayQuery, now: Instant) -> bool {
        self.0.ask(query, now)
    }

    /// Forgets the query.
    pub fn cancel_query(&mut self) {
        self.0.cancel_query();
    }

    /// Whether a reply is awaited.
    pub fn is_query_pending(&self) -> bool {
        self.0.is_query_pending()
    }

    /// The reply to the last query, once it is here.
    pub fn take_reply(&mut self) -> Option<DisplayReply> {
        self.0.take_reply()
    }

    /// Sends as much as the front-end takes. `false` if that ends the connection.
    pub fn send(&mut self, now: Instant) -> bool {
        self.0.send(None, now).is_ok()
    }

    /// Reads what the front-end sent. `false` if that ends the connection.
    pub fn receive(&mut self, now: Instant) -> bool {
        self.0.receive(now).is_ok()
    }

    /// Whether there is a limit to what is awaited.
    pub fn has_deadline(&self) -> bool {
        self.0.deadline().is_some()
    }

    /// Gives up waiting for what is late.
    pub fn expire(&mut self, now: Instant) {
        self.0.expire(now);
    }
}
