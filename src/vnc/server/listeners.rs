// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sockets on which viewers connect: one for each head.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::poller::{EventFlags, Poller};
use super::tcp;
use crate::backend::{ListeningSocket, RateLimitedLog};

/// Most connections that are accepted in one turn.
const ACCEPTS: usize = 16;
/// How long nobody is accepted after accept(2) failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A socket on which the viewers of a head connect.
#[derive(Debug)]
pub(in crate::vnc) struct HeadSocket {
    socket: Arc<UnixListener>,
    head: usize,
    /// Whether it is a TCP socket.
    is_port: bool,
}

impl HeadSocket {
    /// Gives sockets their heads, in their order. TCP sockets count for themselves: the first is for head 0 too.
    pub(in crate::vnc) fn in_order(sockets: &[ListeningSocket]) -> Vec<Self> {
        let sockets = sockets.iter();
        Self::number(sockets.map(|socket| (socket.listener().clone(), socket.is_port())))
    }

    fn number(sockets: impl Iterator<Item = (Arc<UnixListener>, bool)>) -> Vec<Self> {
        let mut next = [0; 2];
        sockets
            .map(|(socket, is_port)| {
                let next = &mut next[usize::from(is_port)];
                let head = *next;
                *next += 1;
                Self {
                    socket,
                    head,
                    is_port,
                }
            })
            .collect()
    }

    /// How many heads these sockets are for.
    pub(super) fn count_heads(sockets: &[Self]) -> usize {
        let heads = sockets.iter().map(|socket| socket.head.saturating_add(1));
        heads.max().unwrap_or(0)
    }
}

/// The listening sockets.
pub(super) struct Listeners {
    sockets: Vec<HeadSocket>,
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
        sockets: Vec<HeadSocket>,
        first_token: u64,
        poller: &Poller,
    ) -> io::Result<Self> {
        for (token, HeadSocket { socket, .. }) in (first_token..).zip(&sockets) {
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
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(&HeadSocket {
            ref socket,
            head,
            is_port,
        }) = self.sockets.get(index)
        else {
            return Ok((0, accepted));
        };
        for _ in 0..ACCEPTS {
            match accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(viewer) => {
                    if is_port {
                        tcp::tune(&viewer);
                    }
                    accepted.push(viewer);
                }
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
        for (token, HeadSocket { socket, .. }) in (self.first_token..).zip(&self.sockets) {
            poller.modify(socket, token, flags)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_sockets_and_ports_each_count_from_the_first_head_on() {
        let folder = tempfile::tempdir().unwrap();
        let socket = Arc::new(UnixListener::bind(folder.path().join("s")).unwrap());
        let heads = |ports: &[bool]| -> (Vec<usize>, usize) {
            let sockets = ports.iter().map(|is_port| (socket.clone(), *is_port));
            let sockets = HeadSocket::number(sockets);
            let heads = sockets.iter().map(|socket| socket.head).collect();
            (heads, HeadSocket::count_heads(&sockets))
        };
        assert_eq!(heads(&[]), (vec![], 0));
        assert_eq!(heads(&[false, false, false]), (vec![0, 1, 2], 3));
        assert_eq!(heads(&[true, false, true, false]), (vec![0, 0, 1, 1], 2));
        assert_eq!(heads(&[false, true, true]), (vec![0, 0, 1], 2));
    }
}
