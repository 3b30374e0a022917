// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The service manager's end of sd_notify(3).

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use tempfile::TempDir;

use crate::{Deadline, Error, Result};

/// One assignment that a program sent to its service manager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What stands before the `=`, `READY` for one.
    pub name: String,
    /// What stands after it.
    pub value: String,
    /// When it was received.
    pub at: Instant,
}

/// The socket that `NOTIFY_SOCKET` names, in a folder of its own, and what came over it.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    seen: Vec<Notification>,
    _folder: TempDir,
}

impl NotifySocket {
    /// A new socket.
    ///
    /// # Errors
    /// As `mkdir(2)` and `bind(2)`.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for NOTIFY_SOCKET"))?;
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).map_err(Error::io("binding NOTIFY_SOCKET"))?;
        socket
            .set_nonblocking(true)
            .map_err(Error::io("O_NONBLOCK on NOTIFY_SOCKET"))?;
        Ok(Self {
            socket,
            path,
            seen: Vec::new(),
            _folder: folder,
        })
    }

    /// What `NOTIFY_SOCKET` is to be set to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Plays a service manager that does not read: no more can be sent until something is received.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn fill(&self) -> Result<()> {
        let filling = || Error::io("filling NOTIFY_SOCKET");
        let mut senders = Vec::new();
        // Where the queue is long (net.unix.max_dgram_qlen, which systemd sets to 512), a sender's own buffer is full before.
        loop {
            let sender = UnixDatagram::unbound().map_err(filling())?;
            sender.set_nonblocking(true).map_err(filling())?;
            let mut sent = 0;
            loop {
                match sender.send_to(b"X_FILLED=1", &self.path) {
                    Ok(_) => sent += 1,
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(filling()(e)),
                }
            }
            if sent == 0 {
                return Ok(());
            }
            senders.push(sender);
        }
    }

    /// Everything received so far, oldest first.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn seen(&mut self) -> Result<&[Notification]> {
        let mut datagram = [0; 4096];
        loop {
            match self.socket.recv(&mut datagram) {
                Ok(n) => {
                    let at = Instant::now();
                    let text = String::from_utf8_lossy(&datagram[..n]);
                    let assignments = text.lines().filter_map(|line| line.split_once('='));
                    self.seen
                        .extend(assignments.map(|(name, value)| Notification {
                            name: name.into(),
                            value: value.into(),
                            at,
                        }));
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(&self.seen),
                Err(e) => return Err(Error::io("receiving from NOTIFY_SOCKET")(e)),
            }
        }
    }

    /// How often `name=value` was received so far.
    ///
    /// # Errors
    /// As [`NotifySocket::seen`].
    pub fn count(&mut self, name: &str, value: &str) -> Result<usize> {
        Ok(self
            .seen()?
            .iter()
            .filter(|n| n.name == name && n.value == value)
            .count())
    }

    /// Waits for a notification that `wanted` accepts, those that came before included.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, with `what` and all that came instead.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Notification) -> bool,
    ) -> Result<Notification> {
        let deadline = Deadline::after(limit);
        loop {
            if let Some(found) = self.seen()?.iter().find(|n| wanted(n)) {
                return Ok(found.clone());
            }
            if !deadline.ready(&self.socket, PollFlags::IN)? {
                let seen: Vec<_> = self
                    .seen
                    .iter()
                    .map(|n| format!("{}={}", n.name, n.value))
                    .collect();
                return Err(deadline.missed(format!("{what} from sd_notify, got {seen:?}")));
            }
        }
    }

    /// Waits for `READY=1`.
    ///
    /// # Errors
    /// As [`NotifySocket::wait_for`].
    pub fn wait_ready(&mut self, limit: Duration) -> Result<Notification> {
        self.wait_for("READY=1", limit, |n| n.name == "READY" && n.value == "1")
    }
}
