//! The proxy between the front-end's socket and the vhost-user daemon.
//!
//! `vhost-user-backend` serves only a connection that it accepted itself. It gets a private one, and the proxy
//! passes whole vhost-user messages with their file descriptors between the two, without blocking. So all forms
//! of a front-end's socket take one path, the front-end's connection outlives the daemon, and a daemon that
//! hangs blocks nothing. Only control messages pass here; the data is in shared memory, announced by eventfds.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use vhost::vhost_user::message::FrontendReq;

use super::backend_channel::BackendChannel;
use super::display_socket::DisplaySocketMailbox;
use super::sanitize::{RequestError, RequestSanitizer};
use crate::backend::device::config_change::ConfigChangeLink;

/// Request, flags and payload size, 32 bits each, in host order.
const HEADER: usize = 12;
/// Limit on a payload. The crate `vhost` accepts 4 KiB.
const PAYLOAD_MAX: u32 = 64 * 1024;
/// Messages of one direction that are forwarded before signals and the other direction: a front-end can send without
/// end.
const MAX_FORWARDED_MESSAGES: usize = 64;
/// Limit on the file descriptors of a message, as in the crate `vhost`.
const FDS_MAX: usize = 32;

/// A side of a vhost-user connection, such as the one that closed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionSide {
    /// The front-end: the usual end.
    FrontEnd,
    /// The backend, on an error of its own.
    Backend,
}

/// Why messages cannot be passed on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("a vhost-user message of {0} bytes came, more than {PAYLOAD_MAX}")]
    TooLarge(u32),
    #[error(
        "a vhost-user message came with more than {FDS_MAX} file descriptors, or with more than this \
         process may still open (RLIMIT_NOFILE)"
    )]
    TooManyFds,
    #[error(transparent)]
    Refused(#[from] RequestError),
    #[error("cannot receive a vhost-user message: {0}")]
    Receive(#[source] io::Error),
    #[error("cannot send a vhost-user message: {0}")]
    Send(#[source] io::Error),
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
}

impl VhostUserProxy {
    pub(crate) fn new(
        front_end: UnixStream,
        daemon: UnixStream,
        display_socket: DisplaySocketMailbox,
        config_changes: ConfigChangeLink,
    ) -> io::Result<Self> {
        front_end.set_nonblocking(true)?;
        daemon.set_nonblocking(true)?;
        Ok(Self {
            front_end,
            daemon,
            requests: MessageForwarder::default(),
            replies: MessageForwarder::default(),
            display_socket,
            channel: BackendChannel::new(config_changes),
            sanitizer: RequestSanitizer::default(),
        })
    }

    /// The sockets of front-end and daemon.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn into_ends(self) -> (UnixStream, UnixStream) {
        (self.front_end, self.daemon)
    }

    /// What to poll before [`VhostUserProxy::pass`]: the front-end, then the daemon, then the channel back to the
    /// front-end.
    pub(crate) fn poll_fds(&self) -> [PollFd<'_>; 3] {
        let interest = |incoming: &MessageForwarder, outgoing: &MessageForwarder| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !incoming.is_complete());
            flags.set(PollFlags::OUT, outgoing.is_complete());
            flags
        };
        [
            PollFd::new(&self.front_end, interest(&self.requests, &self.replies)),
            PollFd::new(&self.daemon, interest(&self.replies, &self.requests)),
            match self.channel.awaits_answer() {
                Some(channel) => PollFd::from_borrowed_fd(channel, PollFlags::IN),
                // Which is polled already.
                None => PollFd::new(&self.front_end, PollFlags::empty()),
            },
        ]
    }

    /// Passes on what can be passed without blocking; `events` is what poll returned for
    /// the first two of [`VhostUserProxy::poll_fds`]. Returns the side that closed the connection.
    pub(crate) fn pass(
        &mut self,
        events: [PollFlags; 2],
    ) -> Result<Option<ConnectionSide>, ProxyError> {
        let Self {
            front_end,
            daemon,
            requests,
            replies,
            display_socket,
            channel,
            sanitizer,
        } = self;
        // Replies first: the daemon's last reply must reach the front-end.
        let replied = replies.pump(daemon, front_end, |message| {
            message.note_reply(sanitizer);
            Ok(())
        })?;
        let requested = requests.pump(front_end, daemon, |message| {
            keep(display_socket, message);
            message.note_request(channel);
            message.sanitize(sanitizer)
        })?;
        channel.serve(requested == ForwardResult::Waiting && requests.is_empty());
        let [front_end_events, daemon_events] = events;
        let gone = PollFlags::HUP | PollFlags::ERR;
        Ok(
            if requested == ForwardResult::SourceClosed || replied == ForwardResult::SinkClosed {
                Some(ConnectionSide::FrontEnd)
            } else if requested == ForwardResult::SinkClosed
                || replied == ForwardResult::SourceClosed
            {
                Some(ConnectionSide::Backend)
            } else if front_end_events.intersects(gone) {
                Some(ConnectionSide::FrontEnd)
            } else if daemon_events.intersects(gone) {
                Some(ConnectionSide::Backend)
            } else {
                None
            },
        )
    }
}

/// Keeps a duplicate of the display socket for the device.
fn keep(display_socket: &DisplaySocketMailbox, message: &MessageForwarder) {
    if message.request() != Some(FrontendReq::GPU_SET_SOCKET as u32) {
        return;
    }
    match message.fds.first().map(OwnedFd::try_clone) {
        Some(Ok(socket)) => display_socket.put(socket.into()),
        Some(Err(e)) => log::error!("cannot keep the front-end's display socket: {e}"),
        None => log::warn!("the front-end sent VHOST_USER_GPU_SET_SOCKET without a socket"),
    }
}

/// Why a direction stopped passing messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ForwardResult {
    Waiting,
    /// More may be there.
    Limit,
    SourceClosed,
    SinkClosed,
}

/// One direction of the connection, with the one message under way.
#[derive(Default)]
struct MessageForwarder {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// The whole message was received.
    complete: bool,
    sent: usize,
}

impl MessageForwarder {
    fn header_field(&self, index: usize) -> Option<u32> {
        let header = self.bytes.first_chunk::<HEADER>()?;
        let (fields, _) = header.as_chunks::<4>();
        fields.get(index).map(|field| u32::from_ne_bytes(*field))
    }

    fn request(&self) -> Option<u32> {
        self.header_field(0)
    }

    fn payload_size(&self) -> Option<u32> {
        self.header_field(2)
    }

    fn sanitize(&mut self, sanitizer: &mut RequestSanitizer) -> Result<(), ProxyError> {
        let Some(request) = self.request() else {
            return Ok(());
        };
        if let Some(payload) = self.bytes.get_mut(HEADER..) {
            let around = sanitizer.request(request, payload, &mut self.fds)?;
            self.bytes.splice(..0, around.before);
            self.bytes.extend(around.after);
        }
        Ok(())
    }

    fn note_request(&self, channel: &mut BackendChannel) {
        if let (Some(request), Some(payload)) = (self.request(), self.bytes.get(HEADER..)) {
            channel.note(request, payload, &self.fds);
        }
    }

    fn note_reply(&self, sanitizer: &mut RequestSanitizer) {
        if let (Some(request), Some(payload)) = (self.request(), self.bytes.get(HEADER..)) {
            sanitizer.reply(request, payload);
        }
    }

    /// Length of the message, as far as known.
    fn length(&self) -> usize {
        // `receive` refuses a size that is too large.
        HEADER + self.payload_size().map_or(0, |size| size as usize)
    }

    /// Whether no message is under way.
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    /// Forwards messages until a side would block or is gone, or [`MAX_FORWARDED_MESSAGES`] were. `look` gets each whole
    /// message and may refuse it.
    fn pump(
        &mut self,
        source: &UnixStream,
        sink: &UnixStream,
        mut look: impl FnMut(&mut Self) -> Result<(), ProxyError>,
    ) -> Result<ForwardResult, ProxyError> {
        let mut passed = 0;
        while passed < MAX_FORWARDED_MESSAGES {
            if self.is_complete() {
                match self.send(sink) {
                    Ok(()) => passed += 1,
                    Err(Errno::AGAIN) => return Ok(ForwardResult::Waiting),
                    Err(Errno::PIPE | Errno::CONNRESET) => return Ok(ForwardResult::SinkClosed),
                    Err(e) => return Err(ProxyError::Send(e.into())),
                }
                continue;
            }
            match self.receive(source)? {
                Received::Some if self.is_complete() => look(self)?,
                Received::Some => {}
                Received::Nothing => return Ok(ForwardResult::Waiting),
                Received::Closed => return Ok(ForwardResult::SourceClosed),
            }
        }
        Ok(ForwardResult::Limit)
    }

    /// Receives more of the message, and nothing of the next one.
    fn receive(&mut self, source: &UnixStream) -> Result<Received, ProxyError> {
        let have = self.bytes.len();
        self.bytes.resize(self.length(), 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = net::recvmsg(
            source,
            &mut [IoSliceMut::new(
                self.bytes.get_mut(have..).unwrap_or_default(),
            )],
            &mut control,
            RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
        );
        let got = received.as_ref().map_or(0, |message| message.bytes);
        self.bytes.truncate(have + got);
        let message = match received {
            Ok(message) if message.bytes == 0 => return Ok(Received::Closed),
            Ok(message) => message,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Received::Nothing),
            Err(Errno::CONNRESET) => return Ok(Received::Closed),
            Err(e) => return Err(ProxyError::Receive(e.into())),
        };
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = part {
                self.fds.extend(fds);
            }
        }
        if message.flags.contains(ReturnFlags::CTRUNC) || self.fds.len() > FDS_MAX {
            return Err(ProxyError::TooManyFds);
        }
        match self.payload_size() {
            Some(size) if size > PAYLOAD_MAX => return Err(ProxyError::TooLarge(size)),
            size => self.complete = size.is_some() && self.bytes.len() == self.length(),
        }
        Ok(Received::Some)
    }

    /// Sends the rest of the message. Its descriptors go with the first byte.
    fn send(&mut self, sink: &UnixStream) -> Result<(), Errno> {
        while let Some(rest) = self.bytes.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let fds: Vec<BorrowedFd<'_>> = self.fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match net::sendmsg(sink, &[IoSlice::new(rest)], &mut control, flags) {
                Ok(sent) => self.sent += sent,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e),
            }
            self.fds.clear();
        }
        self.bytes.clear();
        self.complete = false;
        self.sent = 0;
        Ok(())
    }
}

enum Received {
    Some,
    Nothing,
    Closed,
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
