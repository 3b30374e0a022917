// SPDX-License-Identifier: Apache-2.0 OR MIT
//! System calls of a process, counted by a tracepoint.
//!
//! `perf stat` counts in the kernel and stops nobody, unlike `strace`. It costs a little all the same,
//! so what is counted is not timed.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use frontend::Deadline;
use nix::sys::stat::Mode;
use rustix::event::PollFlags;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

const EVENT: &str = "raw_syscalls:sys_enter";

/// Why system calls cannot be counted here; `None` if they can.
pub(crate) fn missing() -> Option<String> {
    let counted = Command::new("perf")
        .args(["stat", "-x,", "-e", EVENT, "true"])
        .output();
    match counted {
        Err(e) => Some(format!("perf does not run: {e}")),
        Ok(out) if parse(&String::from_utf8_lossy(&out.stderr)).is_none() => {
            Some(format!("perf cannot count {EVENT} here"))
        }
        Ok(_) => None,
    }
}

/// A count that is on.
#[derive(Debug)]
pub(crate) struct Counter {
    perf: Child,
    control: File,
    acknowledged: File,
    folder: TempDir,
}

impl Counter {
    /// Begins to count the system calls of all threads that `pids` have.
    ///
    /// # Errors
    /// If perf does not run.
    pub(crate) fn start(pids: &[u32]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let [control, acknowledged] = ["control", "acknowledged"].map(|n| folder.path().join(n));
        for path in [&control, &acknowledged] {
            nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        }
        let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
        let pids = pids.join(",");
        // Open for both directions: nobody waits for the other side to come.
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
        let mut counter = Self {
            control: open(&control)?,
            acknowledged: open(&acknowledged)?,
            perf: Command::new("perf")
                .args(["stat", "-x,", "-e", EVENT, "--delay=-1", "-p"])
                .arg(pids)
                .arg("-o")
                .arg(folder.path().join("count"))
                .arg(format!(
                    "--control=fifo:{},{}",
                    control.display(),
                    acknowledged.display()
                ))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start perf")?,
            folder,
        };
        counter.tell("enable\n")?;
        Ok(counter)
    }

    /// How many there were.
    ///
    /// # Errors
    /// If perf has failed.
    pub(crate) fn stop(mut self) -> anyhow::Result<u64> {
        self.tell("disable\n")?;
        // It writes its file at an interrupt; the control's own "stop" leaves it waiting.
        kill_process(Pid::from_child(&self.perf), Signal::INT)?;
        self.perf.wait()?;
        let text = std::fs::read_to_string(self.folder.path().join("count"))?;
        parse(&text).with_context(|| format!("perf counted nothing: {text}"))
    }

    fn tell(&mut self, command: &str) -> anyhow::Result<()> {
        self.control.write_all(command.as_bytes())?;
        // Both ends are open here, so its end would not be seen.
        let deadline = Deadline::default();
        if !deadline.ready(&self.acknowledged, PollFlags::IN)? {
            bail!(deadline.missed("perf to answer"));
        }
        let mut answer = [0; 5];
        self.acknowledged.read_exact(&mut answer)?;
        if &answer[..3] != b"ack" {
            bail!("perf answers {answer:?}");
        }
        Ok(())
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        // Fails where it has ended, as it should have.
        let _ = self.perf.kill();
        let _ = self.perf.wait();
    }
}

/// The first field of the line of our event.
fn parse(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains(EVENT))?;
    match line.split(',').next()? {
        // No thread ran at all.
        "<not counted>" => Some(0),
        count => count.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read() {
        let text = "# started on Mon\n\n29,,raw_syscalls:sys_enter,1838912,100.00,,\n";
        assert_eq!(parse(text), Some(29));
        assert_eq!(parse("<not counted>,,raw_syscalls:sys_enter,0"), Some(0));
        assert_eq!(parse("<not supported>,,raw_syscalls:sys_enter,0"), None);
    }
}
