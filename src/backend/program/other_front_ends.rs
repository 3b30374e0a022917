// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Front-ends that connect while another is served.

use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

use conventions::Peer;
use rustix::event::{PollFd, PollFlags};

use super::endpoint::Endpoint;
use crate::backend::logging::RateLimitedLog;
use crate::backend::service::notify;
use crate::backend::sockets::is_passing;
use crate::backend::sockets::peer;

/// On a socket that the program made, they are turned away at once. On a socket that was passed, the first of them is
/// accepted, to log who it is, and kept for the next start of the program if the service manager keeps descriptors
/// ([`notify::keeps_descriptors`]). Otherwise they wait in the socket's queue.
pub(super) struct OtherFrontEnds<'a> {
    endpoint: &'a Endpoint,
    place: &'a str,
    /// Whether to accept more.
    listens: bool,
    /// The front-end that is served.
    first: Option<Peer>,
    next: Option<(UnixStream, Peer)>,
    /// Whether the service manager has the next one already, because this process may be replaced at any time.
    stores: bool,
    stored: bool,
    log: RateLimitedLog,
}

impl<'a> OtherFrontEnds<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, place: &'a str) -> Self {
        Self {
            endpoint,
            place,
            listens: true,
            first: None,
            next: None,
            stores: false,
            stored: false,
            log: RateLimitedLog::default(),
        }
    }

    /// From now on the service manager gets a front-end as soon as it waits. `resumed`: the one that it kept goes on waiting.
    pub(super) fn store_at_once(&mut self, resumed: bool) {
        self.stores = true;
        let Endpoint::Listening {
            kept: Some(kept), ..
        } = self.endpoint
        else {
            return;
        };
        match (peer(kept), kept.try_clone()) {
            (Ok(peer), Ok(kept)) if resumed => {
                self.next = Some((kept, peer));
                self.stored = true;
            }
            _ => {}
        }
    }

    /// `front_end` is served from now on; messages name it beside the others.
    pub(super) fn serve(&mut self, front_end: &UnixStream) {
        self.first = peer(front_end).ok();
    }

    /// The descriptor to poll before [`OtherFrontEnds::look`], if any.
    pub(super) fn poll_fd(&self) -> Option<PollFd<'_>> {
        if let Some((next, _)) = &self.next {
            // Only its end, which poll always reports: its bytes are for the next run.
            return Some(PollFd::new(next, PollFlags::empty()));
        }
        match self.endpoint {
            Endpoint::Ours(listener, _) if self.listens => {
                Some(PollFd::new(listener, PollFlags::IN))
            }
            Endpoint::Listening { listener, .. } if self.listens => {
                Some(PollFd::new(listener, PollFlags::IN))
            }
            _ => None,
        }
    }

    /// Accepts a front-end or notices that it left, after [`OtherFrontEnds::poll_fd`] was ready.
    pub(super) fn look(&mut self) {
        if let Some((_, peer)) = self.next.take() {
            self.log
                .warn(format_args!("the waiting front-end disconnected: {peer}"));
            if std::mem::take(&mut self.stored) {
                notify::forget_kept(notify::FRONT_END);
            }
            return;
        }
        let listener = match self.endpoint {
            Endpoint::Ours(listener, _) => listener,
            Endpoint::Listening { listener, .. } if notify::keeps_descriptors() => &**listener,
            Endpoint::Listening { .. } => {
                self.listens = false;
                log::warn!("another front-end waits on {}", self.place);
                return;
            }
            Endpoint::Connected(_) => return,
        };
        match listener.accept() {
            Ok((front_end, _)) => self.take(front_end),
            Err(e) if is_passing(&e) => {}
            // It stays in the queue, where poll would report it for ever.
            Err(e) => {
                self.listens = false;
                log::warn!("cannot accept another front-end on {}: {e}", self.place);
            }
        }
    }

    fn take(&mut self, front_end: UnixStream) {
        let peer = match peer(&front_end) {
            Ok(peer) => peer,
            Err(e) => {
                self.log.warn(format_args!(
                    "turned away another front-end, of an unknown process: {e}"
                ));
                return;
            }
        };
        let first = match &self.first {
            Some(first) => format!("; connected: {first}"),
            None => String::new(),
        };
        if let Endpoint::Ours(..) = self.endpoint {
            self.log
                .warn(format_args!("turned away another front-end: {peer}{first}"));
            return;
        }
        self.log.warn(format_args!(
            "another front-end waits until this one disconnects: {peer}{first}"
        ));
        self.next = Some((front_end, peer));
        if self.stores {
            self.stored = self.store();
        }
    }

    /// Gives the front-end that waits to the service manager. Returns whether it was sent.
    fn store(&self) -> bool {
        let Some((next, _)) = &self.next else {
            return false;
        };
        notify::keep(notify::FRONT_END, next.as_fd())
            .inspect_err(|e| log::warn!("cannot keep the front-end that waits: {e}"))
            .is_ok()
    }

    /// The front-end that waits.
    pub(super) fn next(&self) -> Option<Peer> {
        self.next.as_ref().map(|(_, peer)| *peer)
    }

    /// Gives the front-end that waits to the service manager. Returns whether it keeps one.
    pub(super) fn hand_over(&self) -> bool {
        self.next.is_some() && (self.stored || self.store())
    }
}
