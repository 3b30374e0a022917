// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend program, started in any of the ways its conventions know.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use crate::{DEFAULT_LIMIT, Deadline, Error, NotifySocket, Result, Session};

/// How a program gets its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketForm {
    /// No socket and no option: what is given is in the arguments.
    None,
    /// `--socket-path=PATH`, a path in a new folder.
    Path,
    /// `--fd=N`, N one end of a socket pair: as libvirt does. N is 3 to 9; or 0, which takes no
    /// shell to be placed.
    Connected(u8),
    /// `--fd=N`, N a listening socket: as systemd and systemd-vmspawn do. N is 3 to 9.
    Listening(u8),
    /// No option, a listening socket as descriptor 3, LISTEN_FDS=1 and LISTEN_PID.
    Activation,
    /// As `Activation`, but LISTEN_PID names another process.
    ActivationOfAnother,
}

/// How to start a backend program.
#[derive(Debug)]
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    form: SocketForm,
    given: Option<OwnedFd>,
    /// The names of the sockets of `Activation`, in their order.
    activated: Vec<String>,
    /// Further descriptors, by number.
    further: Vec<(u8, OwnedFd)>,
    /// The names of further sockets that the program makes.
    listens: Vec<String>,
    notify: bool,
    waiting: usize,
}

/// The name of the vhost-user socket in [`Command::activated`].
const VHOST_USER: &str = "vhost-user";

/// What a service manager passes on, and no program is to find by accident.
pub const MANAGER_VARIABLES: [&str; 10] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
];

impl Command {
    /// Starts `program` with no argument and no socket.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            form: SocketForm::None,
            given: None,
            activated: Vec::new(),
            further: Vec::new(),
            listens: Vec::new(),
            notify: false,
            waiting: 0,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args
            .extend(args.into_iter().map(|arg| arg.as_ref().into()));
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// Gives it a socket in this way.
    pub fn socket(mut self, form: SocketForm) -> Self {
        self.form = form;
        self
    }

    /// Passes `fd` as descriptor 3, with no option and no socket.
    pub fn descriptor(mut self, fd: impl Into<OwnedFd>) -> Self {
        self.given = Some(fd.into());
        self
    }

    /// Passes further descriptors as `number`, 3 to 9, beside the socket.
    pub fn pass(mut self, number: u8, fd: impl Into<OwnedFd>) -> Self {
        self.further.push((number, fd.into()));
        self
    }

    /// Has it listen on a further socket, by `--NAME-socket=PATH`: see [`Program::further_path`].
    pub fn listen(mut self, name: &str) -> Self {
        self.listens.push(name.to_owned());
        self
    }

    /// Passes several listening sockets by [`SocketForm::Activation`], with these names and in this order. "vhost-user"
    /// is the program's own; the others lie at [`Program::further_path`].
    pub fn activated(mut self, names: &[&str]) -> Self {
        self.form = SocketForm::Activation;
        self.activated = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Plays the service manager: sets `NOTIFY_SOCKET`, received by [`Program::notify`].
    pub fn notify(mut self) -> Self {
        self.notify = true;
        self
    }

    /// Connects to each listening socket so many times before it starts: see [`Program::take_waiting`].
    pub fn waiting(mut self, connections: usize) -> Self {
        self.waiting = connections;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// As `execve(2)` and the calls that make the sockets. A program that starts and then fails is
    /// no error here: see [`Program::wait_exit`].
    pub fn spawn(self) -> Result<Program> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for a socket"))?;
        let path = folder.path().join("vhost-user.sock");
        let listen = || UnixListener::bind(&path).map_err(Error::io("binding a socket"));
        let mut program = Program::unborn(self.form, path.clone(), folder)?;

        let (given, number, option) = match self.form {
            SocketForm::None => (self.given, 3, None),
            SocketForm::Path => {
                let mut option = OsString::from("--socket-path=");
                option.push(&path);
                (None, 3, Some(option))
            }
            SocketForm::Connected(n) => {
                let (ours, theirs) = UnixStream::pair().map_err(Error::io("socketpair"))?;
                program.stream = Some(ours);
                (Some(theirs.into()), n, Some(format!("--fd={n}").into()))
            }
            SocketForm::Listening(n) => {
                let listener = listen()?;
                let theirs = listener.try_clone().map_err(Error::io("dup of a socket"))?;
                program.listener = Some(listener);
                (Some(theirs.into()), n, Some(format!("--fd={n}").into()))
            }
            SocketForm::Activation | SocketForm::ActivationOfAnother => {
                let listener = listen()?;
                let theirs = listener.try_clone().map_err(Error::io("dup of a socket"))?;
                program.listener = Some(listener);
                (Some(theirs.into()), 3, None)
            }
        };

        let mut mappings = Vec::new();
        for (number, parent_fd) in self.further {
            let child_fd = number.into();
            mappings.push(FdMapping {
                parent_fd,
                child_fd,
            });
        }
        let mut given = given;
        for (child_fd, name) in (3..).zip(&self.activated) {
            let parent_fd = if name == VHOST_USER {
                let gone = || Error::Protocol("two sockets are named vhost-user".into());
                given.take().ok_or_else(gone)?
            } else {
                let further = UnixListener::bind(program.further_path(name))
                    .map_err(Error::io("binding a further socket"))?;
                let theirs = further.try_clone().map_err(Error::io("dup of a socket"))?;
                program.further.push((name.clone(), further));
                theirs.into()
            };
            mappings.push(FdMapping {
                parent_fd,
                child_fd,
            });
        }

        let mut paths = vec![path];
        for (name, _) in &program.further {
            paths.push(program.further_path(name));
        }
        for path in paths {
            for _ in 0..self.waiting {
                let stream = UnixStream::connect(&path).map_err(Error::io("connecting early"))?;
                program.waiting.push(stream);
            }
        }

        // The shell puts the descriptor where it belongs and knows the process id before the
        // program runs: the same process then becomes the program. No unsafe code between fork
        // and exec, and no descriptor of another test's in the child.
        let mut command = match given {
            _ if !self.activated.is_empty() => {
                let count = self.activated.len();
                let names = self.activated.join(":");
                let script = format!(
                    "export LISTEN_FDS={count} LISTEN_FDNAMES={names} LISTEN_PID=$$; exec \"$0\" \"$@\""
                );
                let mut command = std::process::Command::new("/bin/sh");
                command.arg("-c").arg(script).arg(&self.program);
                command.stdin(Stdio::null());
                command
            }
            None => {
                let mut command = std::process::Command::new(&self.program);
                command.stdin(Stdio::null());
                command
            }
            Some(fd) if number == 0 => {
                let mut command = std::process::Command::new(&self.program);
                command.stdin(fd);
                command
            }
            Some(fd) => {
                let pid = match self.form {
                    SocketForm::Activation => "export LISTEN_FDS=1 LISTEN_PID=$$; ",
                    SocketForm::ActivationOfAnother => "export LISTEN_FDS=1 LISTEN_PID=1; ",
                    _ => "",
                };
                let script = format!("exec {number}<&0 </dev/null; {pid}exec \"$0\" \"$@\"");
                let mut command = std::process::Command::new("/bin/sh");
                command.arg("-c").arg(script).arg(&self.program).stdin(fd);
                command
            }
        };
        command.args(option).args(&self.args);
        for name in &self.listens {
            let mut option = OsString::from(format!("--{name}-socket="));
            option.push(program.further_path(name));
            command.arg(option);
        }
        for name in MANAGER_VARIABLES {
            command.env_remove(name);
        }
        if self.notify {
            let socket = NotifySocket::new()?;
            command.env("NOTIFY_SOCKET", socket.path());
            program.notify = Some(socket);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        let output = |file: &File| file.try_clone().map_err(Error::io("dup of a memfd"));
        command
            .stdout(output(&program.stdout)?)
            .stderr(output(&program.stderr)?);
        if !mappings.is_empty() {
            let twice = |_| Error::Protocol("two sockets have the same number".into());
            command.fd_mappings(mappings).map_err(twice)?;
        }
        let what = format!("starting {}", self.program.display());
        let child = command.spawn().map_err(Error::io(what))?;
        let pid = Pid::from_child(&child);
        program.child = Some(child);
        program.pidfd =
            Some(pidfd_open(pid, PidfdFlags::empty()).map_err(Error::os("pidfd_open"))?);
        Ok(program)
    }
}

/// A backend program that was started. Dropped, it is killed.
pub struct Program {
    /// Always there but for the moment before it is started.
    child: Option<Child>,
    pidfd: Option<OwnedFd>,
    form: SocketForm,
    path: PathBuf,
    stream: Option<UnixStream>,
    listener: Option<UnixListener>,
    further: Vec<(String, UnixListener)>,
    waiting: Vec<UnixStream>,
    /// In memory, not through pipes: the program never waits for a reader, and the test reads
    /// whenever it likes.
    stdout: File,
    stderr: File,
    notify: Option<NotifySocket>,
    folder: TempDir,
}

impl Program {
    fn unborn(form: SocketForm, path: PathBuf, folder: TempDir) -> Result<Self> {
        let memfd = |name| {
            let fd = memfd_create(name, MemfdFlags::CLOEXEC).map_err(Error::os("memfd_create"))?;
            Ok::<_, Error>(File::from(fd))
        };
        Ok(Self {
            child: None,
            pidfd: None,
            form,
            path,
            stream: None,
            listener: None,
            further: Vec::new(),
            waiting: Vec::new(),
            stdout: memfd("stdout")?,
            stderr: memfd("stderr")?,
            notify: None,
            folder,
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// Where its socket lies; nothing does with [`SocketForm::Connected`].
    pub fn socket_path(&self) -> &Path {
        &self.path
    }

    /// The listening socket that it was given, as its service manager has it.
    ///
    /// # Errors
    /// If it was given another form of socket.
    pub fn listener(&self) -> Result<&UnixListener> {
        self.listener
            .as_ref()
            .ok_or_else(|| Error::Protocol("the program was given no listening socket".into()))
    }

    /// The listening sockets that it was given beside that, by name, as its service manager has them.
    pub fn further_listeners(&self) -> &[(String, UnixListener)] {
        &self.further
    }

    /// Where a further socket of this name lies.
    pub fn further_path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sock"))
    }

    /// The connections of [`Command::waiting`], once.
    pub fn take_waiting(&mut self) -> Vec<UnixStream> {
        std::mem::take(&mut self.waiting)
    }

    /// What came over `NOTIFY_SOCKET`.
    ///
    /// # Errors
    /// If it was started without [`Command::notify`].
    pub fn notify(&mut self) -> Result<&mut NotifySocket> {
        self.notify
            .as_mut()
            .ok_or_else(|| Error::Protocol("the program was started without NOTIFY_SOCKET".into()))
    }

    /// Connects to it as a VMM does, waiting for the socket to be there. The connected form gives
    /// its one stream once.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not listen in [`DEFAULT_LIMIT`], with what it wrote on stderr.
    pub fn connect(&mut self) -> Result<UnixStream> {
        if let SocketForm::Connected(_) = self.form {
            let gone = || Error::Protocol("the connected socket was taken already".into());
            return self.stream.take().ok_or_else(gone);
        }
        let path = self.path.clone();
        self.connect_to(path)
    }

    /// Connects to a further socket of it, waiting for the socket to be there.
    ///
    /// # Errors
    /// As [`Program::connect`].
    pub fn connect_further(&mut self, name: &str) -> Result<UnixStream> {
        let path = self.further_path(name);
        self.connect_to(path)
    }

    fn connect_to(&mut self, path: PathBuf) -> Result<UnixStream> {
        let what = format!("a socket at {}", path.display());
        let deadline = Deadline::default();
        let connected = deadline.until(what, || match UnixStream::connect(&path) {
            Ok(stream) => Ok(Some(stream)),
            Err(e) => match self.try_exit()? {
                None => Ok(None),
                Some(_) => Err(Error::io(format!("connecting to {}", path.display()))(e)),
            },
        });
        connected.map_err(|e| self.with_stderr(e))
    }

    /// Connects and speaks vhost-user.
    ///
    /// # Errors
    /// As [`Program::connect`].
    pub fn session(&mut self) -> Result<Session> {
        Ok(Session::new(self.connect()?))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// As `pidfd_send_signal(2)`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, signal).map_err(Error::os("pidfd_send_signal")),
            None => Ok(()),
        }
    }

    /// Its exit status, if it has ended.
    ///
    /// # Errors
    /// As `waitpid(2)`.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        match &mut self.child {
            Some(child) => child.try_wait().map_err(Error::io("waitpid")),
            None => Ok(None),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// [`Error::Timeout`] after `limit`, with what it wrote on stderr.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Deadline::after(limit);
        if let Some(pidfd) = &self.pidfd {
            deadline.ready(pidfd.as_fd(), PollFlags::IN)?;
        }
        match self.try_exit()? {
            Some(status) => Ok(status),
            None => Err(self.with_stderr(deadline.missed("the program's end"))),
        }
    }

    /// What it has written on stderr so far.
    pub fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// What it has written on stdout so far.
    pub fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Waits until `text` stands on stderr.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`], with what stands there instead.
    pub fn wait_stderr(&self, text: &str) -> Result<()> {
        let what = format!("{text:?} on stderr");
        Deadline::after(DEFAULT_LIMIT)
            .until(what, || Ok(self.stderr().contains(text).then_some(())))
            .map_err(|e| self.with_stderr(e))
    }

    /// The processor time that it has used so far, all threads together, to 10 ms.
    ///
    /// # Errors
    /// If it has ended.
    pub fn cpu_time(&self) -> Result<Duration> {
        let path = format!("/proc/{}/stat", self.pid());
        let stat = std::fs::read_to_string(&path).map_err(Error::io(path))?;
        // The name, in brackets, may hold anything; user and system time are fields 14 and 15.
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks: u64 = fields
            .split(' ')
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_secs(ticks) / u32::try_from(per_second).unwrap_or(100))
    }

    /// How many descriptors it has open.
    ///
    /// # Errors
    /// If it has ended, or as `open(2)` of `/proc`.
    pub fn open_descriptors(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid());
        Ok(std::fs::read_dir(&path).map_err(Error::io(path))?.count())
    }

    fn with_stderr(&self, error: Error) -> Error {
        match error {
            Error::Timeout { what, limit } => Error::Timeout {
                what: format!("{what}; stderr: {:?}", self.stderr()).into(),
                limit,
            },
            Error::Io { what, source } => Error::Io {
                what: format!("{what}; stderr: {:?}", self.stderr()).into(),
                source,
            },
            other => other,
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program")
            .field("pid", &self.pid())
            .field("form", &self.form)
            .field("stderr", &self.stderr())
            .finish_non_exhaustive()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only if it has ended and was waited for: then there is nothing to do.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The reader of a failed test wants to know what the program said.
        if std::thread::panicking() {
            eprintln!("--- stderr of the program:\n{}---", self.stderr());
        }
    }
}

/// A file's contents, read without moving the offset that it shares with the writer.
pub(crate) fn contents(file: &File) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = file.read_at(&mut chunk, bytes.len() as u64) {
        bytes.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
