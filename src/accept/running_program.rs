// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A backend program beside this one.

use std::io::{self, ErrorKind};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};

use super::error::{Error, START_LIMIT};

/// How long the program may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(10);

/// A running program that is ended when this is dropped.
pub(super) struct RunningProgram {
    program: PathBuf,
    child: Child,
}

impl RunningProgram {
    /// Starts it. SIGTERM ends it with this process.
    pub(super) fn start(program: PathBuf, mut command: Command) -> Result<Self, Error> {
        // SAFETY: between fork and exec there is one system call, which allocates nothing and takes no lock.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
        }
        match command.spawn() {
            Ok(child) => Ok(Self { program, child }),
            Err(error) => Err(Error::Run { program, error }),
        }
    }

    /// Connects to it, once it listens.
    pub(super) fn connect(&mut self, paths: &[PathBuf]) -> Result<UnixStream, Error> {
        let program = self.program.clone();
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

    /// Why its end of the connection is closed.
    pub(super) fn why_closed(&mut self) -> Error {
        let program = self.program.clone();
        match self.ended(STOP_LIMIT) {
            Ok(Some(status)) => Error::Ended { program, status },
            Ok(None) => Error::Closed { program },
            Err(error) => Error::Wait { program, error },
        }
    }

    /// How it ended, if it does so in time.
    fn ended(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.child.try_wait()?;
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

impl Drop for RunningProgram {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
                // It fails only if the program has ended.
                let _ = kill_process(pid, Signal::TERM);
            }
            if let Ok(None) | Err(_) = self.ended(STOP_LIMIT) {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}
