//! Front-ends that connect while another is served.

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
            log: RateLimitedLog::default(),
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
    }

    /// The front-end that waits.
    pub(super) fn next(&self) -> Option<Peer> {
        self.next.as_ref().map(|(_, peer)| *peer)
    }

    /// Gives the front-end that waits to the service manager. Returns whether it keeps one.
    pub(super) fn hand_over(&mut self) -> bool {
        match self.next.take() {
            Some((next, _)) => notify::keep(&next),
            None => false,
        }
    }
}
