// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The processes that checks started: all of one backend, and all that it started, have the same variable in their
//! environment.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use frontend::Deadline;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// The environment variable.
pub(crate) const VARIABLE: &str = "VHOST_USER_CHECK";
/// How long processes may take to end by SIGKILL.
const END: Duration = Duration::from_secs(5);

static STARTED: AtomicU64 = AtomicU64::new(0);

/// The beginning of the values of one trial's backends, which no other trial has.
pub(crate) fn next_trial() -> String {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}.", process::id())
}

/// A value that no other backend has, of a trial.
pub(crate) fn next(trial: &str) -> String {
    let number = STARTED.fetch_add(1, Ordering::Relaxed);
    format!("{trial}{number}")
}

/// Which values of the variable.
#[derive(Clone, Copy)]
enum Mark<'a> {
    This(&'a str),
    /// Those that begin so.
    All(&'a str),
}

impl Mark<'_> {
    fn is_of(self, value: &[u8]) -> bool {
        match self {
            Self::This(mark) => value == mark.as_bytes(),
            Self::All(start) => value.starts_with(start.as_bytes()),
        }
    }
}

/// A process, as /proc tells it.
struct Process {
    pid: Pid,
    parent: Option<Pid>,
    is_zombie: bool,
    is_marked: bool,
    /// It is just about to execute a program, so that its environment cannot be seen.
    is_unclear: bool,
}

/// All that there are, this one not counted.
fn processes(mark: Mark<'_>) -> Vec<Process> {
    let name = format!("{VARIABLE}=").into_bytes();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter_map(|entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let path = entry.path();
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        // After the name, in parentheses, which may have any characters: the state, and the parent's number.
        let mut words = stat.rsplit_once(')')?.1.split_whitespace();
        let is_zombie = matches!(words.next()?, "Z" | "X");
        let parent = Pid::from_raw(words.next()?.parse().ok()?);
        let mut environment = Vec::new();
        let read = File::open(path.join("environ"))
            .and_then(|file| file.take(1 << 20).read_to_end(&mut environment));
        let mut values = environment
            .split(|byte| *byte == 0)
            .filter_map(|variable| variable.strip_prefix(&name[..]));
        Some(Process {
            pid,
            parent,
            is_zombie,
            is_marked: values.any(|value| mark.is_of(value)),
            is_unclear: matches!(read, Ok(0)) && has_program(&path),
        })
    });
    let own = rustix::process::getpid();
    processes.filter(|process| process.pid != own).collect()
}

/// The processes with this mark and their descendants, those that were left to this process too; and whether there are
/// some that are unclear.
fn find(mark: Mark<'_>) -> (Vec<Pid>, bool) {
    let processes = processes(mark);
    let unclear = processes.iter().any(|process| process.is_unclear);
    let mut found: HashSet<Pid> = HashSet::new();
    let strays = strays(&processes);
    loop {
        let before = found.len();
        for process in &processes {
            let is_below = process.parent.is_some_and(|it| found.contains(&it));
            if process.is_marked || is_below || strays.contains(&process.pid) {
                found.insert(process.pid);
            }
        }
        if found.len() == before {
            break;
        }
    }
    let living = processes.iter().filter(|process| !process.is_zombie);
    let living = living.map(|process| process.pid);
    (living.filter(|pid| found.contains(pid)).collect(), unclear)
}

/// The children of this process that no check started itself.
struct Orphans {
    /// Those that were there before they were adopted.
    earlier: HashSet<Pid>,
    /// The programs that were started, until they are reaped.
    programs: HashSet<Pid>,
}

static ORPHANS: Mutex<Option<Orphans>> = Mutex::new(None);

fn orphans() -> MutexGuard<'static, Option<Orphans>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on what a program leaves behind becomes a child of this process, whatever it did to its environment.
pub(crate) fn adopt() -> rustix::io::Result<()> {
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own))?;
    let children = processes(Mark::This("")).into_iter();
    let children = children.filter(|process| process.parent == Some(own));
    *orphans() = Some(Orphans {
        earlier: children.map(|process| process.pid).collect(),
        programs: HashSet::new(),
    });
    Ok(())
}

/// A program was started.
pub(crate) fn started(program: Pid) {
    if let Some(orphans) = &mut *orphans() {
        orphans.programs.insert(program);
    }
}

/// A program that was started has ended and was reaped.
pub(crate) fn reaped(program: Pid) {
    if let Some(orphans) = &mut *orphans() {
        orphans.programs.remove(&program);
    }
}

/// What programs left behind; what of it has ended is reaped.
fn strays(processes: &[Process]) -> HashSet<Pid> {
    let own = rustix::process::getpid();
    let orphans = orphans();
    let Some(orphans) = &*orphans else {
        return HashSet::new();
    };
    let mut strays = HashSet::new();
    for process in processes {
        let is_own =
            orphans.earlier.contains(&process.pid) || orphans.programs.contains(&process.pid);
        if process.parent != Some(own) || is_own {
            continue;
        }
        if process.is_zombie {
            let _ = waitpid(Some(process.pid), WaitOptions::NOHANG);
        }
        strays.insert(process.pid);
    }
    strays
}

/// The kernel's threads and what has ended have none.
fn has_program(process: &Path) -> bool {
    fs::read_link(process.join("exe")).is_ok()
}

/// Whether there is such a process, and it has not ended.
pub(crate) fn lives(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| {
        let state = stat.rsplit_once(") ").map(|(_, rest)| rest);
        !state.is_some_and(|state| state.starts_with(['Z', 'X']))
    })
}

/// The processes of the backend with this mark.
pub(crate) fn all(mark: &str) -> Vec<Pid> {
    find(Mark::This(mark)).0
}

/// Kills the processes of the backend with this mark, also those that they start meanwhile; false if one goes on.
pub(crate) fn kill(mark: &str) -> bool {
    kill_all(Mark::This(mark))
}

/// Kills the processes of all backends of a trial.
pub(crate) fn kill_trial(trial: &str) -> bool {
    kill_all(Mark::All(trial))
}

/// Held while a program is started.
static STARTS: Mutex<()> = Mutex::new(());

/// For as long as this is held, [`kill_every`] waits.
pub(crate) fn starting() -> MutexGuard<'static, ()> {
    STARTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills all that checks of this process started, and keeps others from being started: the process is about to end.
pub(crate) fn kill_every() -> bool {
    std::mem::forget(starting());
    kill_all(Mark::All(&format!("{}-", process::id())))
}

fn kill_all(mark: Mark<'_>) -> bool {
    let end = Deadline::after(END);
    // On a machine that is not busy a program is executed in less.
    let clear = Deadline::after(END / 10);
    loop {
        let (found, unclear) = find(mark);
        if found.is_empty() && (!unclear || clear.passed()) {
            return true;
        }
        if end.passed() {
            return false;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
