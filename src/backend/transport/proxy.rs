// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The proxy between the front-end's socket and the vhost-user daemon.
//!
//! `vhost-user-backend` serves only a connection that it accepted itself. It gets a private one, and the proxy
//! passes whole vhost-user messages with their file descriptors between the two, without blocking. So all forms
//! of a front-end's socket take one path, the front-end's connection outlives the daemon, and a daemon that
//! hangs blocks nothing. Only control messages pass here; the data is in shared memory, announced by eventfds.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use vhost::vhost_user::message::FrontendReq;

use super::backend_channel::BackendChannel;
use super::display_socket::DisplaySocketMailbox;
use super::forwarder::{ForwardResult, MessageForwarder, ProxyError};
use super::sanitize::{RequestSanitizer, message, refusal};
use crate::backend::device::request_links::RequestLinks;

const GET_FEATURES: u32 = FrontendReq::GET_FEATURES as u32;

/// A side of a vhost-user connection, such as the one that closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionSide {
    /// The front-end: the usual end.
    FrontEnd,
    /// The backend, on an error of its own.
    Backend,
}

/// The front-end's and the daemon's connection, joined.
pub(crate) struct VhostUserProxy {
    front_end: UnixStream,
    daemon: UnixStream,
    requests: MessageForwarder,
    replies: MessageForwarder,
    display_socket: DisplaySocketMailbox,
    channel: BackendChannel,
    sanitizer: RequestSanitizer,
    refusals: Refusals,
}

/// Requests that the daemon does not get. Replies have the order of the requests: it gets a question instead, and its
/// answer is replaced.
#[derive(Default)]
struct Refusals {
    /// For each `GET_FEATURES` whose answer is to come: the declined request that it stands for; none for the front-end's.
    asked: VecDeque<Option<u32>>,
}

impl Refusals {
    /// Replaces a request that is declined.
    fn request(
        &mut self,
        request: &mut MessageForwarder,
        sanitizer: &RequestSanitizer,
        channel: &BackendChannel,
    ) -> bool {
        let declined = request.declined(sanitizer, channel);
        if declined.is_some() {
            request.replace(message(GET_FEATURES, &[]));
        }
        if request.request() == Some(GET_FEATURES) {
            self.asked.push_back(declined);
        }
        declined.is_some()
    }

    /// Replaces an answer to what stands for a request that was declined.
    fn reply(&mut self, reply: &mut MessageForwarder) {
        if reply.request() == Some(GET_FEATURES) {
            if let Some(Some(declined)) = self.asked.pop_front() {
                reply.replace(refusal(declined));
            }
        }
    }
}

/// What joins the front-end's connection with the daemon's.
pub(crate) trait FrontEndProxy {
    /// What to poll before [`FrontEndProxy::pass`]: the front-end, then the daemon, then the channel back to the
    /// front-end.
    fn poll_fds(&self) -> [PollFd<'_>; 3];

    /// Passes on what can be passed without blocking; `events` is what poll returned for
    /// the first two of [`FrontEndProxy::poll_fds`]. Returns the side that closed the connection.
    fn pass(&mut self, events: [PollFlags; 2]) -> Result<Option<ConnectionSide>, ProxyError>;

    /// Whether the daemon knows all that a predecessor's knew.
    fn is_set_up(&self) -> bool;
}

impl VhostUserProxy {
    pub(crate) fn new(
        front_end: UnixStream,
        daemon: UnixStream,
        display_socket: DisplaySocketMailbox,
        requests: RequestLinks,
    ) -> io::Result<Self> {
        front_end.set_nonblocking(true)?;
        daemon.set_nonblocking(true)?;
        Ok(Self {
            front_end,
            daemon,
            requests: MessageForwarder::default(),
            replies: MessageForwarder::default(),
            display_socket,
            channel: BackendChannel::new(requests),
            sanitizer: RequestSanitizer::default(),
            refusals: Refusals::default(),
        })
    }

    /// The sockets of front-end and daemon.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn into_ends(self) -> (UnixStream, UnixStream) {
        (self.front_end, self.daemon)
    }
}

impl FrontEndProxy for VhostUserProxy {
    fn poll_fds(&self) -> [PollFd<'_>; 3] {
        let interest = |incoming: &MessageForwarder, outgoing: &MessageForwarder| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !incoming.is_complete());
            flags.set(PollFlags::OUT, outgoing.is_complete());
            flags
        };
        [
            PollFd::new(&self.front_end, interest(&self.requests, &self.replies)),
            PollFd::new(&self.daemon, interest(&self.replies, &self.requests)),
            match self.channel.awaited_fd() {
                Some(channel) => PollFd::from_borrowed_fd(channel, PollFlags::IN),
                // Which is polled already.
                None => PollFd::new(&self.front_end, PollFlags::empty()),
            },
        ]
    }

    fn pass(&mut self, events: [PollFlags; 2]) -> Result<Option<ConnectionSide>, ProxyError> {
        let Self {
            front_end,
            daemon,
            requests,
            replies,
            display_socket,
            channel,
            sanitizer,
            refusals,
        } = self;
        let is_offer_read = channel.is_offer_read();
        // Replies first: the daemon's last reply must reach the front-end.
        let replied = replies.pump(daemon, front_end, |message| {
            message.note_reply(sanitizer);
            refusals.reply(message);
            Ok(())
        })?;
        let requested = requests.pump(front_end, daemon, |message| {
            keep(display_socket, message);
            message.note_request(channel);
            match refusals.request(message, sanitizer, channel) {
                true => Ok(()),
                false => message.sanitize(sanitizer),
            }
        })?;
        let is_quiet = requested == ForwardResult::Waiting && requests.is_empty();
        channel.serve(is_quiet, is_offer_read);
        Ok(
            if requested == ForwardResult::SourceClosed || replied == ForwardResult::SinkClosed {
                Some(ConnectionSide::FrontEnd)
            } else if requested == ForwardResult::SinkClosed
                || replied == ForwardResult::SourceClosed
            {
                Some(ConnectionSide::Backend)
            } else {
                hung_up(events)
            },
        )
    }

    /// There is no predecessor.
    fn is_set_up(&self) -> bool {
        true
    }
}

/// The side whose end of the connection poll found closed.
pub(super) fn hung_up([front_end, daemon]: [PollFlags; 2]) -> Option<ConnectionSide> {
    let gone = PollFlags::HUP | PollFlags::ERR;
    if front_end.intersects(gone) {
        Some(ConnectionSide::FrontEnd)
    } else if daemon.intersects(gone) {
        Some(ConnectionSide::Backend)
    } else {
        None
    }
}

/// Keeps a duplicate of the display socket for the device.
fn keep(display_socket: &DisplaySocketMailbox, message: &MessageForwarder) {
    if message.request() == Some(FrontendReq::GPU_SET_SOCKET as u32) {
        display_socket.duplicate(message.fds().first(), None);
    }
}

/// A connection within the process: the listener that the daemon accepts it from, and the other end.
///
/// The kernel chooses the listener's abstract address. Its queue has room for one connection, which is made here: if
/// another process had connected first, this would fail.
pub(crate) fn private_connection() -> io::Result<(UnixListener, UnixStream)> {
    let flags = SocketFlags::CLOEXEC;
    let listener = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::bind(&listener, &SocketAddrUnix::new_unnamed())?;
    net::listen(&listener, 0)?;
    let address = net::getsockname(&listener)?;
    let ours = net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags | SocketFlags::NONBLOCK,
        None,
    )?;
    net::connect(&ours, &address)?;
    Ok((listener.into(), ours.into()))
}

#[cfg(test)]
mod tests;
