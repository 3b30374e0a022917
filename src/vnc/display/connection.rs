// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to the GPU, and when to connect.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use display_protocol::{Features, ResizeResult};
use rustix::io::Errno;
use rustix::net::{
    self, AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

use crate::backend::RateLimitedLog;
use crate::geometry::Size;
use crate::vnc::head::{Head, HeadState};
use crate::vnc::retry_pause::RetryPause;

use super::DisplayError;
use super::decoder::{Decoder, Progress, Request};
use super::message;

/// Bytes that are read before viewers have their turn.
const TURN: usize = 4 << 20;
/// Most messages that want something, in the same time.
const MAX_REQUESTS: usize = 32;
/// Most bytes that wait until the GPU reads them.
const MAX_UNSENT: usize = 4 << 10;
/// Most resizes without an answer.
const MAX_RESIZES: usize = 16;
/// For how long the heads keep what a GPU showed that is gone: its process may just be replaced.
const KEPT: Duration = Duration::from_secs(3);
/// Bytes that the socket is to buffer: fewer and larger reads. The GPU sets as much for its end.
const RECEIVE_BUFFER: usize = 416 << 10;

/// Who asked for another size of a head.
pub(crate) type Requester = u64;

/// The GPU as the console's source of pictures.
pub(crate) struct Display {
    path: PathBuf,
    connection: Option<Connection>,
    pause: RetryPause,
    /// Until when heads keep what a GPU showed that is gone.
    kept_until: Option<Instant>,
    log: RateLimitedLog,
}

struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    unsent: VecDeque<u8>,
    /// Whether the GPU takes resizes.
    resizes: bool,
    requested: VecDeque<Requester>,
}

impl Display {
    /// The GPU whose display socket is at `path`. Does not connect yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            connection: None,
            pause: RetryPause::new(),
            kept_until: None,
            log: RateLimitedLog::default(),
        }
    }

    /// The socket, if there is a connection.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        let connection = self.connection.as_ref();
        connection.map(|connection| connection.socket.as_fd())
    }

    /// Whether it has to be told when the socket takes more bytes.
    pub(crate) fn has_unsent(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| !connection.unsent.is_empty())
    }

    /// When [`Self::connect`] is due, if it is.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        match self.connection {
            Some(_) => None,
            None => Some(self.pause.end().unwrap_or(now)),
        }
    }

    /// When [`Self::forget_kept`] is due, if it is.
    pub(crate) fn kept_until(&self) -> Option<Instant> {
        self.kept_until
    }

    /// Has the heads say that there is nothing to show if the next GPU did not say in time what it shows.
    pub(crate) fn forget_kept(&mut self, heads: &mut [Head], now: Instant) {
        if self.kept_until.is_none_or(|until| until > now) {
            return;
        }
        self.kept_until = None;
        let state = match self.connection {
            Some(_) => HeadState::Waiting,
            None => HeadState::Unreachable,
        };
        for head in heads.iter_mut().filter(|head| head.is_kept()) {
            head.lose_pixels(state);
        }
    }

    /// Connects if that is due. Returns whether there is a new connection.
    pub(crate) fn connect(&mut self, heads: &mut [Head], now: Instant) -> bool {
        if self.due(now).is_none_or(|due| due > now) {
            return false;
        }
        match connect(&self.path) {
            Ok(socket) => {
                log::debug!("connected to {}", self.path.display());
                for head in heads.iter_mut().filter(|head| !head.is_kept()) {
                    head.lose_pixels(HeadState::Waiting);
                }
                self.connection = Some(Connection {
                    socket,
                    decoder: Decoder::new(),
                    unsent: VecDeque::new(),
                    resizes: false,
                    requested: VecDeque::new(),
                });
                true
            }
            Err(e) => {
                let path = self.path.display();
                self.log
                    .warn(format_args!("cannot connect to the GPU at {path}: {e}"));
                self.pause.begin(now);
                false
            }
        }
    }

    /// Closes the connection: nobody looks any more. A pause before the next attempt goes on.
    pub(crate) fn disconnect(&mut self, heads: &mut [Head]) {
        self.connection = None;
        self.lose(heads);
    }

    /// Reads what the GPU sent, draws on `heads`, and sends what is due. Returns whether there may be more to read.
    /// The answers to resizes are added to `answers`.
    pub(crate) fn serve(
        &mut self,
        heads: &mut [Head],
        answers: &mut Vec<(Requester, ResizeResult)>,
        now: Instant,
    ) -> bool {
        let Some(connection) = &mut self.connection else {
            return false;
        };
        match connection.serve(heads, answers) {
            Ok(more) => {
                let is_on = |head: &Head| head.state() == HeadState::On && !head.is_kept();
                if heads.iter().any(is_on) {
                    self.pause.is_of_use();
                }
                more
            }
            Err(e) => {
                // Whoever waits for an answer gets it.
                let unanswered = connection.requested.drain(..);
                answers.extend(unanswered.map(|requester| (requester, ResizeResult::Refused)));
                self.pause.begin(now);
                match e {
                    DisplayError::Closed => {
                        log::info!("{e}");
                        connection.decoder.give_up(heads);
                        self.keep(heads, now);
                    }
                    e => {
                        self.log.warn(format_args!("{e}: connecting again"));
                        self.lose(heads);
                    }
                }
                self.connection = None;
                false
            }
        }
    }

    /// Has the heads keep what they show for a while, which begins anew for what the last GPU showed.
    fn keep(&mut self, heads: &mut [Head], now: Instant) {
        for head in heads {
            let was_kept = head.is_kept();
            head.keep_pixels();
            if head.is_kept() && !was_kept {
                self.kept_until = Some(now + KEPT);
            }
        }
    }

    fn lose(&mut self, heads: &mut [Head]) {
        self.kept_until = None;
        for head in heads {
            head.lose_pixels(HeadState::Unreachable);
        }
    }

    /// Asks for another size of a head. Returns the answer, if it is known at once.
    pub(crate) fn resize(
        &mut self,
        scanout: u32,
        size: Size,
        by: Requester,
    ) -> Option<ResizeResult> {
        let Some(connection) = &mut self.connection else {
            return Some(ResizeResult::Refused);
        };
        if !connection.resizes || connection.requested.len() >= MAX_RESIZES {
            return Some(ResizeResult::Refused);
        }
        connection.requested.push_back(by);
        connection.unsent.extend(message::resize(scanout, size));
        // What fails here fails at the next turn too, which reports it.
        let _ = connection.send();
        None
    }
}

fn connect(path: &std::path::Path) -> Result<UnixStream, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // A smaller buffer works too.
    let _ = sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER);
    net::connect(&socket, &address)?;
    Ok(socket.into())
}

impl Connection {
    fn serve(
        &mut self,
        heads: &mut [Head],
        answers: &mut Vec<(Requester, ResizeResult)>,
    ) -> Result<bool, DisplayError> {
        let mut requests = 0;
        // For all of them together.
        let mut budget = TURN;
        let more = loop {
            if requests > MAX_REQUESTS {
                break true;
            }
            requests += 1;
            match self.decoder.read(&self.socket, heads, &mut budget)? {
                Progress::Drained => break false,
                Progress::More => break true,
                Progress::Request(Request::Features) => {
                    if self.unsent.len() >= MAX_UNSENT {
                        return Err(DisplayError::NotReading);
                    }
                    self.unsent.extend(message::features_reply());
                    self.send()?;
                }
                Progress::Request(Request::SetFeatures(features)) => {
                    self.resizes = features.contains(Features::RESIZE);
                }
                Progress::Request(Request::ResizeReply(result)) => {
                    let requester = self.requested.pop_front();
                    let requester = requester.ok_or(DisplayError::UnexpectedReply)?;
                    answers.push((requester, result));
                }
            }
        };
        self.send()?;
        Ok(more)
    }

    /// Sends what waits, as far as the socket takes it.
    fn send(&mut self) -> Result<(), DisplayError> {
        while !self.unsent.is_empty() {
            let (bytes, _) = self.unsent.as_slices();
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match net::send(&self.socket, bytes, flags) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(e) => return Err(DisplayError::io("answer the GPU")(e)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
