// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One try of one point: the program, its folder, and the time that is left.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{fs, io};

use conventions::{Capabilities, DeviceType};
use frontend::{Deadline, FrontendReq, Session, VhostUserProtocolFeatures as Protocol};
use rustix::event::PollFlags;
use rustix::net::sockopt::socket_peercred;

use crate::folders::TrialFolder;
use crate::marked;
use crate::outcome::{Flaw, Seen, fails, not_tried, unfinished};
use crate::process::{Activation, Backend, End, Launch, Streams};
pub(crate) use crate::sockets::{connect, connect_now, sockets_beside};
use crate::target::{Paths, Target, arguments};

/// Size of the file that a block device gets, in bytes.
pub(crate) const DISK_SIZE: u64 = 1 << 20;
/// What a point may take beyond its limit, to end what it started.
const LATE: Duration = Duration::from_secs(10);
/// For how long it is looked that nothing happens.
pub(crate) const QUIET: Duration = Duration::from_millis(150);

/// How a program gets its vhost-user socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `--socket-path=PATH`.
    Path,
    /// `--fd=N`, one end of a socket pair.
    Connected(i32),
    /// `--fd=N`, a socket that listens.
    Listening(i32),
    /// LISTEN_FDS=1 and a socket that listens as descriptor 3.
    Activation(Activation),
    /// The program's own arguments say where it listens.
    Arguments,
}

/// What is known of a program before the points are tried.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) device_type: Option<DeviceType>,
    /// How it is reached.
    pub(crate) form: Option<Form>,
    /// Why it is not, if it is not.
    pub(crate) unserved: String,
    pub(crate) features: u64,
    pub(crate) protocol_features: Protocol,
}

impl Default for Facts {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            capabilities: None,
            device_type: None,
            form: None,
            unserved: String::new(),
            features: 0,
            protocol_features: Protocol::empty(),
        }
    }
}

/// One try of one point against a program. Points start the program by it, as often as they need.
#[derive(Debug)]
pub struct Trial {
    pub(crate) target: Arc<Target>,
    pub(crate) facts: Arc<Facts>,
    pub(crate) deadline: Deadline,
    limit: Duration,
    folder: TrialFolder,
    /// What the marks of its programs begin with.
    mark: String,
    /// The statuses other than 0 with which programs ended on their own, though not by a crash, and how often.
    statuses: Mutex<BTreeMap<i32, usize>>,
    /// How the programs that were started ended, and what they said.
    pub(crate) story: Arc<Mutex<Vec<String>>>,
}

/// The front-end's way to a program.
#[derive(Debug)]
enum Way {
    Path(PathBuf),
    Stream(Option<UnixStream>),
}

/// A program that was started with a socket.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) backend: Backend,
    way: Way,
    /// The listening socket that it was given, as its service manager has it.
    _listener: Option<UnixListener>,
}

/// A program and the front-end that is connected to it.
#[derive(Debug)]
pub(crate) struct Served {
    /// First, so that the front-end leaves before the program is killed.
    pub(crate) session: Session,
    pub(crate) started: Started,
}

impl Trial {
    pub(crate) fn new(target: Arc<Target>, facts: Arc<Facts>, limit: Duration) -> io::Result<Self> {
        let folder = TrialFolder::new()?;
        for name in ["socket", "own", "shared"] {
            fs::create_dir(folder.path().join(name))?;
        }
        let file = fs::File::create(folder.path().join("disk"))?;
        file.set_len(DISK_SIZE)?;
        Ok(Self {
            target,
            facts,
            deadline: Deadline::after(limit),
            limit,
            folder,
            mark: marked::next_trial(),
            statuses: Mutex::default(),
            story: Arc::default(),
        })
    }

    /// The folder that the check itself works in.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the program listens, unless a point wants another path.
    pub(crate) fn socket_path(&self) -> PathBuf {
        self.folder().join("socket/vhost-user.sock")
    }

    /// The disk of a block device.
    pub(crate) fn disk(&self) -> PathBuf {
        self.folder().join("disk")
    }

    /// Where the program listens for the events of its input device.
    pub(crate) fn events_path(&self) -> PathBuf {
        self.folder().join("events")
    }

    /// Runs what ends in time by itself, as each wait has a limit, and kills the programs if it does not; with whether
    /// that was to be done.
    pub(crate) fn guarded<T>(&self, run: impl FnOnce() -> T) -> (T, bool) {
        std::thread::scope(|scope| {
            let (done, is_done) = mpsc::channel::<()>();
            let guard = scope.spawn(move || {
                let mut late = false;
                let mut limit = self.left() + LATE;
                while is_done.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                    late = true;
                    marked::kill_trial(&self.mark);
                    limit = Duration::from_millis(100);
                }
                late
            });
            let result = run();
            drop(done);
            (result, guard.join().unwrap_or(true))
        })
    }

    /// What was seen, with the statuses of programs that ended on their own.
    pub(crate) fn with_statuses(&self, mut seen: String) -> String {
        let statuses = self.statuses.lock().unwrap_or_else(PoisonError::into_inner);
        for (status, count) in statuses.iter() {
            let end = format!("with status {status}");
            // Some points tell it by themselves.
            if !seen.contains(&end) {
                let times = if *count == 1 {
                    "once".into()
                } else {
                    format!("{count} times")
                };
                seen.push_str(&format!("; it ends {end} {times}"));
            }
        }
        seen
    }

    /// The time that is left.
    pub(crate) fn left(&self) -> Duration {
        self.deadline.left()
    }

    /// The type of device; without one there is nothing to try.
    pub(crate) fn device_type(&self) -> Result<DeviceType, Flaw> {
        match self.facts.device_type {
            Some(device_type) => Ok(device_type),
            None => not_tried("the type of the device is not known"),
        }
    }

    /// The program with nothing but these arguments.
    pub(crate) fn bare(&self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Launch {
        Launch {
            program: self.target.program.clone(),
            args: args.into_iter().map(Into::into).collect(),
            env: self.target.env.clone(),
            fds: Vec::new(),
            activation: None,
            streams: Streams::Read,
            folder: self.folder().join("own"),
            trial: self.mark.clone(),
            story: self.story.clone(),
        }
    }

    /// The program with the arguments that it needs, and no socket.
    pub(crate) fn launch(&self) -> Launch {
        self.bare(self.arguments(None))
    }

    fn arguments(&self, socket: Option<&Path>) -> Vec<OsString> {
        let paths = Paths {
            socket,
            folder: &self.folder().join("shared"),
            file: &self.disk(),
            events: &self.events_path(),
        };
        arguments(&self.target.args, paths)
    }

    /// The program with `--socket-path` of this path, as one argument.
    pub(crate) fn launch_at(&self, path: &Path) -> Launch {
        self.launch().arg(path_option(path))
    }

    /// Starts the program with its socket in this form.
    pub(crate) fn start(&self, form: Form) -> Result<Started, Flaw> {
        self.start_with(form, |launch| launch)
    }

    /// As [`Trial::start`], with changes.
    pub(crate) fn start_with(
        &self,
        form: Form,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<Started, Flaw> {
        // A case that begins too late would tell of the time, not of the program.
        if self.left() < self.limit / 10 {
            return unfinished("the time was over before all cases were tried");
        }
        let path = self.socket_path();
        // Of a program that was started before.
        for left in sockets_beside(&path) {
            fs::remove_file(left)?;
        }
        match fs::remove_file(self.events_path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let (launch, way, listener) = match form {
            Form::Path => (self.launch_at(&path), Way::Path(path), None),
            Form::Arguments => {
                let args = self.arguments(Some(&path));
                (self.bare(args), Way::Path(path), None)
            }
            Form::Connected(number) => {
                let (ours, theirs) = UnixStream::pair()?;
                let launch = self.launch().arg(format!("--fd={number}"));
                (launch.fd(number, theirs), Way::Stream(Some(ours)), None)
            }
            Form::Listening(number) => {
                let listener = UnixListener::bind(&path)?;
                let launch = self.launch().arg(format!("--fd={number}"));
                let launch = launch.fd(number, listener.try_clone()?);
                (launch, Way::Path(path), Some(listener))
            }
            Form::Activation(whose) => {
                let listener = UnixListener::bind(&path)?;
                let mut launch = self.launch().fd(3, listener.try_clone()?);
                launch.activation = Some(whose);
                (launch, Way::Path(path), Some(listener))
            }
        };
        Ok(Started {
            backend: change(launch).spawn()?,
            way,
            _listener: listener,
        })
    }

    /// The form in which the program serves.
    pub(crate) fn form(&self) -> Result<Form, Flaw> {
        match self.facts.form {
            Some(form) => Ok(form),
            // Why is told once: see Check::unserved.
            None => not_tried("it serves no front-end"),
        }
    }

    /// Starts the program and connects to it.
    pub(crate) fn serve(&self) -> Result<Served, Flaw> {
        self.serve_in(self.form()?)
    }

    /// As [`Trial::serve`], in this form.
    pub(crate) fn serve_in(&self, form: Form) -> Result<Served, Flaw> {
        self.serve_with(form, |launch| launch)
    }

    /// As [`Trial::serve_in`], with changes.
    pub(crate) fn serve_with(
        &self,
        form: Form,
        change: impl FnOnce(Launch) -> Launch,
    ) -> Result<Served, Flaw> {
        let mut started = self.start_with(form, change)?;
        let session = started.session(self)?;
        Ok(Served { session, started })
    }
}

/// `--socket-path=PATH`.
pub(crate) fn path_option(path: &Path) -> OsString {
    let mut option = OsString::from("--socket-path=");
    option.push(path);
    option
}

impl Started {
    /// Connects as a front-end; the connected form gives its one stream once.
    pub(crate) fn session(&mut self, trial: &Trial) -> Result<Session, Flaw> {
        let stream = match &mut self.way {
            Way::Stream(stream) => match stream.take() {
                Some(stream) => stream,
                None => return not_tried("the one connection was used"),
            },
            Way::Path(path) => {
                let path = path.clone();
                let stream = connect(&mut self.backend, &path, &trial.deadline)?;
                if let Ok(peer) = socket_peercred(&stream) {
                    self.backend.set_peer(peer.pid);
                }
                stream
            }
        };
        let mut session = Session::new(stream);
        session.channel.limit = trial.left();
        session.channel.until = Some(trial.deadline);
        Ok(session)
    }

    /// The answer to a first GET_FEATURES, or how the program ends without one.
    pub(crate) fn first_answer(&mut self, session: &mut Session) -> Result<u64, Flaw> {
        let deadline = Deadline::after(session.channel.limit);
        session
            .channel
            .send(FrontendReq::GET_FEATURES.into(), 1, &[], &[])?;
        let socket = session.channel.socket();
        while !Deadline::after(Duration::from_millis(20)).ready(socket, PollFlags::IN)? {
            if let Some(end) = self.backend.wait_end(&Deadline::after(Duration::ZERO))? {
                if self.backend.others().is_empty() {
                    return fails(format!("it ends with {end}"));
                }
            }
            if deadline.passed() {
                return fails("GET_FEATURES is not answered");
            }
        }
        let reply = session.channel.receive()?;
        match <[u8; 8]>::try_from(&reply.body[..]) {
            Ok(bytes) => Ok(u64::from_ne_bytes(bytes)),
            Err(_) => fails(format!(
                "GET_FEATURES is answered with {} bytes",
                reply.body.len()
            )),
        }
    }

    /// That the program has ended well, with status 0 if that counts, or serves the next front-end.
    pub(crate) fn left(&mut self, trial: &Trial, status_counts: bool) -> Seen {
        loop {
            let moment = Deadline::after(trial.left().min(Duration::from_millis(50)));
            match self.backend.wait_end(&moment)? {
                Some(End::Status(0)) => return Ok("it ends with status 0".into()),
                Some(end) => {
                    self.crash(trial, end)?;
                    return match status_counts {
                        true => fails(format!("it ends with {end}")),
                        false => Ok(format!("it ends with {end}")),
                    };
                }
                None => {}
            }
            if self.can_connect_again() {
                if let Ok(mut next) = self.session(trial) {
                    next.channel.limit = trial.left().min(Duration::from_secs(2));
                    if next.get_u64(FrontendReq::GET_FEATURES).is_ok() {
                        return Ok("it serves the next front-end".into());
                    }
                }
            }
            if trial.deadline.passed() {
                return fails("it neither ends nor serves another front-end");
            }
        }
    }

    /// That the program, if it ends now, does not do so by a crash.
    pub(crate) fn not_crashed(&mut self, trial: &Trial, what: &str) -> Result<(), Flaw> {
        // A crash takes a moment to be one: the kernel closes the socket first.
        let moment = Deadline::after(trial.left().min(Duration::from_millis(300)));
        match self.backend.wait_end(&moment)? {
            Some(end) => self.crash(trial, end).map_err(|flaw| match flaw {
                Flaw::Fails(seen) => Flaw::Fails(format!("{what}: {seen}")),
                other => other,
            }),
            None => Ok(()),
        }
    }

    /// Fails for an end that is a crash; notes any other that says that something went wrong.
    fn crash(&self, trial: &Trial, end: End) -> Result<(), Flaw> {
        let status = match end {
            End::Signal(_) => return fails(format!("it is ended by {end}")),
            End::Status(0) => return Ok(()),
            End::Status(status) => status,
        };
        let said = self.backend.stderr();
        // What the runtimes of Rust, Python and Go say.
        let is_go = said.contains("goroutine ")
            && ["panic: ", "fatal error: "]
                .iter()
                .any(|start| said.lines().any(|line| line.starts_with(start)));
        if said.contains("panicked at") || is_go {
            return fails(format!("it panics, with {end}"));
        }
        if said.contains("Traceback (most recent call last)") {
            return fails(format!("it ends by an exception, with {end}"));
        }
        let mut statuses = trial
            .statuses
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *statuses.entry(status).or_default() += 1;
        Ok(())
    }

    /// Whether another front-end can connect.
    pub(crate) fn can_connect_again(&self) -> bool {
        matches!(self.way, Way::Path(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a point does whose waits have no limit.
    #[test]
    fn program_that_keeps_a_point_is_killed() {
        let target = Arc::new(Target::program("/bin/sleep"));
        let limit = Duration::from_millis(10);
        let trial = Trial::new(target, Arc::default(), limit).unwrap();
        let mut program = trial.bare(["600"]).spawn().unwrap();
        let patient = Deadline::after(Duration::from_secs(300));
        let (end, late) = trial.guarded(|| program.wait_end(&patient));
        assert!(late);
        assert_eq!(end.unwrap(), Some(End::Signal(9)));
    }
}
