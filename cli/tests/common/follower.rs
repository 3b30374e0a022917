// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A verb that runs until it is ended, in a private systemd.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::systemd::Sandbox;
use rustix::process::{Pid, Signal, kill_process};

const SOON: Duration = Duration::from_secs(60);

/// A verb that does not end by itself; killed when dropped.
pub(crate) struct Follower {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Follower {
    pub(crate) fn start(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_with(sandbox, &[], arguments)
    }

    /// The same with variables in its environment.
    pub(crate) fn start_with(
        sandbox: &Sandbox,
        variables: &[&str],
        arguments: &[&str],
    ) -> anyhow::Result<Self> {
        let mut child = sandbox
            .command([&["env"], variables, &["vhostctl"], arguments].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = lines(child.stdout.take().context("no stdout")?);
        let complaints = lines_of(&mut child)?;
        Ok(Self {
            child,
            lines,
            complaints,
        })
    }

    /// Waits until it says that it watches.
    pub(crate) fn wait_ready(&mut self) -> anyhow::Result<()> {
        let line = self.complaints.recv_timeout(SOON)?;
        ensure!(line.starts_with("Watching "), "{line}");
        Ok(())
    }

    /// The next line that has this in it.
    pub(crate) fn line(&mut self, text: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + SOON;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(line) => others.push(line),
                Err(_) => anyhow::bail!("no line with {text:?}, but {others:#?}"),
            }
        }
    }

    /// The same of the lines that are there.
    pub(crate) fn try_line(&mut self, text: &str) -> Option<String> {
        thread::sleep(Duration::from_millis(200));
        self.lines.try_iter().find(|line| line.contains(text))
    }

    /// Ends it by SIGTERM, which has to be a success.
    pub(crate) fn end(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status == Some(0), "ended with {status:?}");
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // What was started enters the sandbox and leaves the program to its child.
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.trim().parse().ok().and_then(Pid::from_raw);
        Ok(kill_process(child.context("no child")?, signal)?)
    }

    pub(crate) fn wait(&mut self) -> anyhow::Result<Option<i32>> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            ensure!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    Ok(lines(child.stderr.take().context("no stderr")?))
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
