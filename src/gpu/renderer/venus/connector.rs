// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Connects to the render server again, for a program that may make no socket any more.
//!
//! The connector is a process of its own ([`start_helper`]), which does nothing else. The path is fixed when it starts.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, send, sendmsg,
};

use super::render_server;
use crate::backend::{
    HelperError, SandboxMode, SandboxPolicy, SyscallArgument, SyscallRule, start_helper,
};

/// The program's end of a connector.
#[derive(Debug)]
pub(super) struct Connector {
    socket: OwnedFd,
}

/// What the connector is told: to connect.
const ORDER: &[u8] = b"c";
/// Bytes of an answer: an error (errno(3)), or 0 and the connection.
const ANSWER_LEN: usize = 4;

impl Connector {
    /// Starts a connector to the render server that listens at `path`. Its sandbox is as `mode` says.
    ///
    /// # Errors
    /// Those of [`start_helper`].
    pub(super) fn start(path: &Path, mode: SandboxMode) -> Result<Self, HelperError> {
        let unix = u32::from(AddressFamily::UNIX.as_raw());
        let policy = SandboxPolicy {
            calls: vec![
                SyscallRule::with(libc::SYS_socket, SyscallArgument::is(0, unix)),
                SyscallRule::any(libc::SYS_connect),
            ],
            ..SandboxPolicy::default()
        };
        let purpose = "connects to the render server again";
        let prepare = || Ok(());
        let socket = start_helper(
            c"gpu-connector",
            purpose,
            mode,
            policy,
            prepare,
            |(), socket| {
                // An error ends the connector, which the program notices.
                let _ = serve(&socket, || render_server::connect_to(path));
            },
        )?;
        Ok(Self { socket })
    }

    /// The program's end of a connector whose other end is in a test.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(super) fn fake(socket: OwnedFd) -> Self {
        Self { socket }
    }

    /// Has it connect. The answer comes soon.
    ///
    /// # Errors
    /// If the connector has ended.
    pub(super) fn order(&self) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        retry_on_intr(|| send(&self.socket, ORDER, flags))?;
        Ok(())
    }

    /// The answer: the connection, or why there is none; `None` if there is no answer yet.
    ///
    /// # Errors
    /// If the connector has ended.
    pub(super) fn answer(&self) -> io::Result<Option<io::Result<OwnedFd>>> {
        match retry_on_intr(|| receive(&self.socket)) {
            Ok(answer) => Ok(Some(answer.map_err(io::Error::from))),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Readable when there is an answer, or the connector has ended.
impl AsFd for Connector {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Does what it is told, until the program ends.
pub(super) fn serve(socket: &OwnedFd, connect: impl Fn() -> io::Result<OwnedFd>) -> io::Result<()> {
    loop {
        let mut order = [0_u8; 1];
        let received = retry_on_intr(|| recv(socket, order.as_mut_slice(), RecvFlags::empty()));
        let (_, len) = received?;
        if len == 0 {
            return Ok(());
        }
        answer(socket, connect())?;
    }
}

/// Answers an order.
pub(super) fn answer(socket: &OwnedFd, connected: io::Result<OwnedFd>) -> io::Result<()> {
    let error = match &connected {
        Ok(_) => 0,
        Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
    };
    let files: Vec<_> = connected.iter().map(OwnedFd::as_fd).collect();
    let bytes: [u8; ANSWER_LEN] = error.to_ne_bytes();
    retry_on_intr(|| {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(&files));
        }
        let bytes = [IoSlice::new(&bytes)];
        sendmsg(socket, &bytes, &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// The next answer, on a non-blocking socket. `PIPE` at the end.
fn receive(socket: &OwnedFd) -> Result<Result<OwnedFd, Errno>, Errno> {
    let mut bytes = [0; ANSWER_LEN];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let into = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, into, &mut control, flags)?;
    if received.bytes != ANSWER_LEN {
        return Err(Errno::PIPE);
    }
    let mut files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    let file = files.next().and_then(|mut files| files.next());
    Ok(match (i32::from_ne_bytes(bytes), file) {
        (0, Some(connection)) => Ok(connection),
        // The program has no descriptor left to receive it.
        (0, None) => Err(Errno::MFILE),
        (error, _) => Err(Errno::from_raw_os_error(error)),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use rustix::net::{SocketFlags, SocketType, socketpair};

    use super::*;

    #[test]
    fn connection_and_error_reach_the_program() {
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let connector = Connector::fake(ours);
        assert!(connector.answer().unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server");
        let work = std::thread::spawn(move || {
            serve(&theirs, || {
                let listener = UnixListener::bind(&path);
                match listener {
                    // The first time.
                    Ok(listener) => Ok(listener.into()),
                    Err(_) => render_server::connect_to(&path),
                }
            })
        });
        let wait = || loop {
            if let Some(answer) = connector.answer().unwrap() {
                return answer;
            }
        };
        connector.order().unwrap();
        wait().unwrap();
        connector.order().unwrap();
        // A stream socket listened there.
        let error = wait().unwrap_err();
        assert!(error.raw_os_error().is_some(), "{error}");
        drop(connector);
        work.join().unwrap().unwrap();
    }

    #[test]
    fn end_of_the_connector_is_noticed() {
        let kind = SocketType::SEQPACKET;
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
        let connector = Connector::fake(ours);
        drop(theirs);
        assert!(connector.answer().is_err());
        assert!(connector.order().is_err());
    }
}
