//! vhost-user-accept: starts a backend program that takes a connected socket.
//!
//! systemd passes a listening socket. This program accepts one connection on it and becomes the other
//! program, which finds the connection where the listening socket was.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{CommandFactory as _, Parser};
use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use vhost_user_backends::backend::{printable, usage_text};

const NAME: &str = "vhost-user-accept";
/// The first descriptor of socket activation (sd_listen_fds(3)).
const FD: RawFd = 3;
/// What would tell PROGRAM that descriptor 3 listens.
const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// Accept a front-end's connection and run a backend program that takes a connected socket
///
/// The listening socket comes by socket activation. PROGRAM replaces this process and has the connection
/// as file descriptor 3.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Options {
    /// Program to run: an absolute path
    #[arg(value_name = "PROGRAM", value_parser = absolute)]
    program: PathBuf,

    /// Arguments of PROGRAM
    #[arg(
        value_name = "ARGS",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    arguments: Vec<OsString>,
}

fn absolute(text: &str) -> Result<PathBuf, &'static str> {
    let path = PathBuf::from(text);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("an absolute path is needed, such as /usr/bin/passt")
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("no socket to accept from: start it by socket activation")]
    NoSocket,
    #[error("{0} sockets were passed (LISTEN_FDS), one is needed")]
    Several(usize),
    #[error("file descriptor {FD} is not a listening Unix stream socket")]
    NotListening,
    #[error("cannot accept a connection: {0}")]
    Accept(io::Error),
    #[error("cannot pass the connection on as file descriptor {FD}: {0}")]
    Pass(io::Error),
    #[error("cannot run {}: {error}", program.display())]
    Run { program: PathBuf, error: io::Error },
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) if error.use_stderr() => {
            let status = error.exit_code();
            eprint!("{}", usage_text(error, Options::command()));
            std::process::exit(status);
        }
        Err(error) => error.exit(),
    };
    let Err(error) = run(&options);
    eprintln!("{NAME}: {}", printable(&error.to_string()));
    ExitCode::FAILURE
}

/// Returns only if it fails. The connection is closed then, which tells the front-end.
fn run(options: &Options) -> Result<Infallible, Error> {
    let mut socket = listening()?;
    let connection = accept(&socket).map_err(|error| Error::Accept(error.into()))?;
    // The listening socket is closed by this, and the new descriptor stays open over exec.
    rustix::io::dup2(&connection, &mut socket).map_err(|error| Error::Pass(error.into()))?;
    drop(connection);
    let mut command = Command::new(&options.program);
    command.args(&options.arguments);
    for name in ACTIVATION {
        command.env_remove(name);
    }
    Err(Error::Run {
        program: options.program.clone(),
        error: command.exec(),
    })
}

/// The socket of socket activation.
fn listening() -> Result<OwnedFd, Error> {
    // listenfd takes an absent LISTEN_PID as meant for everybody; systemd does not.
    if std::env::var_os("LISTEN_PID").is_none_or(|pid| pid.is_empty()) {
        return Err(Error::NoSocket);
    }
    let mut passed = ListenFd::from_env();
    match passed.len() {
        0 => return Err(Error::NoSocket),
        1 => {}
        several => return Err(Error::Several(several)),
    }
    let family = i32::from(AddressFamily::UNIX.as_raw());
    let kind = i32::try_from(SocketType::STREAM.as_raw()).map_err(|_| Error::NotListening)?;
    let socket: OwnedFd = passed
        .take_custom(0, family, kind, "Unix stream socket")
        .map_err(|_| Error::NotListening)?
        .ok_or(Error::NoSocket)?;
    let listens = sockopt::socket_acceptconn(&socket).unwrap_or(false);
    if listens && socket.as_raw_fd() == FD {
        Ok(socket)
    } else {
        Err(Error::NotListening)
    }
}

/// The first connection. SIGTERM ends the wait, as it ends the program.
fn accept(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    loop {
        match net::accept_with(socket, SocketFlags::CLOEXEC) {
            // It was there and has left again, or somebody else took it.
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Options;

    #[test]
    fn manual_page_matches_the_command_line() -> Result<(), String> {
        let rest = include_str!("../../man/written/vhost-user-accept.8");
        harness::manual::check(Options::command(), "8", rest).map_err(|error| format!("{error:#}"))
    }
}
