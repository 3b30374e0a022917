// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Programs that end with us, however we end.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process_group};

/// Ends a process if we die before we can: it waits for the end of its input.
#[derive(Debug)]
pub(crate) struct Guard(Child);

impl Guard {
    /// Watches over one process.
    pub(crate) fn of(child: &Child) -> anyhow::Result<Self> {
        Self::of_target(&child.id().to_string())
    }

    /// Watches over the process group that `leader` leads.
    fn of_group(leader: &Child) -> anyhow::Result<Self> {
        Self::of_target(&format!("-{}", leader.id()))
    }

    fn of_target(target: &str) -> anyhow::Result<Self> {
        // A session of its own, or what kills us and the other's group kills it first.
        let guard = Command::new("setsid")
            .args(["sh", "-c", r#"read -r _; kill -KILL -- "$0""#, target])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Ok(Self(guard.context("cannot start setsid")?))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program and all that it starts; dropping it kills them.
#[derive(Debug)]
pub struct Guarded {
    child: Child,
    guard: Option<Guard>,
}

impl Guarded {
    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let mut guarded = Self { child, guard: None };
        guarded.guard = Some(Guard::of_group(&guarded.child)?);
        Ok(guarded)
    }

    /// The child, for its pipes.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its process ID.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program and all that it started.
    ///
    /// # Errors
    ///
    /// If they have ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let group = group.context("a process has no number")?;
        kill_process_group(group, signal).context("cannot send a signal")
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// If the kernel cannot tell.
    pub fn try_wait(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().context("cannot ask for a process")
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// If it goes on for longer than `limit`.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("it still runs after {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // First, while the number is still the program's.
        drop(self.guard.take());
        // Fails only if all have ended already.
        let _ = self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::*;

    #[test]
    fn what_a_program_starts_ends_with_it() {
        let mut shell = Command::new("sh");
        shell
            .args(["-c", "sleep 1000 & echo $!; wait"])
            .stdout(Stdio::piped());
        let mut guarded = Guarded::spawn(&mut shell).expect("sh");
        let output = guarded.child().stdout.take().expect("a pipe");
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).expect("a number");
        drop(guarded);
        // Both held the pipe.
        line.clear();
        assert_eq!(output.read_line(&mut line).expect("the end"), 0);
    }
}
