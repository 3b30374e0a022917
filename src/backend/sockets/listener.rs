// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that the program listens on.

use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};

use super::activation::{PassedListener, PassedSockets};
use super::error::{SocketError, SocketOption};
use super::passed::{is_passing, named_fd};
use super::path::{self, SocketFile};

/// Limit on connections in a socket's queue: Linux's default for `net.core.somaxconn`.
const BACKLOG_MAX: usize = 4096;

/// A further socket on which a program listens, beside the vhost-user socket: where the options
/// `--NAME-socket=PATH` and `--NAME-fd=FDNUM` say, or else the one that socket activation passed with this name
/// (`FileDescriptorName=`).
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Its name.
    pub name: &'static str,
    /// The value of `--NAME-socket`.
    pub path: Option<PathBuf>,
    /// The value of `--NAME-fd`.
    pub fd: Option<RawFd>,
    /// Whether the program does not start without it. By socket activation it does: the socket unit may have failed or
    /// may start later, and a VM must not be kept from starting by it.
    pub required: bool,
}

/// A socket to listen on: one that was passed, or the path to make it at.
#[derive(Debug)]
pub struct PlannedListener(Plan);

#[derive(Debug)]
enum Plan {
    Passed(PassedListener),
    Path(SocketOption),
}

/// A socket that the program listens on; it does not block. One that the program made is removed when this is dropped.
#[derive(Debug)]
pub struct ListeningSocket {
    listener: Arc<UnixListener>,
    is_port: bool,
    file: Option<SocketFile>,
}

impl PlannedListener {
    pub(crate) fn at_path(option: &str, path: &Path) -> Self {
        Self(Plan::Path(SocketOption {
            name: option.to_owned(),
            path: path.to_owned(),
        }))
    }

    fn passed(listener: Arc<UnixListener>) -> Self {
        Self(Plan::Passed(PassedListener {
            listener,
            is_port: false,
        }))
    }

    /// The socket, if it was passed: it outlives this program, see [`refuse_waiting`].
    #[must_use]
    pub fn shared(&self) -> Option<Arc<UnixListener>> {
        match &self.0 {
            Plan::Passed(passed) => Some(Arc::clone(&passed.listener)),
            Plan::Path(_) => None,
        }
    }

    /// Makes the socket, if it has to be made.
    ///
    /// # Errors
    /// Where the path cannot have a socket.
    pub fn listen(self) -> Result<ListeningSocket, SocketError> {
        match self.0 {
            Plan::Passed(PassedListener { listener, is_port }) => Ok(ListeningSocket {
                listener,
                is_port,
                file: None,
            }),
            Plan::Path(option) => {
                let (listener, file) = path::listen(&option)?;
                Ok(ListeningSocket {
                    listener: Arc::new(listener),
                    is_port: false,
                    file: Some(file),
                })
            }
        }
    }
}

impl ListeningSocket {
    /// The socket, to wait on and to accept from. Of a TCP socket ([`Self::is_port`]) only the descriptor may be used:
    /// the standard library accepts no connection of it.
    #[must_use]
    pub fn listener(&self) -> &Arc<UnixListener> {
        &self.listener
    }

    /// Whether it is a TCP socket. [`plan_listeners`] takes those that socket activation passed.
    #[must_use]
    pub fn is_port(&self) -> bool {
        self.is_port
    }

    /// The file that is removed at the end, if the program made it.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_ref().map(SocketFile::path)
    }

    /// Whether another process, such as the service manager, passed it.
    #[must_use]
    pub fn is_passed(&self) -> bool {
        self.file.is_none()
    }

    pub(crate) fn into_parts(self) -> (Arc<UnixListener>, Option<SocketFile>) {
        (self.listener, self.file)
    }
}

/// The further sockets of a program, by name.
pub(crate) type Further = Vec<(&'static str, PlannedListener)>;

/// Finds the sockets that `options` name, among those that were passed too.
pub(crate) fn plan_further(
    options: &[ListenerOptions],
    passed: &mut PassedSockets,
) -> Result<Further, SocketError> {
    let mut further = Vec::new();
    for options in options {
        let name = options.name;
        let planned = match (&options.path, options.fd) {
            (Some(path), _) => PlannedListener::at_path(&format!("{name}-socket"), path),
            (None, Some(fd)) => {
                let socket = passed.take_fd(&format!("{name}-fd"), fd)?;
                PlannedListener::passed(socket.listening(fd)?)
            }
            (None, None) => match passed.take_named(name)? {
                Some(listener) => PlannedListener::passed(listener),
                None if options.required && !passed.is_activated() => {
                    return Err(SocketError::NoListener { name });
                }
                None => continue,
            },
        };
        further.push((name, planned));
    }
    Ok(further)
}

/// The sockets of a program that listens on several, in their order: at `paths`; or else the descriptor `fd`; or else
/// all that socket activation passed, among which may be TCP sockets. Only at the very start of the program. Clears `LISTEN_*` in any case.
///
/// # Errors
/// Where there is none, or one cannot be listened on. The connections that wait on sockets that were passed are
/// closed then.
pub fn plan_listeners(
    paths: &[PathBuf],
    fd: Option<RawFd>,
) -> Result<Vec<PlannedListener>, SocketError> {
    let mut passed = PassedSockets::take();
    let planned = plan_all(paths, fd, &mut passed);
    if planned.is_err() {
        let shared = passed.into_shared();
        shared.iter().for_each(|listener| refuse_waiting(listener));
    }
    planned
}

fn plan_all(
    paths: &[PathBuf],
    fd: Option<RawFd>,
    passed: &mut PassedSockets,
) -> Result<Vec<PlannedListener>, SocketError> {
    if !paths.is_empty() {
        let paths = paths.iter();
        let planned = paths.map(|path| PlannedListener::at_path("socket-path", path));
        return Ok(planned.collect());
    }
    if let Some(fd) = fd {
        let listener = passed.take_fd("fd", fd)?.listening(fd)?;
        return Ok(vec![PlannedListener::passed(listener)]);
    }
    let listeners = passed.take_all()?.into_iter();
    let planned: Vec<_> = listeners
        .map(|passed| PlannedListener(Plan::Passed(passed)))
        .collect();
    if planned.is_empty() {
        return Err(SocketError::None);
    }
    Ok(planned)
}

/// Closes the connections that wait on the sockets of a command line that cannot be parsed: on those that socket
/// activation passed, and on those that `--OPTION=FDNUM` names for each of `options`. Only as the program's last act.
pub fn refuse_unparsed(options: &[String]) {
    let mut passed = PassedSockets::take();
    for option in options {
        if let Some(fd) = named_fd(std::env::args_os(), option) {
            // What cannot be taken cannot be listened on.
            let _ = passed.take_fd(option, fd);
        }
    }
    let shared = passed.into_shared();
    shared.iter().for_each(|listener| refuse_waiting(listener));
}

/// Closes the connections that wait on `listener`: their clients fail at once instead of waiting, and a service
/// manager does not start the program again for them.
///
/// Only before the program exits: if no descriptor is left to accept with, this closes standard input.
pub fn refuse_waiting(listener: &UnixListener) {
    let mut has_stdin = listener.as_raw_fd() != rustix::stdio::raw_stdin();
    for _ in 0..=BACKLOG_MAX {
        // Not by the standard library, which takes no connection of a TCP socket.
        match accept_with(listener, SocketFlags::CLOEXEC).map_err(io::Error::from) {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
            Err(e) if is_passing(&e) => {}
            Err(e) if has_stdin && Errno::from_io_error(&e) == Some(Errno::MFILE) => {
                has_stdin = false;
                // SAFETY: nothing in this program reads standard input, and it is about to end.
                unsafe { rustix::io::close(rustix::stdio::raw_stdin()) };
            }
            Err(e) => {
                log::warn!("cannot refuse the clients that wait: {e}");
                return;
            }
        }
    }
}
