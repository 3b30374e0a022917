// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resource usage of a process, as the kernel accounts it.

use std::time::Duration;

use anyhow::Context as _;
use nix::time::ClockId;
use nix::unistd::Pid;

/// Processor time and context switches of a process, all its threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time it ran, in user and kernel mode, to the nanosecond.
    pub cpu: Duration,
    /// How often one of its threads went to sleep.
    pub sleeps: u64,
}

impl Usage {
    /// Of process `pid` until now.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let gone = || format!("process {pid} has ended");
        let clock = ClockId::pid_cpu_clock_id(Pid::from_raw(pid.try_into()?)).with_context(gone)?;
        let cpu = clock.now().with_context(gone)?.into();
        let mut sleeps = 0;
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).with_context(gone)? {
            // A thread may end meanwhile.
            let Ok(status) = std::fs::read_to_string(task?.path().join("status")) else {
                continue;
            };
            sleeps += field(&status, "voluntary_ctxt_switches:").unwrap_or(0);
        }
        Ok(Self { cpu, sleeps })
    }

    /// Of several processes together until now.
    ///
    /// # Errors
    /// If one has ended.
    pub(crate) fn of_all(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let one = Self::of(*pid)?;
            sum.cpu += one.cpu;
            sum.sleeps += one.sleeps;
        }
        Ok(sum)
    }

    /// What was used since `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu.saturating_sub(before.cpu),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Resident {
    /// All that is mapped and present, in KiB.
    pub all: u64,
    /// Its own part of that: what would be free without it, in KiB.
    pub private: u64,
}

impl Resident {
    /// Of process `pid` now.
    ///
    /// # Errors
    /// If it has ended.
    pub(crate) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = std::fs::read_to_string(&path).context(path)?;
        let kib = |name| field(&text, name).with_context(|| format!("no {name} in smaps_rollup"));
        Ok(Self {
            all: kib("Rss:")?,
            private: kib("Private_Clean:")? + kib("Private_Dirty:")?,
        })
    }
}

pub(crate) fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_and_memory_are_measured() {
        let before = Usage::of(std::process::id()).unwrap();
        let mut n = 0_u64;
        while Usage::of(std::process::id()).unwrap().since(before).cpu < Duration::from_millis(5) {
            n = std::hint::black_box(n + 1);
        }
        std::thread::sleep(Duration::from_millis(1));
        let used = Usage::of(std::process::id()).unwrap().since(before);
        assert!(used.sleeps >= 1);
        let memory = Resident::of(std::process::id()).unwrap();
        assert!(memory.all >= memory.private && memory.private > 0);
    }

    #[test]
    fn fields_are_found() {
        let text = "VmRSS:\t 12 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t9\n";
        assert_eq!(field(text, "voluntary_ctxt_switches:"), Some(7));
        assert_eq!(field(text, "VmRSS:"), Some(12));
        assert_eq!(field(text, "Pss:"), None);
    }
}
