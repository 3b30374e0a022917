// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A measurement that is interrupted ends, and so do the programs that it started.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use frontend::Deadline;
use rustix::process::{Pid, Signal, kill_process};

/// The GPU, the keyboard and the VNC server.
const WORK: &str = "console: 64x64 flushed, raw";
const PROGRAMS: usize = 3;
/// In milliseconds, far longer than the test.
const TIME: &str = "600000";
const LIMIT: Duration = Duration::from_secs(120);

/// Process and parent of all processes.
fn processes() -> Vec<(i32, i32)> {
    let entries = std::fs::read_dir("/proc").expect("procfs is mounted");
    let parents = entries.filter_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name, in parentheses, may contain anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let is_zombie = fields.next()? == "Z";
        let parent = fields.next()?.parse().ok()?;
        (!is_zombie).then_some((pid, parent))
    });
    parents.collect()
}

fn descendants(of: i32) -> BTreeSet<i32> {
    let all = processes();
    let mut found = BTreeSet::from([of]);
    loop {
        let more = all.iter().filter(|(_, parent)| found.contains(parent));
        let more: Vec<i32> = more.map(|(pid, _)| *pid).collect();
        let before = found.len();
        found.extend(more);
        if found.len() == before {
            found.remove(&of);
            return found;
        }
    }
}

#[test]
fn interrupted_measurement_leaves_no_program() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut bench = Command::new(env!("CARGO_BIN_EXE_bench"))
            .args(["--no-peers", "--rounds=1", "--time", TIME, "--only", WORK])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let pid = Pid::from_child(&bench);
        let id = pid.as_raw_nonzero().get();
        let started = Deadline::after(LIMIT).until("its programs", || {
            let exit = bench.try_wait().expect("it is a child");
            assert!(exit.is_none(), "it ended with {exit:?}");
            Ok(Some(descendants(id)).filter(|found| found.len() >= PROGRAMS))
        });
        let started = started.expect("it starts them");
        kill_process(pid, signal).expect("it runs");
        let ended = Deadline::after(LIMIT).until("its end", || Ok(bench.try_wait().ok().flatten()));
        let status = ended.expect("it ends");
        assert_eq!(status.code(), Some(1), "{signal:?}: {status:?}");
        let left = Deadline::after(LIMIT).until("the end of its programs", || {
            let alive: BTreeSet<i32> = processes().into_iter().map(|(pid, _)| pid).collect();
            Ok(started.is_disjoint(&alive).then_some(()))
        });
        left.expect("they end with it");
    }
}
