// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why a socket cannot be used.

use std::fmt;
use std::io;
use std::os::fd::RawFd;
use std::path::PathBuf;

use conventions::SOCKET_PATH_MAX;

/// A socket as an option names it, as the user writes it: `--socket-path=PATH`.
#[derive(Debug, Clone)]
pub struct SocketOption {
    /// The option's name, without dashes.
    pub name: String,
    /// The path.
    pub path: PathBuf,
}

impl fmt::Display for SocketOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--{}={}", self.name, self.path.display())
    }
}

/// Why there is no socket to serve on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// No option names a socket, and socket activation passed none.
    #[error(
        "no socket to serve on: give --socket-path=PATH or --fd=FDNUM, or start by socket activation"
    )]
    None,
    /// Neither options nor socket activation name a socket that the program needs.
    #[error(
        "no socket for {name}: give --{name}-socket=PATH or --{name}-fd=FDNUM, or pass a socket named \
         \"{name}\" by socket activation (FileDescriptorName={name})"
    )]
    NoListener {
        /// The name of the socket.
        name: &'static str,
    },
    /// Socket activation passed several sockets, and their names do not tell which is meant.
    #[error(
        "{0} sockets were passed (LISTEN_FDS), and one is served: name it \"vhost-user\" \
         (FileDescriptorName=vhost-user), or with --fd=FDNUM"
    )]
    Several(usize),
    /// Socket activation passed a socket that the program does not serve.
    #[error(
        "a socket named \"{}\" was passed (LISTEN_FDNAMES), which nobody would serve here",
        conventions::printable(.0)
    )]
    Unknown(String),
    /// Socket activation passed several sockets of the same name.
    #[error("several sockets named \"{0}\" were passed (LISTEN_FDNAMES), and one is served")]
    Ambiguous(&'static str),
    /// Two options name the same descriptor.
    #[error("file descriptor {0} is named twice: each socket has a descriptor of its own")]
    Twice(RawFd),
    /// The descriptor is not open.
    #[error("--{option}={fd}: no such file descriptor is open; pass an open Unix stream socket")]
    NotOpen {
        /// The option, without dashes.
        option: String,
        /// Its value.
        fd: RawFd,
    },
    /// The descriptor is not a Unix stream socket.
    #[error("file descriptor {0} is not a Unix stream socket")]
    NotUnixStream(RawFd),
    /// The socket neither listens nor is connected.
    #[error("file descriptor {0} is a Unix stream socket that neither listens nor is connected")]
    Idle(RawFd),
    /// The socket is connected, and a listening one is needed.
    #[error("file descriptor {0} is a connected socket, and a listening one is needed here")]
    NotListening(RawFd),
    /// Another error with the descriptor.
    #[error("cannot use file descriptor {0}: {1}")]
    Descriptor(RawFd, #[source] io::Error),
    /// The path does not fit a socket address.
    #[error(
        "{}: {} bytes are too long for a Unix socket address, which holds {SOCKET_PATH_MAX}",
        .0, .0.path.as_os_str().len()
    )]
    TooLong(SocketOption),
    /// The directory of the path does not exist.
    #[error("{}: the folder {} does not exist", .0, .1.display())]
    NoFolder(SocketOption, PathBuf),
    /// A file that is not a socket exists at the path.
    #[error("{0}: the file exists and is not a socket")]
    NotASocket(SocketOption),
    /// Another process listens at the path.
    #[error("{0}: another process serves on it")]
    InUse(SocketOption),
    /// Another error with the path.
    #[error("{option}: cannot {attempt}: {error}")]
    Path {
        /// The option with the path.
        option: SocketOption,
        /// What failed.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        error: io::Error,
    },
}
