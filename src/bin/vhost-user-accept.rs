//! vhost-user-accept: starts a backend program that does not take a listening socket.
//!
//! systemd passes a listening socket. This program accepts one connection on it and becomes the other
//! program, which finds the connection where the listening socket was; or it starts the other program,
//! which makes a socket of its own, and passes the messages of the connection on to that.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use clap::{CommandFactory as _, Parser};
use conventions::FIRST_PASSED_FD as FD;
use listenfd::ListenFd;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use vhost_user_backends::backend::{ForwardError, Side, forward, printable, usage_text};

const NAME: &str = "vhost-user-accept";
/// What would tell PROGRAM that descriptor 3 listens.
const ACTIVATION: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];
/// How long PROGRAM may take to listen, and to end.
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// Accept a front-end's connection for a backend program that takes no listening socket
///
/// The listening socket comes by socket activation. PROGRAM replaces this process and has the connection
/// as file descriptor 3; with --socket-path it runs beside this process, which passes messages on.
#[derive(Parser)]
#[command(name = NAME, version)]
struct Options {
    /// Connect to PROGRAM at PATH, where it listens, and pass messages on; of several paths, at the first where it
    /// does
    #[arg(long, value_name = "PATH")]
    socket_path: Vec<PathBuf>,

    /// Program to run, by its absolute path, and its arguments
    #[arg(value_name = "PROGRAM", required = true, num_args = 1.., trailing_var_arg = true)]
    #[arg(allow_hyphen_values = true)]
    command: Vec<OsString>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(
        "{0:?} is not the absolute path of a program, such as /usr/bin/passt; see {NAME} --help"
    )]
    Usage(OsString),
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
    #[error("{} does not listen at its --socket-path within {} s", program.display(), START_LIMIT.as_secs())]
    Late { program: PathBuf },
    #[error("cannot connect to {}: {error}", path.display())]
    Connect { path: PathBuf, error: io::Error },
    #[error("{} ended: {status}", program.display())]
    Ended {
        program: PathBuf,
        status: ExitStatus,
    },
    #[error("{} closed the connection", program.display())]
    Closed { program: PathBuf },
    #[error(transparent)]
    Forward(#[from] ForwardError),
    #[error("cannot wait for {}: {error}", program.display())]
    Wait { program: PathBuf, error: io::Error },
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
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        // The connection is closed by then, which tells the front-end.
        Err(error) => {
            eprintln!("{NAME}: {}", printable(&error.to_string()));
            match error {
                Error::Usage(_) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    let (program, arguments) = match options.command.split_first() {
        Some((program, arguments)) if Path::new(program).is_absolute() => {
            (PathBuf::from(program), arguments)
        }
        first => {
            let word = first.map(|(word, _)| word.clone());
            return Err(Error::Usage(word.unwrap_or_default()));
        }
    };
    let socket = listening()?;
    let connection = accept(&socket).map_err(|error| Error::Accept(error.into()))?;
    let mut command = Command::new(&program);
    command.args(arguments);
    for name in ACTIVATION {
        command.env_remove(name);
    }
    if options.socket_path.is_empty() {
        return Err(become_program(program, command, socket, connection));
    }
    drop(socket);
    serve_beside(program, command, &options.socket_path, connection.into())
}

/// Returns only if it fails.
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

/// Starts the program, which ends when the front-end has left.
fn serve_beside(
    program: PathBuf,
    mut command: Command,
    paths: &[PathBuf],
    front_end: UnixStream,
) -> Result<(), Error> {
    // SAFETY: between fork and exec there is one system call, which allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
    let child = command.spawn();
    let mut child = Ending(child.map_err(|error| Error::Run {
        program: program.clone(),
        error,
    })?);
    let backend = child.connect(&program, paths)?;
    match forward(front_end, backend)? {
        Side::FrontEnd => Ok(()),
        Side::Backend => Err(match child.ended(STOP_LIMIT) {
            Ok(Some(status)) => Error::Ended { program, status },
            Ok(None) => Error::Closed { program },
            Err(error) => Error::Wait { program, error },
        }),
    }
}

/// A running program that is ended when this is dropped.
struct Ending(Child);

impl Ending {
    /// Connects to it, once it listens.
    fn connect(&mut self, program: &Path, paths: &[PathBuf]) -> Result<UnixStream, Error> {
        let program = program.to_owned();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            for path in paths {
                match UnixStream::connect(path) {
                    Ok(stream) => return Ok(stream),
                    Err(error) if is_early(&error) => {}
                    Err(error) => {
                        let path = path.clone();
                        return Err(Error::Connect { path, error });
                    }
                }
            }
            match self.ended(PAUSE) {
                Ok(None) => {}
                Ok(Some(status)) => return Err(Error::Ended { program, status }),
                Err(error) => return Err(Error::Wait { program, error }),
            }
            if Instant::now() > deadline {
                return Err(Error::Late { program });
            }
        }
    }

    /// How it ended, if it does so in time.
    fn ended(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.0.try_wait()?;
            if status.is_some() || Instant::now() > deadline {
                return Ok(status);
            }
            thread::sleep(PAUSE);
        }
    }
}

/// Whether a program does not listen yet.
fn is_early(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::ConnectionRefused
    )
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            if let Some(pid) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
                // It fails only if the program has ended.
                let _ = kill_process(pid, Signal::TERM);
            }
            if let Ok(None) | Err(_) = self.ended(STOP_LIMIT) {
                let _ = self.0.kill();
                let _ = self.0.wait();
            }
        }
    }
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
