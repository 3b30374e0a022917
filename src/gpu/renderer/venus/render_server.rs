// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connections to the render server, one of them for each context. virglrenderer uses them; this process keeps duplicates, to
//! notice their ends.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::{fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::net::{
    AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, connect, shutdown,
    socket_with, sockopt,
};

/// Connects to the render server that listens at `path`.
///
/// # Errors
/// If nothing listens there, or on a socket of another type than `SOCK_SEQPACKET`.
pub(super) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let kind = SocketType::SEQPACKET;
    // Nothing waits for room in the queue of a listener that accepts nothing.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
    connect(&socket, &address)?;
    ioctl_fionbio(&socket, false)?;
    Ok(socket)
}

/// The number that a new descriptor gets now; `None` if the process can have no more.
pub(super) fn next_descriptor() -> Option<RawFd> {
    let flags = EventfdFlags::CLOEXEC;
    Some(eventfd(0, flags).ok()?.as_raw_fd())
}

/// A duplicate of the connection that virglrenderer has just received, in a descriptor of the number `first` or of one behind it,
/// should another thread have taken that. The library gives no access to it, and does not tell when a context's process at the
/// server ends: its own thread for the context then turns without a pause, until the context is destroyed.
pub(super) fn new_connection(first: RawFd) -> Option<OwnedFd> {
    /// More than other threads open meanwhile.
    const MOST: RawFd = 16;
    (first..first.saturating_add(MOST)).find_map(|number| {
        // SAFETY: the descriptor may not be open or be closed by its owner meanwhile, so that nothing is done but to duplicate it,
        // which then fails.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let duplicate = fcntl_dupfd_cloexec(descriptor, 0).ok()?;
        let is_ours = sockopt::socket_domain(&duplicate) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&duplicate) == Ok(SocketType::SEQPACKET);
        is_ours.then_some(duplicate)
    })
}

/// A render server, or its part for one context.
#[derive(Debug)]
pub(super) struct RenderServer {
    /// `None` where this process renders.
    socket: Option<OwnedFd>,
}

impl RenderServer {
    /// None: this process renders itself.
    pub(super) fn here() -> Self {
        Self { socket: None }
    }

    /// Logs its end: `how` it came, whether a program of the guest used it, and whether another one follows. Returns a short form
    /// of it.
    pub(super) fn log_end(&self, how: &str, was_used: bool, is_followed: bool) -> String {
        let (what, who) = match self.socket {
            Some(_) => ("Vulkan", "the render server"),
            None => ("the native context", "the GPU's driver"),
        };
        let whose = match was_used {
            true => format!("the guest's programs that use {what} are lost"),
            false => format!("no program of the guest used {what}"),
        };
        let next = match is_followed {
            true => "programs that start from now on get a new one",
            false => "there are no others until the VM is started again",
        };
        log::error!("{who} {how}: {whose}, and {next}");
        format!("{what} is lost: {who} {how}")
    }

    /// The connection, if it is another process.
    pub(super) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(OwnedFd::as_fd)
    }

    /// The server at the other end of `socket`.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
        }
    }

    /// Ends the connection, also that of the library, which has a duplicate: it waits for the server no more.
    pub(super) fn shut_down(&self) {
        if let Some(socket) = &self.socket {
            // It fails only where the connection has ended.
            let _ = shutdown(socket, Shutdown::Both);
        }
    }

    /// Whether its process has ended, or hung up.
    pub(super) fn has_ended(&self) -> bool {
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let Some(socket) = &self.socket else {
            return false;
        };
        let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) | Err(_) => false,
            Ok(_) => fds.iter().any(|fd| fd.revents().intersects(ends)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::socketpair;

    use super::*;

    #[test]
    fn end_of_the_server_is_noticed() {
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let server = RenderServer::new(ours);
        assert!(!server.has_ended());
        drop(theirs);
        assert!(server.has_ended());
    }

    #[test]
    fn new_connection_is_found_by_its_number() {
        let first = next_descriptor().unwrap();
        assert!(new_connection(first).is_none());
        let other = next_descriptor().map(|_| eventfd(0, EventfdFlags::CLOEXEC));
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let found = RenderServer::new(new_connection(first).unwrap());
        assert!(!found.has_ended());
        drop((ours, theirs, other));
        assert!(found.has_ended());
    }

    #[test]
    fn stream_sockets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = connect_to(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
    }
}
