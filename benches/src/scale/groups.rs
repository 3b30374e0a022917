// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What control groups and processes use, as the kernel accounts it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use crate::usage::field;

/// The control group of this name, at or below `root`.
pub(super) fn find(root: &Path, name: &str) -> Option<PathBuf> {
    let groups = fs::read_dir(root).ok()?.filter_map(Result::ok);
    let groups: Vec<PathBuf> = groups
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    let named = groups
        .iter()
        .find(|path| path.file_name().is_some_and(|it| it == name));
    named
        .cloned()
        .or_else(|| groups.iter().find_map(|group| find(group, name)))
}

/// The processes in a control group and in those below.
///
/// # Errors
/// If the group is gone.
pub(super) fn processes(group: &Path) -> anyhow::Result<Vec<u32>> {
    let path = group.join("cgroup.procs");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
    for entry in fs::read_dir(group)? {
        let path = entry?.path();
        if path.is_dir() {
            // It may be gone meanwhile.
            pids.extend(processes(&path).unwrap_or_default());
        }
    }
    Ok(pids)
}

/// The processor time that a control group and those below have used.
///
/// # Errors
/// If the group is gone.
pub(super) fn time(group: &Path) -> anyhow::Result<Duration> {
    let path = group.join("cpu.stat");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let micros = field(&text, "usage_usec").context("cpu.stat tells no time")?;
    Ok(Duration::from_micros(micros))
}

/// The proportional set size of processes in KiB: shared pages are divided among those who have them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pss {
    /// Of GPUs.
    pub gpu: u64,
    /// Of input devices.
    pub input: u64,
    /// Of other programs.
    pub other: u64,
    /// How much of all is shared memory: the guests' pages that devices have touched, and kept states.
    pub shared: u64,
}

impl Pss {
    /// Of these processes now.
    ///
    /// # Errors
    /// If one has ended.
    pub(super) fn of(pids: &[u32]) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&path).context(path)?;
            let kib = |name| field(&text, name).with_context(|| format!("no {name}"));
            let all = kib("Pss:")?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm"))?;
            match name.trim() {
                "vhost-user-gpu" => sum.gpu += all,
                // The kernel cuts a name after 15 bytes.
                "vhost-user-inpu" => sum.input += all,
                _ => sum.other += all,
            }
            sum.shared += kib("Pss_Shmem:")?;
        }
        Ok(sum)
    }

    /// Of all processes together.
    pub(super) fn all(&self) -> u64 {
        self.gpu + self.input + self.other
    }
}
