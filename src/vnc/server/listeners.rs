//! The sockets on which viewers connect: one for each head.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::poller::{EventFlags, Poller};
use crate::backend::RateLimitedLog;

/// Most connections that are accepted in one turn.
const ACCEPTS: usize = 16;
/// How long nobody is accepted after accept(2) failed.
const PAUSE: Duration = Duration::from_secs(1);

/// The listening sockets, by head.
pub(super) struct Listeners {
    sockets: Vec<Arc<UnixListener>>,
    first_token: u64,
    /// Until when nobody is accepted.
    again: Option<Instant>,
    log: RateLimitedLog,
}

impl Listeners {
    /// Waits for connections on `sockets`, which do not block, with tokens from `first_token` on.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(super) fn new(
        sockets: Vec<Arc<UnixListener>>,
        first_token: u64,
        poller: &Poller,
    ) -> io::Result<Self> {
        for (token, socket) in (first_token..).zip(&sockets) {
            poller.add(socket, token, EventFlags::IN)?;
        }
        Ok(Self {
            sockets,
            first_token,
            again: None,
            log: RateLimitedLog::default(),
        })
    }

    /// The head whose viewers connect by the socket with this token, and those who have connected.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(super) fn accept(
        &mut self,
        token: u64,
        poller: &Poller,
    ) -> io::Result<(usize, Vec<OwnedFd>)> {
        let mut accepted = Vec::new();
        let index = token.saturating_sub(self.first_token);
        let head = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(socket) = self.sockets.get(head) else {
            return Ok((head, accepted));
        };
        for _ in 0..ACCEPTS {
            match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(viewer) => accepted.push(viewer),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(e) => {
                    self.log.warn(format_args!("cannot accept a viewer: {e}"));
                    // It stays in the queue, which would be reported for ever.
                    self.again = Some(Instant::now() + PAUSE);
                    self.listen(EventFlags::empty(), poller)?;
                    break;
                }
            }
        }
        Ok((head, accepted))
    }

    /// When [`Self::resume`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Accepts viewers again after a pause.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub(super) fn resume(&mut self, poller: &Poller, now: Instant) -> io::Result<()> {
        if self.again.is_some_and(|again| again <= now) {
            self.again = None;
            self.listen(EventFlags::IN, poller)?;
        }
        Ok(())
    }

    fn listen(&self, flags: EventFlags, poller: &Poller) -> io::Result<()> {
        for (token, socket) in (self.first_token..).zip(&self.sockets) {
            poller.modify(socket, token, flags)?;
        }
        Ok(())
    }
}
