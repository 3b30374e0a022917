// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The connection to the render server, which virglrenderer uses. This process keeps a duplicate, to notice its end.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

/// Connects to the render server that listens at `path`.
///
/// # Errors
/// If nothing listens there, or on a socket of another type than `SOCK_SEQPACKET`.
pub(super) fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let address = SocketAddrUnix::new(path)?;
    let kind = SocketType::SEQPACKET;
    let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
    connect(&socket, &address)?;
    Ok(socket)
}

/// A render server.
#[derive(Debug)]
pub(super) struct RenderServer {
    socket: OwnedFd,
}

impl RenderServer {
    /// The server at the other end of `socket`.
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Whether its process has ended, or hung up.
    pub(super) fn has_ended(&self) -> bool {
        let ends = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut fds = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(0) | Err(_) => false,
            Ok(_) => fds.iter().any(|fd| fd.revents().intersects(ends)),
        }
    }
}

impl AsFd for RenderServer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
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
    fn stream_sockets_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let error = connect_to(&path).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPROTOTYPE));
    }
}
