// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Descriptors that were passed, and what they are.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketType, sockopt};

use super::error::SocketError;

/// A Unix socket that another process passed.
#[derive(Debug)]
pub(crate) enum Passed {
    Listening(Arc<UnixListener>),
    Connected(UnixStream),
}

/// A socket that another process passed, of any kind that a program here serves.
#[derive(Debug)]
pub(super) enum Adopted {
    Unix(Passed),
    /// A TCP socket that listens. Of the standard library's type only the descriptor counts.
    Port(Arc<UnixListener>),
    /// A Unix socket for packets that listens: nothing here serves it, but another program may.
    Packets(Arc<UnixListener>),
}

impl Adopted {
    /// Takes a descriptor that was passed, and asks the kernel what it is.
    pub(super) fn take(number: RawFd, fd: OwnedFd) -> Result<Self, SocketError> {
        let unusable = |e: Errno| SocketError::Descriptor(number, e.into());
        let kind = match sockopt::socket_type(&fd) {
            Err(Errno::NOTSOCK) => return Err(SocketError::NotUnixStream(number)),
            kind => kind.map_err(unusable)?,
        };
        let domain = sockopt::socket_domain(&fd).map_err(unusable)?;
        let is_unix = domain == AddressFamily::UNIX;
        let is_tcp = [AddressFamily::INET, AddressFamily::INET6].contains(&domain);
        let listens = sockopt::socket_acceptconn(&fd).map_err(unusable)?;
        let is_packets = kind == SocketType::SEQPACKET && is_unix && listens;
        if !is_packets && (kind != SocketType::STREAM || !(is_unix || is_tcp)) {
            return Err(SocketError::NotUnixStream(number));
        }
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(unusable)?;
        // The program waits by poll. accept(2) on a blocking socket would ignore signals if another process
        // took the connection in between.
        rustix::io::ioctl_fionbio(&fd, true).map_err(unusable)?;
        if listens {
            let listener = Arc::new(fd.into());
            return Ok(match (is_packets, is_unix) {
                (true, _) => Self::Packets(listener),
                (false, true) => Self::Unix(Passed::Listening(listener)),
                (false, false) => Self::Port(listener),
            });
        }
        if is_tcp {
            return Err(SocketError::NotUnixStream(number));
        }
        match net::getpeername(&fd) {
            Ok(_) => Ok(Self::Unix(Passed::Connected(fd.into()))),
            Err(_) => Err(SocketError::Idle(number)),
        }
    }

    /// The Unix stream socket; an error for another one.
    pub(super) fn unix(self, number: RawFd) -> Result<Passed, SocketError> {
        match self {
            Self::Unix(socket) => Ok(socket),
            Self::Port(_) | Self::Packets(_) => Err(SocketError::NotUnixStream(number)),
        }
    }

    /// The socket, if it listens.
    pub(super) fn listener(&self) -> Option<&Arc<UnixListener>> {
        match self {
            Self::Unix(Passed::Listening(listener))
            | Self::Port(listener)
            | Self::Packets(listener) => Some(listener),
            Self::Unix(Passed::Connected(_)) => None,
        }
    }
}

impl Passed {
    /// The listening socket; an error for a connected one.
    pub(super) fn listening(self, number: RawFd) -> Result<Arc<UnixListener>, SocketError> {
        match self {
            Self::Listening(listener) => Ok(listener),
            Self::Connected(_) => Err(SocketError::NotListening(number)),
        }
    }
}

/// Takes the descriptor that `--OPTION` names, if it is open. Only at the very start of the program.
pub(super) fn open(option: &str, number: RawFd) -> Result<OwnedFd, SocketError> {
    // SAFETY: the descriptor is only asked whether it is open, at the very start of the program,
    // when nothing else can open or close one.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::io::fcntl_getfd(given.as_fd()).is_err() {
        return Err(SocketError::NotOpen {
            option: option.to_owned(),
            fd: number,
        });
    }
    // SAFETY: it is open, and the conventions hand it to this program to keep: nothing here has
    // opened a descriptor yet, and callers take each number once, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The value of `--OPTION` in a command line that cannot be parsed.
pub(super) fn named_fd<I>(arguments: I, option: &str) -> Option<RawFd>
where
    I: IntoIterator<Item = OsString>,
{
    let mut arguments = arguments.into_iter().skip(1);
    while let Some(argument) = arguments.next() {
        let argument = match argument.to_str() {
            Some("--") => return None,
            Some(argument) => argument.strip_prefix("--"),
            None => None,
        };
        let argument = argument.and_then(|argument| argument.strip_prefix(option));
        let value = match argument {
            Some("") => arguments.next()?,
            Some(rest) => match rest.strip_prefix('=') {
                Some(value) => value.into(),
                None => continue,
            },
            None => continue,
        };
        return value.to_str()?.parse().ok().filter(|fd| *fd >= 0);
    }
    None
}

/// Whether to go on accepting after this error of accept(2).
pub(crate) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{TcpListener, TcpStream};

    use rustix::net::SocketAddrUnix;

    use super::*;

    #[test]
    fn fd_is_found_in_an_invalid_command_line() {
        let fd = |line: &str, option| named_fd(line.split(' ').map(OsString::from), option);
        assert_eq!(fd("gpu --bad --fd=3 stray", "fd"), Some(3));
        assert_eq!(fd("gpu stray --fd 4 --fd=5", "fd"), Some(4));
        assert_eq!(fd("gpu --display-fd=3 --fd=5 --bad", "display-fd"), Some(3));
        assert_eq!(fd("gpu --display-fd=3 --fd=5 --bad", "fd"), Some(5));
        for line in [
            "gpu",
            "gpu --fd",
            "gpu --fd=x",
            "gpu --fd=-1",
            "gpu --fdx=3",
            "gpu -- --fd=3",
        ] {
            assert_eq!(fd(line, "fd"), None, "{line}");
        }
    }

    #[test]
    fn descriptors_are_classified() {
        let take = |fd: OwnedFd| Adopted::take(3, fd);
        let error = |fd: OwnedFd| take(fd).map(drop).unwrap_err();
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(
            take(one.into()).unwrap(),
            Adopted::Unix(Passed::Connected(_))
        ));
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(matches!(
            take(listener.into()).unwrap(),
            Adopted::Unix(Passed::Listening(_))
        ));
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let viewer = TcpStream::connect(port.local_addr().unwrap()).unwrap();
        let port = take(port.into()).unwrap();
        assert!(port.listener().is_some());
        assert!(matches!(
            port.unix(3).unwrap_err(),
            SocketError::NotUnixStream(3)
        ));
        assert!(matches!(
            error(viewer.into()),
            SocketError::NotUnixStream(3)
        ));
        let idle = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        assert!(matches!(error(idle), SocketError::Idle(3)));
        let path = SocketAddrUnix::new(folder.path().join("packets")).unwrap();
        let packets = net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).unwrap();
        assert!(matches!(
            error(packets.try_clone().unwrap()),
            SocketError::NotUnixStream(3)
        ));
        net::bind(&packets, &path).unwrap();
        net::listen(&packets, 1).unwrap();
        let packets = take(packets).unwrap();
        assert!(packets.listener().is_some());
        assert!(matches!(
            packets.unix(3).unwrap_err(),
            SocketError::NotUnixStream(3)
        ));
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(matches!(
            error(datagram.into()),
            SocketError::NotUnixStream(3)
        ));
        let file = fs::File::open("/dev/null").unwrap();
        assert!(matches!(error(file.into()), SocketError::NotUnixStream(3)));
    }
}
