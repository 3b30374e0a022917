// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend program under check: started in a process group of its own, with bounded output, and nothing of it left at
//! the end.

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use std::{fs, io, thread};

use command_fds::{CommandFdExt as _, FdMapping};
use frontend::{Deadline, Error, MANAGER_VARIABLES, Result};
use rustix::event::PollFlags;
use rustix::process::{
    Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open, pidfd_send_signal,
};

use crate::marked;

/// How much of each stream is kept, in bytes; the rest is read and dropped.
pub(crate) const OUTPUT_MAX: usize = 64 << 10;
/// How much of its error messages is told, in characters.
const QUOTED_MAX: usize = 400;
/// How long a process may take to end by SIGKILL.
const END: Duration = Duration::from_secs(5);

/// Where the output of a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Streams {
    /// To the check.
    Read,
    /// To /dev/null.
    Null,
}

/// How a program is started.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Descriptors by the number that they have in the program.
    pub(crate) fds: Vec<(i32, OwnedFd)>,
    /// LISTEN_FDS for so many descriptors from 3 on, with LISTEN_PID: that of the program, or of another one.
    pub(crate) activation: Option<Activation>,
    pub(crate) streams: Streams,
    pub(crate) folder: PathBuf,
    /// The beginning of its mark: see [`marked::next_trial`].
    pub(crate) trial: String,
    pub(crate) story: Arc<Mutex<Vec<String>>>,
}

/// Whose sockets LISTEN_PID says they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    Own,
    OfAnother,
}

impl Launch {
    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub(crate) fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    pub(crate) fn fd(mut self, number: i32, fd: impl Into<OwnedFd>) -> Self {
        self.fds.push((number, fd.into()));
        self
    }

    /// Starts it.
    pub(crate) fn spawn(self) -> Result<Backend> {
        let mark = marked::next(&self.trial);
        let mut command = match self.activation {
            None => Command::new(&self.program),
            // The shell knows the process id before the program runs, and becomes the program.
            Some(whose) => {
                let pid = match whose {
                    Activation::Own => "$$",
                    Activation::OfAnother => "1",
                };
                let count = self.fds.len();
                let script =
                    format!("export LISTEN_FDS={count} LISTEN_PID={pid}; exec \"$0\" \"$@\"");
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(script).arg(&self.program);
                shell
            }
        };
        command.args(&self.args).current_dir(&self.folder);
        for name in MANAGER_VARIABLES {
            command.env_remove(name);
        }
        for name in [
            "XDG_RUNTIME_DIR",
            "TMPDIR",
            "XDG_CONFIG_HOME",
            "XDG_CACHE_HOME",
            "HOME",
        ] {
            command.env(name, &self.folder);
        }
        command.env(marked::VARIABLE, &mark).envs(self.env);
        command.stdin(Stdio::null()).process_group(0);
        match self.streams {
            Streams::Read => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
            Streams::Null => command.stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let mappings = self.fds.into_iter();
        let mappings = mappings.map(|(child_fd, parent_fd)| FdMapping {
            parent_fd,
            child_fd,
        });
        command
            .fd_mappings(mappings.collect())
            .map_err(|error| Error::Protocol(error.to_string()))?;
        let what = format!("starting {}", self.program.display());
        let starting = marked::starting();
        let mut child = command.spawn().map_err(failed(what))?;
        marked::started(Pid::from_child(&child));
        drop(starting);
        let stdout = Stream::read(child.stdout.take());
        let stderr = Stream::read(child.stderr.take());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let pidfd = pidfd.map_err(|errno| failed("pidfd_open")(errno.into()))?;
        Ok(Backend {
            child,
            pidfd,
            stdout,
            stderr,
            mark,
            peer: None,
            ended: None,
            story: self.story,
        })
    }
}

fn failed(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::Io {
        what: what.into(),
        source,
    }
}

/// One stream of its output, read to the end by a thread.
#[derive(Debug)]
struct Stream {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Stream {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        if let Some(mut pipe) = pipe {
            let kept = bytes.clone();
            thread::spawn(move || {
                let mut chunk = [0; 4096];
                while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                    let mut kept = kept.lock().unwrap_or_else(|e| e.into_inner());
                    let room = OUTPUT_MAX.saturating_sub(kept.len());
                    kept.extend_from_slice(&chunk[..n.min(room)]);
                }
            });
        }
        Self { bytes }
    }

    fn bytes(&self) -> Vec<u8> {
        let bytes = self.bytes.lock().unwrap_or_else(|e| e.into_inner());
        bytes.clone()
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Once all that has it open has ended: what it wrote may still lie in the pipe.
    fn is_closed(&self) -> bool {
        Arc::strong_count(&self.bytes) == 1
    }
}

/// A program that was started. Dropped, it and all that it started are killed.
#[derive(Debug)]
pub(crate) struct Backend {
    child: Child,
    pidfd: OwnedFd,
    stdout: Stream,
    stderr: Stream,
    mark: String,
    /// The process that made the socket, if it is another one.
    peer: Option<Pid>,
    /// When its end was seen.
    ended: Option<Instant>,
    story: Arc<Mutex<Vec<String>>>,
}

/// What a program holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resources {
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    /// Memory of its own, that of the guest not counted, in KiB.
    pub(crate) memory: usize,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Status(i32),
    Signal(i32),
}

impl End {
    fn of(status: ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Status(code),
            None => Self::Signal(status.signal().unwrap_or_default()),
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(code) => write!(f, "status {code}"),
            Self::Signal(signal) => {
                let name = match *signal {
                    6 => " (SIGABRT)",
                    7 => " (SIGBUS)",
                    9 => " (SIGKILL)",
                    11 => " (SIGSEGV)",
                    13 => " (SIGPIPE)",
                    15 => " (SIGTERM)",
                    31 => " (SIGSYS)",
                    _ => "",
                };
                write!(f, "signal {signal}{name}")
            }
        }
    }
}

impl Backend {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn end(&mut self) -> Result<Option<End>> {
        let status = self.child.try_wait().map_err(failed("waitpid"))?;
        Ok(status.map(End::of))
    }

    /// Waits for its end; none if it has not come in time.
    pub(crate) fn wait_end(&mut self, deadline: &Deadline) -> Result<Option<End>> {
        deadline.ready(self.pidfd.as_fd(), PollFlags::IN)?;
        let end = self.end()?;
        if end.is_some() {
            self.ended.get_or_insert_with(Instant::now);
            // What it wrote last comes with the end of the pipes; a process that it left behind keeps them open.
            let soon = Deadline::after(Duration::from_secs(2));
            let closed = || (self.stdout.is_closed() && self.stderr.is_closed()).then_some(());
            let _ = soon.until("the end of its output", || Ok(closed()));
        }
        Ok(end)
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal)
            .map_err(|errno| failed("pidfd_send_signal")(errno.into()))
    }

    pub(crate) fn stdout_bytes(&self) -> Vec<u8> {
        self.stdout.bytes()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// The end of what it wrote on standard error, on one line.
    pub(crate) fn complaint(&self) -> String {
        quoted(&self.stderr())
    }

    /// When it ended, if that was seen.
    pub(crate) fn ended(&self) -> Option<Instant> {
        self.ended
    }

    /// What it and all that it started hold now.
    pub(crate) fn resources(&self) -> Result<Resources> {
        let mut sum = resources_of(self.pid())?;
        for other in self.others() {
            // One that ends meanwhile holds nothing.
            if let Ok(more) = resources_of(other.as_raw_nonzero().get() as u32) {
                sum.descriptors += more.descriptors;
                sum.mappings += more.mappings;
                sum.memory += more.memory;
            }
        }
        Ok(sum)
    }

    /// Whether it, or what it started, has a part of this file mapped.
    pub(crate) fn maps(&self, file: BorrowedFd<'_>) -> Result<bool> {
        let stat = rustix::fs::fstat(file).map_err(|errno| failed("fstat")(errno.into()))?;
        let inode = stat.st_ino.to_string();
        let own = Pid::from_child(&self.child);
        Ok(self.others().into_iter().chain([own]).any(|pid| {
            let maps = fs::read_to_string(format!("/proc/{}/maps", pid.as_raw_nonzero()));
            // Addresses, permissions, offset, device, inode, name: that of a memfd.
            maps.unwrap_or_default().lines().any(|line| {
                line.contains(" /memfd:") && line.split_whitespace().nth(4) == Some(&inode)
            })
        }))
    }

    /// The process at the other end of the socket.
    pub(crate) fn set_peer(&mut self, peer: Pid) {
        let known = [Pid::from_child(&self.child), rustix::process::getpid()];
        self.peer = Some(peer).filter(|peer| !known.contains(peer));
    }

    /// Other processes of this backend that live: those that it started, and the one that made its socket.
    pub(crate) fn others(&self) -> Vec<Pid> {
        let own = Pid::from_child(&self.child);
        let mut all = marked::all(&self.mark);
        let peer = self.peer.filter(|peer| marked::lives(*peer));
        let unseen = peer.filter(|peer| !all.contains(peer));
        all.extend(unseen);
        all.retain(|pid| *pid != own);
        all
    }

    /// Kills it and all that it started; false if that was not to be done, as one that became another user.
    fn kill(&mut self) -> bool {
        // Before their parent: then they are nobody's.
        for other in marked::all(&self.mark) {
            let _ = kill_process(other, Signal::KILL);
        }
        // It may have ended, or left its group.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.kill();
        let others = marked::kill(&self.mark);
        let ended = Deadline::after(END).ready(self.pidfd.as_fd(), PollFlags::IN);
        if !matches!(ended, Ok(true)) {
            return false;
        }
        let _ = self.child.wait();
        marked::reaped(Pid::from_child(&self.child));
        others
    }
}

/// What one process holds.
fn resources_of(pid: u32) -> Result<Resources> {
    let folder = format!("/proc/{pid}");
    let read = |name: &str| {
        let path = format!("{folder}/{name}");
        fs::read_to_string(&path).map_err(failed(path))
    };
    let path = format!("{folder}/fd");
    let descriptors = fs::read_dir(&path).map_err(failed(path))?.count();
    let status = read("status")?;
    let anonymous = status.lines().find_map(|line| {
        let words = line.strip_prefix("RssAnon:")?;
        words.split_whitespace().next()?.parse().ok()
    });
    Ok(Resources {
        descriptors,
        mappings: read("maps")?.lines().count(),
        memory: anonymous.unwrap_or_default(),
    })
}

impl Drop for Backend {
    fn drop(&mut self) {
        let end = self.end();
        let left = match self.kill() {
            true => String::new(),
            false => format!("process {} cannot be ended", self.pid()),
        };
        let said = self.complaint();
        let said = if said.is_empty() {
            String::new()
        } else {
            format!("stderr: {said}")
        };
        let how = match end {
            Ok(Some(end)) => format!("the backend ended with {end}"),
            _ => String::new(),
        };
        let parts = [how, left, said]
            .into_iter()
            .filter(|part| !part.is_empty());
        let told = parts.collect::<Vec<_>>().join("; ");
        if !told.is_empty() {
            let mut story = self.story.lock().unwrap_or_else(|e| e.into_inner());
            story.push(told);
        }
    }
}

/// What a program says of its panic.
const PANIC: &str = "panicked at";

/// The end of a text as one line, or the panic in it, without what could steer a terminal.
pub(crate) fn quoted(text: &str) -> String {
    let line = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" | ");
    let mut skip = line.chars().count().saturating_sub(QUOTED_MAX);
    if let Some((before, _)) = line.split_once(PANIC) {
        // A backtrace follows.
        skip = skip.min(before.chars().count());
    }
    let part: String = line.chars().skip(skip).take(QUOTED_MAX).collect();
    let start = if skip > 0 { "..." } else { "" };
    format!("{start}{}", conventions::printable(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Backend {
        let launch = Launch {
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            fds: Vec::new(),
            activation: None,
            streams: Streams::Read,
            folder: "/".into(),
            trial: marked::next_trial(),
            story: Arc::default(),
        };
        launch.spawn().unwrap()
    }

    #[test]
    fn panic_is_quoted_and_not_its_backtrace() {
        let text = format!(
            "{}thread 'main' panicked at src/main.rs:3:\nno \u{1b}disk\n{}",
            "before\n".repeat(200),
            "1: frame\n".repeat(200)
        );
        let quote = quoted(&text);
        assert!(
            quote.starts_with("...panicked at src/main.rs:3: | no "),
            "{quote}"
        );
        assert!(!quote.contains('\u{1b}'), "{quote}");
        assert_eq!(quoted("a\n\n b \n"), "a | b");
        assert!(quoted(&"x".repeat(500)).starts_with("...x"));
    }

    #[test]
    fn nothing_is_left_of_a_program_that_goes_into_the_background() {
        for _ in 0..20 {
            // It executes one program after the other while it is killed.
            let mut daemon =
                shell("setsid sh -c 'exec sh -c \"exec sleep 1000\"' >&- 2>&- & exit 0");
            assert_eq!(
                daemon.wait_end(&Deadline::default()).unwrap(),
                Some(End::Status(0))
            );
            let mark = daemon.mark.clone();
            drop(daemon);
            std::thread::sleep(Duration::from_millis(20));
            assert_eq!(marked::all(&mark), []);
        }
    }

    #[test]
    fn program_that_ignores_sigterm_and_has_children_is_ended() {
        let stubborn = shell("trap '' TERM; sleep 1000 & echo up; sleep 1000");
        let up = || Ok((!stubborn.stdout_bytes().is_empty()).then_some(()));
        Deadline::default().until("the program", up).unwrap();
        let mark = stubborn.mark.clone();
        assert!(!stubborn.others().is_empty());
        drop(stubborn);
        assert_eq!(marked::all(&mark), []);
    }
}
