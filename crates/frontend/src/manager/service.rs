// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A program as a service: started, killed, restarted.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::event::PollFlags;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

use super::Manager;
use crate::program::{MANAGER_VARIABLES, contents};
use crate::{DEFAULT_LIMIT, Deadline, Error, Notification, Result, Session};

/// The number of the first descriptor that is passed.
const FIRST_FD: i32 = 3;
/// The exit status of a program that was sent a signal, and goes on in another process unless the service is to stop.
const SIGNALLED: i32 = 74;
/// What [`ServiceOptions::store`] is if nothing else is said.
const STORE_LIMIT: usize = 16;

/// What a unit's files say.
#[derive(Debug)]
pub struct ServiceOptions {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    sockets: Vec<String>,
    store: usize,
}

impl ServiceOptions {
    /// A service that runs `program`, with one listening socket (see [`ServiceOptions::sockets`]) named "vhost-user",
    /// which keeps 16 descriptors.
    pub fn new(program: impl AsRef<Path>) -> Self {
        Self {
            program: program.as_ref().into(),
            args: Vec::new(),
            env: Vec::new(),
            sockets: vec!["vhost-user".into()],
            store: STORE_LIMIT,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().into());
        self
    }

    /// Adds arguments.
    pub fn args(self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().into(), value.as_ref().into()));
        self
    }

    /// The names of its listening sockets (`FileDescriptorName=`), in this order.
    pub fn sockets(mut self, names: &[&str]) -> Self {
        self.sockets = names.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// `FileDescriptorStoreMax=`. At 0 there is no `FDSTORE` in the environment.
    pub fn store(mut self, limit: usize) -> Self {
        self.store = limit;
        self
    }

    /// The service, with sockets that listen, and no process yet: see [`Service::start`].
    ///
    /// # Errors
    /// As `bind(2)` and `memfd_create(2)`.
    pub fn create(self) -> Result<Service> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for sockets"))?;
        let mut listeners = Vec::new();
        for name in &self.sockets {
            let path = folder.path().join(format!("{name}.sock"));
            let listener = UnixListener::bind(path).map_err(Error::io("binding a socket"))?;
            listeners.push((name.clone(), listener));
        }
        let log = memfd_create("log", MemfdFlags::CLOEXEC).map_err(Error::os("memfd_create"))?;
        Ok(Service {
            manager: Manager::new(self.store)?,
            options: self,
            listeners,
            log: log.into(),
            process: None,
            begun: 0,
            starts: 0,
            folder,
        })
    }

    /// [`ServiceOptions::create`] and [`Service::start`], until it is ready.
    ///
    /// # Errors
    /// As these, and as [`Service::wait_ready`].
    pub fn start(self) -> Result<Service> {
        let mut service = self.create()?;
        service.start()?;
        service.wait_ready()?;
        Ok(service)
    }
}

/// A service, which may run. Dropped, its process is killed.
#[derive(Debug)]
pub struct Service {
    options: ServiceOptions,
    manager: Manager,
    listeners: Vec<(String, UnixListener)>,
    /// What all its processes wrote.
    log: File,
    process: Option<Process>,
    /// How many notifications there were when the process was started.
    begun: usize,
    starts: usize,
    folder: TempDir,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: OwnedFd,
}

impl Service {
    /// Starts it, with its sockets and then what is kept. Does not wait until it is ready.
    ///
    /// # Errors
    /// If it runs; as `execve(2)`.
    pub fn start(&mut self) -> Result<()> {
        self.spawn("")
    }

    /// As [`Service::start`], but the process stops itself (SIGSTOP) before it becomes the program: for a tracer that
    /// wants to see all of it. SIGCONT lets it go on.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn start_stopped(&mut self) -> Result<()> {
        self.spawn("kill -STOP $$; ")
    }

    fn spawn(&mut self, first: &str) -> Result<()> {
        if self.process.is_some() {
            return Err(Error::Protocol("the service runs already".into()));
        }
        self.manager.barrier()?;
        let dup = |listener: &UnixListener| listener.as_fd().try_clone_to_owned();
        let mut passed = Vec::new();
        for (name, listener) in &self.listeners {
            passed.push((name.clone(), dup(listener).map_err(Error::io("dup"))?));
        }
        passed.extend(self.manager.kept()?);
        let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
        let names = names.join(":");
        // The shell knows the process id, and the same process then becomes the program.
        let script = format!("export LISTEN_PID=$$; {first}exec \"$0\" \"$@\"");
        let mut command = std::process::Command::new("/bin/sh");
        command.arg("-c").arg(script).arg(&self.options.program);
        command.args(&self.options.args).stdin(Stdio::null());
        for name in MANAGER_VARIABLES {
            command.env_remove(name);
        }
        command
            .env("LISTEN_FDS", passed.len().to_string())
            .env("LISTEN_FDNAMES", names)
            .env("NOTIFY_SOCKET", self.manager.path());
        if self.options.store > 0 {
            command.env("FDSTORE", self.options.store.to_string());
        }
        let env = self.options.env.iter();
        command.envs(env.map(|(name, value)| (name, value)));
        let log = || self.log.try_clone().map_err(Error::io("dup of a memfd"));
        command.stdout(log()?).stderr(log()?);
        let mappings = (FIRST_FD..)
            .zip(passed)
            .map(|(child_fd, (_, parent_fd))| FdMapping {
                parent_fd,
                child_fd,
            });
        command
            .fd_mappings(mappings.collect())
            .map_err(|_| Error::Protocol("two descriptors have the same number".into()))?;
        self.begun = self.manager.shared.lock().seen.len();
        let what = format!("starting {}", self.options.program.display());
        let child = command.spawn().map_err(Error::io(what))?;
        let pid = Pid::from_child(&child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(Error::os("pidfd_open"))?;
        self.process = Some(Process { child, pidfd });
        self.starts += 1;
        Ok(())
    }

    /// Waits until the process that runs has said `READY=1`.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`], or if it ends before, with what it wrote.
    pub fn wait_ready(&mut self) -> Result<()> {
        self.wait_for("READY=1", |n| n.name == "READY" && n.value == "1")
            .map(drop)
    }

    /// Waits for a notification that `wanted` accepts, of the process that runs; one that came before included.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`], or if the process ends before, with what it wrote.
    pub fn wait_for(
        &mut self,
        what: &str,
        wanted: impl Fn(&Notification) -> bool,
    ) -> Result<Notification> {
        let begun = self.begun;
        let deadline = Deadline::default();
        loop {
            let tick = Duration::from_millis(20).min(deadline.left());
            let found = self.manager.wait(what, tick, |state| {
                state.seen[begun..].iter().find(|n| wanted(n)).cloned()
            });
            match found {
                Err(e) if e.is_timeout() => {}
                found => return found,
            }
            let ended = self.try_exit()?;
            if deadline.passed() || ended.is_some() {
                // It may have said it just before it ended.
                self.manager.barrier()?;
                return self
                    .manager
                    .wait(what, Duration::ZERO, |state| {
                        state.seen[begun..].iter().find(|n| wanted(n)).cloned()
                    })
                    .map_err(|_| deadline.missed(format!("{what}; log: {}", self.log())));
            }
        }
    }

    /// All notifications of all its processes, oldest first.
    pub fn notifications(&self) -> Vec<Notification> {
        self.manager.shared.lock().seen.clone()
    }

    /// What systemd would have warned of: a full store, names that are not valid.
    pub fn warnings(&self) -> Vec<String> {
        self.manager.shared.lock().warnings.clone()
    }

    /// The names of what is kept, in the order in which the next start gets it: the newest first.
    pub fn kept(&self) -> Vec<String> {
        let state = self.manager.shared.lock();
        let kept = state.store.newest_first().map(|kept| kept.name.clone());
        kept.collect()
    }

    /// Keeps a descriptor, as if a process had sent it.
    pub fn keep(&self, name: &str, fd: OwnedFd) {
        let mut state = self.manager.shared.lock();
        state.store.add(Some(name), fd, false);
    }

    /// A duplicate of the newest that is kept with this name.
    pub fn kept_fd(&self, name: &str) -> Option<OwnedFd> {
        let state = self.manager.shared.lock();
        let mut kept = state.store.newest_first();
        let kept = kept.find(|kept| kept.name == name)?;
        kept.fd.try_clone().ok()
    }

    /// Waits until exactly these are kept, in any order.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`].
    pub fn wait_kept(&self, names: &[&str]) -> Result<()> {
        let mut wanted: Vec<_> = names.to_vec();
        wanted.sort_unstable();
        let what = format!("{wanted:?} to be kept");
        self.manager.wait(&what, DEFAULT_LIMIT, |state| {
            let kept = state.store.newest_first();
            let mut kept: Vec<_> = kept.map(|kept| kept.name.as_str()).collect();
            kept.sort_unstable();
            (kept == wanted).then_some(())
        })
    }

    /// The process id of the process that runs.
    ///
    /// # Errors
    /// If none runs.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.process()?.child.id())
    }

    /// How often it was started.
    pub fn starts(&self) -> usize {
        self.starts
    }

    /// Sends the process that runs a signal.
    ///
    /// # Errors
    /// If none runs; as `pidfd_send_signal(2)`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pidfd = &self.process()?.pidfd;
        pidfd_send_signal(pidfd, signal).map_err(Error::os("pidfd_send_signal"))
    }

    /// The exit status of the process, if it has ended: what is kept stays until [`Service::settle`] or
    /// [`Service::stop`].
    ///
    /// # Errors
    /// If none runs; as `waitpid(2)`.
    pub fn try_exit(&mut self) -> Result<Option<ExitStatus>> {
        let child = &mut self.process.as_mut().ok_or_else(not_running)?.child;
        child.try_wait().map_err(Error::io("waitpid"))
    }

    /// Waits until the process has ended, and until all that it sent before is done.
    ///
    /// # Errors
    /// [`Error::Timeout`] after [`DEFAULT_LIMIT`], with what it wrote.
    pub fn wait_exit(&mut self) -> Result<ExitStatus> {
        let deadline = Deadline::default();
        deadline.ready(&self.process()?.pidfd, PollFlags::IN)?;
        let Some(status) = self.try_exit()? else {
            return Err(deadline.missed(format!("the program's end; log: {}", self.log())));
        };
        self.manager.barrier()?;
        self.process = None;
        Ok(status)
    }

    /// Kills the process (SIGKILL). What is kept stays.
    ///
    /// # Errors
    /// As [`Service::signal`] and [`Service::wait_exit`].
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait_exit().map(drop)
    }

    /// [`Service::kill`] and a start with what is kept, until it is ready: as `Restart=on-failure` `RestartSec=0`.
    ///
    /// # Errors
    /// As these.
    pub fn kill_and_start(&mut self) -> Result<()> {
        self.kill()?;
        self.start()?;
        self.wait_ready()
    }

    /// `systemctl restart`: SIGTERM, the end, a start with what is kept, until it is ready. Gives the status with
    /// which it ended.
    ///
    /// # Errors
    /// As [`Service::wait_exit`] and [`Service::start`].
    pub fn restart(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit()?;
        self.start()?;
        self.wait_ready()?;
        Ok(status)
    }

    /// `systemctl stop`: SIGTERM, the end; what was kept is closed.
    ///
    /// # Errors
    /// As [`Service::wait_exit`].
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let status = self.wait_exit()?;
        self.manager.clear();
        Ok(status)
    }

    /// Whether `status` is a success to the units (`SuccessExitStatus=`).
    #[must_use]
    pub fn is_success(status: ExitStatus) -> bool {
        status.success() || status.code() == Some(SIGNALLED)
    }

    /// What becomes of the service once its process ended by itself, with `Restart=on-failure`: started again after a
    /// failure (a signal other than SIGHUP, SIGINT, SIGTERM and SIGPIPE, or a status that is not 0), and after the status that
    /// says so (`RestartForceExitStatus=`); inactive after success, and what was kept is closed. Gives the status and whether it was started again.
    ///
    /// # Errors
    /// As [`Service::wait_exit`] and [`Service::start`].
    pub fn settle(&mut self) -> Result<(ExitStatus, bool)> {
        let status = self.wait_exit()?;
        let clean = [Signal::HUP, Signal::INT, Signal::TERM, Signal::PIPE];
        let ended_by = status.signal().and_then(Signal::from_named_raw);
        let is_clean = status.success() || ended_by.is_some_and(|signal| clean.contains(&signal));
        if is_clean {
            self.manager.clear();
        } else {
            self.start()?;
        }
        Ok((status, !is_clean))
    }

    /// Closes what is kept, as of a service that is inactive.
    pub fn forget(&self) {
        self.manager.clear();
    }

    /// Where a socket of it lies.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.sock"))
    }

    /// Connects to a socket of it, running or not.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub fn connect(&self, name: &str) -> Result<UnixStream> {
        UnixStream::connect(self.path(name)).map_err(Error::io(format!("connecting to {name}")))
    }

    /// Connects to its socket "vhost-user" and speaks vhost-user.
    ///
    /// # Errors
    /// As [`Service::connect`].
    pub fn session(&self) -> Result<Session> {
        self.connect("vhost-user").map(Session::new)
    }

    /// What all its processes wrote so far, on stdout and stderr.
    pub fn log(&self) -> String {
        contents(&self.log)
    }

    #[cfg(test)]
    pub(super) fn manager(&self) -> &Manager {
        &self.manager
    }

    fn process(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(not_running)
    }
}

fn not_running() -> Error {
    Error::Protocol("the service does not run".into())
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Fails only if it has ended and was waited for.
            let _ = process.child.kill();
            let _ = process.child.wait();
        }
        // The reader of a failed test wants to know what the program said.
        if std::thread::panicking() {
            eprintln!("--- log of the service:\n{}---", self.log());
        }
    }
}
