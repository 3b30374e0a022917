//! The socket to serve on, in its three forms: a path to listen on, a listening socket that was passed
//! (systemd), and a connected socket that was passed (libvirt).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use conventions::SOCKET_PATH_MAX;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType, sockopt};

use super::options::ConnectionOptions;
use activation::{Activation, named_fd, open};

mod activation;

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No option names a socket, and socket activation passed none.
    #[error(
        "no socket to serve on: give --socket-path=PATH or --fd=FDNUM, or start by socket activation"
    )]
    None,
    /// Socket activation passed several sockets.
    #[error("{0} sockets were passed (LISTEN_FDS), and one is served: name it with --fd=FDNUM")]
    Several(usize),
    /// The descriptor is not open.
    #[error("--fd={0}: no such file descriptor is open; pass an open Unix stream socket")]
    NotOpen(RawFd),
    /// The descriptor is not a Unix stream socket.
    #[error("file descriptor {0} is not a Unix stream socket")]
    NotUnixStream(RawFd),
    /// The socket neither listens nor is connected.
    #[error("file descriptor {0} is a Unix stream socket that neither listens nor is connected")]
    Idle(RawFd),
    /// Another error with the descriptor.
    #[error("cannot use file descriptor {0}: {1}")]
    Descriptor(RawFd, #[source] io::Error),
    /// The path does not fit a socket address.
    #[error(
        "--socket-path={}: {} bytes are too long for a Unix socket address, which holds {SOCKET_PATH_MAX}",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// The directory of the path does not exist.
    #[error("--socket-path={}: the folder {} does not exist", .0.display(), .1.display())]
    NoFolder(PathBuf, PathBuf),
    /// A file that is not a socket exists at the path.
    #[error("--socket-path={}: the file exists and is not a socket", .0.display())]
    NotASocket(PathBuf),
    /// Another process listens at the path.
    #[error("--socket-path={}: another process serves on it", .0.display())]
    InUse(PathBuf),
    /// Another error with the path.
    #[error("--socket-path={}: cannot {attempt}: {error}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// What failed.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
}

/// The socket that was passed to the program, or the path to make it at.
///
/// Found before the program opens any file, which could get the number that `--fd` names.
#[derive(Debug)]
pub(super) enum NamedSocket {
    Path(PathBuf),
    Passed(Endpoint),
}

/// A socket to serve on.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// Made by this program: other front-ends are turned away at once.
    Ours(UnixListener, SocketFile),
    /// Passed by another process: other front-ends are for the next start of the program.
    Listening {
        listener: Rc<UnixListener>,
        /// A front-end that an earlier run accepted, and the service manager kept.
        kept: Option<UnixStream>,
    },
    Connected(UnixStream),
}

impl NamedSocket {
    /// Finds the socket that the options or socket activation name. Clears `LISTEN_*` in any case.
    pub(super) fn find(options: &ConnectionOptions) -> Result<Self, SocketError> {
        let mut activated = Activation::take();
        let kept = activated.take_kept();
        let mut socket = match (&options.socket_path, options.fd) {
            (Some(path), _) => Self::Path(path.clone()),
            (None, Some(fd)) => Self::Passed(Endpoint::adopt(fd, open(fd)?)?),
            (None, None) => Self::Passed(activated.endpoint()?),
        };
        if let Self::Passed(Endpoint::Listening { kept: place, .. }) = &mut socket {
            *place = kept;
        }
        Ok(socket)
    }

    /// The listening socket that was passed, which outlives this program.
    pub(super) fn shared_listener(&self) -> Option<Rc<UnixListener>> {
        match self {
            Self::Passed(Endpoint::Listening { listener, .. }) => Some(Rc::clone(listener)),
            Self::Passed(Endpoint::Ours(..) | Endpoint::Connected(_)) | Self::Path(_) => None,
        }
    }

    /// Makes the socket, if it has to be made.
    pub(super) fn endpoint(self) -> Result<Endpoint, SocketError> {
        match self {
            Self::Path(path) => Endpoint::listen(&path),
            Self::Passed(endpoint) => Ok(endpoint),
        }
    }
}

/// Limit on connections in a socket's queue: Linux's default for `net.core.somaxconn`.
const BACKLOG_MAX: usize = 4096;

/// The socket of socket activation as it was passed, for a program that hands it on.
///
/// # Errors
/// Where there is not exactly one Unix stream socket.
pub fn activated_socket() -> Result<OwnedFd, SocketError> {
    Activation::take().socket()
}

/// Closes the connections that wait on `listener`: their front-ends fail at once instead of waiting.
///
/// Only before the program exits: if no descriptor is left to accept with, this closes standard input.
pub(super) fn refuse_waiting(listener: &UnixListener) {
    let mut has_stdin = listener.as_raw_fd() != rustix::stdio::raw_stdin();
    for _ in 0..=BACKLOG_MAX {
        match listener.accept() {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if is_passing(&e) => {}
            Err(e) if has_stdin && Errno::from_io_error(&e) == Some(Errno::MFILE) => {
                has_stdin = false;
                // SAFETY: nothing in this program reads standard input, and it is about to end.
                unsafe { rustix::io::close(rustix::stdio::raw_stdin()) };
            }
            Err(e) => {
                log::warn!("cannot refuse the front-ends that wait: {e}");
                return;
            }
        }
    }
}

/// [`refuse_waiting`] after a usage error, on the socket of `--fd` or of socket activation.
pub(super) fn refuse_unparsed<I>(arguments: I)
where
    I: IntoIterator<Item = OsString>,
{
    let endpoint = match named_fd(arguments) {
        Some(fd) => open(fd).and_then(|socket| Endpoint::adopt(fd, socket)),
        None => Activation::take().endpoint(),
    };
    if let Ok(Endpoint::Listening { listener, .. }) = endpoint {
        refuse_waiting(&listener);
    }
}

/// Whether to go on accepting after this error of accept(2).
pub(super) fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted
    )
}

impl Endpoint {
    /// Takes a descriptor that was passed, and asks the kernel what it is.
    fn adopt(number: RawFd, fd: OwnedFd) -> Result<Self, SocketError> {
        let unusable = |e: Errno| SocketError::Descriptor(number, e.into());
        let kind = match sockopt::socket_type(&fd) {
            Err(Errno::NOTSOCK) => return Err(SocketError::NotUnixStream(number)),
            kind => kind.map_err(unusable)?,
        };
        let domain = sockopt::socket_domain(&fd).map_err(unusable)?;
        if kind != SocketType::STREAM || domain != AddressFamily::UNIX {
            return Err(SocketError::NotUnixStream(number));
        }
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).map_err(unusable)?;
        // The program waits by poll. accept(2) on a blocking socket would ignore signals if another process
        // took the connection in between.
        rustix::io::ioctl_fionbio(&fd, true).map_err(unusable)?;
        if sockopt::socket_acceptconn(&fd).map_err(unusable)? {
            return Ok(Self::Listening {
                listener: Rc::new(fd.into()),
                kept: None,
            });
        }
        match net::getpeername(&fd) {
            Ok(_) => Ok(Self::Connected(fd.into())),
            Err(_) => Err(SocketError::Idle(number)),
        }
    }

    /// Makes a socket at `path`. Replaces a socket that nobody listens on; leaves other files alone.
    fn listen(path: &Path) -> Result<Self, SocketError> {
        let failed = |attempt| {
            move |error| SocketError::Path {
                path: path.to_owned(),
                attempt,
                error,
            }
        };
        if path.as_os_str().len() > SOCKET_PATH_MAX {
            return Err(SocketError::TooLong(path.to_owned()));
        }
        let folder = match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => Path::new("/"),
        };
        match fs::metadata(folder) {
            Ok(there) if there.is_dir() => {}
            Ok(_) => return Err(SocketError::NoFolder(path.to_owned(), folder.to_owned())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(SocketError::NoFolder(path.to_owned(), folder.to_owned()));
            }
            Err(e) => return Err(failed("look into its folder")(e)),
        }
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(failed("look at what lies there")(e)),
            Ok(there) if !there.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            Ok(_)
                if is_alive(path)
                    .map_err(failed("tell whether another process serves on it"))? =>
            {
                return Err(SocketError::InUse(path.to_owned()));
            }
            Ok(_) => {
                log::info!("replacing the stale socket {}", path.display());
                fs::remove_file(path).map_err(failed("replace the stale socket"))?;
            }
        }
        let listener = UnixListener::bind(path).map_err(failed("listen"))?;
        let file = SocketFile::new(path).map_err(failed("look at the new socket"))?;
        listener
            .set_nonblocking(true)
            .map_err(failed("set up the new socket"))?;
        Ok(Self::Ours(listener, file))
    }

    /// The file that is to be removed at the end.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Ours(_, file) => Some(&file.path),
            Self::Listening { .. } | Self::Connected(_) => None,
        }
    }

    /// Where it is, in words.
    pub(super) fn describe(&self) -> String {
        let address = match self {
            Self::Ours(_, file) => return file.path.display().to_string(),
            Self::Listening { listener, .. } => listener.local_addr(),
            Self::Connected(stream) => stream.local_addr(),
        };
        address
            .ok()
            .and_then(|address| address.as_pathname().map(|path| path.display().to_string()))
            .unwrap_or_else(|| "an unnamed socket".to_owned())
    }
}

/// The socket file we made; gone when this is, unless another file lies there by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            // The program may be asked to leave its folder before the end.
            path: std::path::absolute(path)?,
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(e) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove the socket {}: {e}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

/// Whether a process still holds the socket at `path`. Connecting would tell, but would also be
/// that process's front-end; a datagram socket is refused by a live stream socket in another way
/// than by a dead one, and nobody notices.
fn is_alive(path: &Path) -> io::Result<bool> {
    let probe = net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<Endpoint, SocketError>) -> SocketError {
        result.map(|endpoint| endpoint.describe()).unwrap_err()
    }

    #[test]
    fn own_socket_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let endpoint = Endpoint::listen(&path).unwrap();
        assert_eq!(endpoint.describe(), path.display().to_string());
        assert!(path.exists());
        drop(endpoint);
        assert!(!path.exists());
    }

    #[test]
    fn file_that_replaced_the_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let endpoint = Endpoint::listen(&path).unwrap();
        fs::rename(&path, folder.path().join("kept")).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(endpoint);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert!(matches!(
            error(Endpoint::listen(&path)),
            SocketError::InUse(_)
        ));
        // The probe is not a connection.
        live.set_nonblocking(true).unwrap();
        assert_eq!(live.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(live);
        drop(Endpoint::listen(&path).unwrap());

        fs::write(&path, "mine").unwrap();
        assert!(matches!(
            error(Endpoint::listen(&path)),
            SocketError::NotASocket(_)
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn impossible_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(SOCKET_PATH_MAX));
        assert!(matches!(
            error(Endpoint::listen(&long)),
            SocketError::TooLong(_)
        ));
        let missing = folder.path().join("missing/gpu.sock");
        assert!(matches!(
            error(Endpoint::listen(&missing)),
            SocketError::NoFolder(..)
        ));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            error(Endpoint::listen(&file.join("gpu.sock"))),
            SocketError::NoFolder(..)
        ));
        // A folder that is there and cannot be looked at is not called missing.
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert!(matches!(
            error(Endpoint::listen(&circle.join("gpu.sock"))),
            SocketError::Path { .. }
        ));
    }

    #[test]
    fn descriptors_are_classified() {
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(matches!(
            Endpoint::adopt(3, one.into()).unwrap(),
            Endpoint::Connected(_)
        ));
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(matches!(
            Endpoint::adopt(3, listener.into()).unwrap(),
            Endpoint::Listening { .. }
        ));
        let idle = net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        assert!(matches!(
            error(Endpoint::adopt(3, idle)),
            SocketError::Idle(3)
        ));
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(matches!(
            error(Endpoint::adopt(3, datagram.into())),
            SocketError::NotUnixStream(3)
        ));
        let file = fs::File::open("/dev/null").unwrap();
        assert!(matches!(
            error(Endpoint::adopt(3, file.into())),
            SocketError::NotUnixStream(3)
        ));
    }
}
