// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-accept: starts a backend program that does not take a listening socket.
//!
//! systemd passes a listening socket. This program accepts one connection on it and becomes the other
//! program, which finds the connection where the listening socket was; or it starts the other program,
//! which makes a socket of its own, and passes the messages of the connection on to that.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use conventions::FIRST_PASSED_FD;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{self, SocketFlags, SocketType, sockopt};

use crate::backend::{ConnectionSide, SocketError, activated_socket, forward};
use running_program::RunningProgram;

mod error;
mod running_program;

pub use error::Error;

/// What would tell the program that descriptor 3 listens.
const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// A program that serves one connection.
#[derive(Debug)]
pub struct BackendProgram {
    program: PathBuf,
    arguments: Vec<OsString>,
    /// Where it listens; empty for one that takes the connection as a descriptor.
    socket_paths: Vec<PathBuf>,
}

impl BackendProgram {
    /// The program of a command line, by its absolute path, with its arguments. With `socket_paths` it
    /// listens on one of these; without, it takes a connected socket as descriptor 3.
    ///
    /// # Errors
    /// [`Error::Usage`] for a program without an absolute path.
    pub fn new(command: &[OsString], socket_paths: &[PathBuf]) -> Result<Self, Error> {
        match command.split_first() {
            Some((program, arguments)) if Path::new(program).is_absolute() => Ok(Self {
                program: program.into(),
                arguments: arguments.to_vec(),
                socket_paths: socket_paths.to_vec(),
            }),
            first => {
                let word = first.map(|(word, _)| word.clone());
                Err(Error::Usage(word.unwrap_or_default()))
            }
        }
    }

    /// Accepts a connection on the socket of socket activation and has the program serve it. Where the
    /// program takes a descriptor, it replaces this process, and this returns only an error.
    ///
    /// # Errors
    /// Where no connection comes, the program cannot be run, or it ends before the front-end does.
    pub fn accept(self) -> Result<(), Error> {
        let socket = listening()?;
        // Messages are forwarded on streams only.
        let is_stream = sockopt::socket_type(&socket) == Ok(SocketType::STREAM);
        if !is_stream && !self.socket_paths.is_empty() {
            return Err(Error::NotListening);
        }
        let connection = accept_open(&socket).map_err(|error| Error::Accept(error.into()))?;
        let Self {
            program,
            arguments,
            socket_paths,
        } = self;
        let mut command = Command::new(&program);
        command.args(arguments);
        for name in ACTIVATION {
            command.env_remove(name);
        }
        if socket_paths.is_empty() {
            return Err(become_program(program, command, socket, connection));
        }
        drop(socket);
        serve_beside(program, command, &socket_paths, connection.into())
    }
}

/// Accepts the first connection that is still open, or the last one. Each that is closed would cost a start of the program,
/// of which systemd allows some in a time: a GPU leaves many behind while its render server hangs.
fn accept_open(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    loop {
        let connection = accept(socket)?;
        let is_closed = is_ready(&connection, PollFlags::empty());
        if !is_closed || !is_ready(socket, PollFlags::IN) {
            return Ok(connection);
        }
    }
}

/// Whether there is one of these events, or the other end is closed.
fn is_ready(socket: &OwnedFd, events: PollFlags) -> bool {
    let mut fds = [PollFd::new(socket, events)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Replaces this process by the program; returns only an error.
fn become_program(
    program: PathBuf,
    mut command: Command,
    mut socket: OwnedFd,
    connection: OwnedFd,
) -> Error {
    // The listening socket is closed by this, and the new descriptor stays open over exec.
    if let Err(error) = rustix::io::dup2(&connection, &mut socket) {
        return Error::Pass(error.into());
    }
    drop(connection);
    Error::Run {
        program,
        error: command.exec(),
    }
}

/// Runs the program, which ends after the front-end disconnected.
fn serve_beside(
    program: PathBuf,
    command: Command,
    paths: &[PathBuf],
    front_end: UnixStream,
) -> Result<(), Error> {
    let mut running = RunningProgram::start(program, command)?;
    let backend = running.connect(paths)?;
    match forward(front_end, backend)? {
        ConnectionSide::FrontEnd => Ok(()),
        ConnectionSide::Backend => Err(running.why_closed()),
    }
}

/// The socket of socket activation, which must be the first descriptor.
fn listening() -> Result<OwnedFd, Error> {
    let socket = activated_socket().map_err(|error| match error {
        SocketError::None => Error::NoSocket,
        SocketError::Several(several) => Error::Several(several),
        _ => Error::NotListening,
    })?;
    let listens = sockopt::socket_acceptconn(&socket).unwrap_or(false);
    if listens && socket.as_raw_fd() == FIRST_PASSED_FD {
        Ok(socket)
    } else {
        Err(Error::NotListening)
    }
}

/// The first connection. SIGTERM ends the wait, as it ends the program.
fn accept(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    loop {
        match net::accept_with(socket, SocketFlags::CLOEXEC) {
            // The connection is gone already, or another process took it.
            Err(Errno::AGAIN) => {
                let mut waiting = [PollFd::new(socket, PollFlags::IN)];
                match poll(&mut waiting, None) {
                    Ok(_) | Err(Errno::INTR) => {}
                    Err(error) => return Err(error),
                }
            }
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            result => return result,
        }
    }
}
