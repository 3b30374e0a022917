// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Stops a program at each of its system calls, by ptrace(2), and kills it at a chosen one.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

/// How long the program may take to reach something that it always reaches.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a process that runs is looked at from outside.
const LOOK: Duration = Duration::from_millis(10);
/// The instruction that makes a system call on x86-64.
const SYSCALL: i64 = 0x050f;

/// System calls by name. Others are told by their number.
const NAMES: [(i64, &str); 40] = [
    (libc::SYS_read, "read"),
    (libc::SYS_write, "write"),
    (libc::SYS_close, "close"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_mmap, "mmap"),
    (libc::SYS_munmap, "munmap"),
    (libc::SYS_mprotect, "mprotect"),
    (libc::SYS_madvise, "madvise"),
    (libc::SYS_brk, "brk"),
    (libc::SYS_ioctl, "ioctl"),
    (libc::SYS_fcntl, "fcntl"),
    (libc::SYS_dup, "dup"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendmmsg, "sendmmsg"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_recvmmsg, "recvmmsg"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_socketpair, "socketpair"),
    (libc::SYS_shutdown, "shutdown"),
    (libc::SYS_getsockopt, "getsockopt"),
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_eventfd2, "eventfd2"),
    (libc::SYS_memfd_create, "memfd_create"),
    (libc::SYS_ftruncate, "ftruncate"),
    (libc::SYS_fallocate, "fallocate"),
    (libc::SYS_fstat, "fstat"),
    (libc::SYS_lseek, "lseek"),
    (libc::SYS_futex, "futex"),
    (libc::SYS_clone3, "clone3"),
    (libc::SYS_prctl, "prctl"),
    (libc::SYS_seccomp, "seccomp"),
    (libc::SYS_timerfd_settime, "timerfd_settime"),
    (libc::SYS_getrandom, "getrandom"),
    (libc::SYS_openat, "openat"),
    (libc::SYS_exit_group, "exit_group"),
];

/// Where in a system call, or after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Moment {
    /// It is not done.
    Entry,
    /// It is done, and the program has not seen its result.
    Exit,
    /// It is done, and the thread has gone on for so many instructions.
    After(u32),
}

/// A moment in the life of a process that other processes of the same program have too: by the thread's name, the
/// system call and the how manieth of them in this thread.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) thread: String,
    pub(super) call: i64,
    pub(super) occurrence: u32,
    pub(super) moment: Moment,
}

impl Point {
    /// The same call, at another moment.
    pub(super) fn at(&self, moment: Moment) -> Self {
        Self {
            moment,
            ..self.clone()
        }
    }

    pub(super) fn call_name(&self) -> String {
        let known = NAMES.iter().find(|(number, _)| *number == self.call);
        known.map_or_else(|| self.call.to_string(), |(_, name)| (*name).to_owned())
    }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (thread, call, occurrence) = (&self.thread, self.call_name(), self.occurrence);
        write!(f, "{thread}/{call}/{occurrence}/")?;
        match self.moment {
            Moment::Entry => f.write_str("entry"),
            Moment::Exit => f.write_str("exit"),
            Moment::After(steps) => write!(f, "{steps}"),
        }
    }
}

impl std::str::FromStr for Point {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut parts = text.split('/');
        let mut part = || parts.next().with_context(|| format!("{text}: too short"));
        let (thread, call, occurrence, moment) = (part()?, part()?, part()?, part()?);
        let known = NAMES.iter().find(|(_, name)| *name == call);
        Ok(Self {
            thread: thread.to_owned(),
            call: known.map_or_else(|| call.parse(), |(number, _)| Ok(*number))?,
            occurrence: occurrence.parse()?,
            moment: match moment {
                "entry" => Moment::Entry,
                "exit" => Moment::Exit,
                steps => Moment::After(steps.parse()?),
            },
        })
    }
}

/// A thread that is stopped.
pub(super) struct Stop {
    /// Where; the moment is `Entry` or `Exit`.
    pub(super) point: Point,
    /// What the call returned.
    pub(super) result: Option<i64>,
    /// How many stops there were of all threads before.
    pub(super) number: usize,
}

/// What is to become of a process at a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Kill,
    /// Killed after so many instructions of the thread.
    KillAfter(u32),
}

/// How a traced process ended. It is not waited for yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As the judge said.
    Killed,
    /// Killed too, but for another reason.
    GivenUp,
    ByItself,
}

#[derive(Default)]
struct Thread {
    name: String,
    /// The call that it is in.
    within: Option<i64>,
    counts: HashMap<i64, u32>,
}

/// A process that is traced with all its threads by the thread that made this.
pub(super) struct Tracer {
    process: Pid,
    threads: HashMap<Pid, Thread>,
    /// Whether it has become the program.
    executed: bool,
    stops: usize,
}

impl Tracer {
    /// Traces a process that has stopped itself, and lets it go on.
    pub(super) fn attach(process: u32) -> anyhow::Result<Self> {
        let process = Pid::from_raw(process as i32);
        let deadline = Instant::now() + LIMIT;
        let stat = format!("/proc/{process}/stat");
        while !fs::read_to_string(&stat)?.contains(") T ") {
            ensure!(Instant::now() < deadline, "{process} does not stop itself");
            std::thread::sleep(Duration::from_micros(200));
        }
        let options = ptrace::Options::PTRACE_O_TRACESYSGOOD
            | ptrace::Options::PTRACE_O_TRACECLONE
            | ptrace::Options::PTRACE_O_TRACEEXEC
            | ptrace::Options::PTRACE_O_EXITKILL;
        ptrace::seize(process, options).context("cannot trace it")?;
        kill(process, Signal::SIGCONT)?;
        Ok(Self {
            process,
            threads: HashMap::new(),
            executed: false,
            stops: 0,
        })
    }

    /// Lets the process run and asks `judge` at each stop, until it has ended. `given_up`, which is asked now and then, says
    /// when to kill it all the same.
    pub(super) fn follow(
        &mut self,
        judge: impl FnMut(&Stop) -> Verdict,
        mut given_up: impl FnMut() -> bool + Send,
    ) -> anyhow::Result<End> {
        let process = self.process;
        let (is_over, is_given_up) = (AtomicBool::new(false), AtomicBool::new(false));
        let end = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    if given_up() {
                        is_given_up.store(true, Ordering::Release);
                        // It is not waited for before this thread has ended.
                        return kill(process, Signal::SIGKILL);
                    }
                    std::thread::park_timeout(LOOK);
                }
                Ok(())
            });
            let end = self.follow_to_end(judge);
            is_over.store(true, Ordering::Release);
            watch.thread().unpark();
            end
        })?;
        Ok(match end {
            End::ByItself if is_given_up.load(Ordering::Acquire) => End::GivenUp,
            end => end,
        })
    }

    fn follow_to_end(&mut self, mut judge: impl FnMut(&Stop) -> Verdict) -> anyhow::Result<End> {
        loop {
            let (thread, has_ended) = self.next_event()?;
            if thread == self.process && has_ended {
                return Ok(End::ByItself);
            }
            if has_ended {
                waitpid(thread, Some(WaitPidFlag::__WALL))?;
                self.threads.remove(&thread);
                continue;
            }
            let verdict = match take_stop(thread)? {
                WaitStatus::PtraceSyscall(_) => self.syscall_stop(thread, &mut judge)?,
                WaitStatus::PtraceEvent(_, signal, 0) | WaitStatus::Stopped(_, signal) => {
                    resume(thread, Some(signal))?;
                    Verdict::GoOn
                }
                WaitStatus::PtraceEvent(_, _, event) => {
                    if event == libc::PTRACE_EVENT_EXEC {
                        // Its exit from execve(2) comes next.
                        self.executed = true;
                        let within = Some(libc::SYS_execve);
                        self.threads.entry(thread).or_default().within = within;
                    }
                    resume(thread, None)?;
                    Verdict::GoOn
                }
                // It was killed meanwhile.
                WaitStatus::StillAlive => Verdict::GoOn,
                other => bail!("thread {thread}: {other:?}"),
            };
            match verdict {
                Verdict::GoOn => {}
                Verdict::Kill => {
                    self.kill()?;
                    return Ok(End::Killed);
                }
                Verdict::KillAfter(steps) => {
                    step(thread, steps)?;
                    self.kill()?;
                    return Ok(End::Killed);
                }
            }
        }
    }

    /// Waits until a thread of the process has news. Gives it and whether it has ended. The news stay there.
    ///
    /// It sleeps: a tracer that looked again and again would have the processor, on a busy machine, instead of the process.
    fn next_event(&self) -> anyhow::Result<(Pid, bool)> {
        let status = wait_for_news(None)?;
        let thread = status.pid().context("no thread has news")?;
        Ok((thread, has_ended(status)))
    }

    fn syscall_stop(
        &mut self,
        tid: Pid,
        judge: &mut impl FnMut(&Stop) -> Verdict,
    ) -> anyhow::Result<Verdict> {
        let (call, result) = match call_info(tid)? {
            Some(info) => info,
            // It was killed meanwhile.
            None => return Ok(Verdict::GoOn),
        };
        let thread = self.threads.entry(tid).or_default();
        if !self.executed {
            resume(tid, None)?;
            return Ok(Verdict::GoOn);
        }
        let (call, moment) = match (call, thread.within.take()) {
            (Some(call), _) => {
                thread.within = Some(call);
                (call, Moment::Entry)
            }
            (None, Some(call)) => (call, Moment::Exit),
            // The first stop of a new thread.
            (None, None) => {
                resume(tid, None)?;
                return Ok(Verdict::GoOn);
            }
        };
        if thread.name.is_empty() || (call == libc::SYS_prctl && moment == Moment::Exit) {
            let comm = format!("/proc/{}/task/{tid}/comm", self.process);
            let comm = fs::read_to_string(comm).unwrap_or_default();
            thread.name = comm.trim().replace('/', "_");
        }
        let count = thread.counts.entry(call).or_default();
        if moment == Moment::Entry {
            *count += 1;
        }
        let point = Point {
            thread: thread.name.clone(),
            call,
            occurrence: *count,
            moment,
        };
        let number = self.stops;
        self.stops += 1;
        let verdict = judge(&Stop {
            point,
            result,
            number,
        });
        if verdict == Verdict::GoOn {
            resume(tid, None)?;
        }
        Ok(verdict)
    }

    /// Kills the process and waits until all its threads but the first are gone. That one is for its owner.
    fn kill(&mut self) -> anyhow::Result<()> {
        kill(self.process, Signal::SIGKILL)?;
        loop {
            match self.next_event()? {
                (thread, true) if thread == self.process => return Ok(()),
                (thread, true) => drop(waitpid(thread, Some(WaitPidFlag::__WALL))?),
                (thread, false) => drop(take_stop(thread)?),
            }
        }
    }
}

/// Waits for a stop or the end of this thread, or of any, which stays to be taken.
fn wait_for_news(thread: Option<Pid>) -> anyhow::Result<WaitStatus> {
    let flags = WaitPidFlag::WEXITED
        | WaitPidFlag::WSTOPPED
        | WaitPidFlag::WNOWAIT
        | WaitPidFlag::__WALL
        | WaitPidFlag::__WNOTHREAD;
    loop {
        match waitid(thread.map_or(Id::All, Id::Pid), flags) {
            Err(Errno::EINTR) => {}
            status => return status.context("waitid"),
        }
    }
}

fn has_ended(status: WaitStatus) -> bool {
    matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
}

/// Takes the stop of a thread that has stopped: `StillAlive` if it was killed meanwhile. Its end stays.
fn take_stop(thread: Pid) -> anyhow::Result<WaitStatus> {
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    match waitid(Id::Pid(thread), flags) {
        Err(Errno::ECHILD) => Ok(WaitStatus::StillAlive),
        status => status.context("waitid"),
    }
}

/// The call that a stopped thread enters, or what the one that it leaves returned.
fn call_info(tid: Pid) -> anyhow::Result<Option<(Option<i64>, Option<i64>)>> {
    let mut info = MaybeUninit::<libc::ptrace_syscall_info>::zeroed();
    let size = size_of_val(&info);
    let request = libc::PTRACE_GET_SYSCALL_INFO;
    // SAFETY: the kernel writes no more than `size` bytes to `info`, which lives for the call.
    let result = unsafe { libc::ptrace(request as _, tid.as_raw(), size, info.as_mut_ptr()) };
    if result < 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::ESRCH) {
            return Ok(None);
        }
        return Err(error).context("PTRACE_GET_SYSCALL_INFO");
    }
    // SAFETY: it was zeroed, and each bit pattern is valid.
    let info = unsafe { info.assume_init() };
    Ok(Some(match info.op {
        // SAFETY: `op` says that this part of the union is there.
        libc::PTRACE_SYSCALL_INFO_ENTRY => (Some(unsafe { info.u.entry.nr } as i64), None),
        // SAFETY: as above.
        libc::PTRACE_SYSCALL_INFO_EXIT => (None, Some(unsafe { info.u.exit.sval })),
        _ => (None, None),
    }))
}

/// Lets a thread go on to its next stop. One that was killed meanwhile is no error.
fn resume(tid: Pid, signal: Option<Signal>) -> anyhow::Result<()> {
    // That it stopped is all that such a signal says.
    let signal = signal.filter(|signal| *signal != Signal::SIGTRAP);
    match ptrace::syscall(tid, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(e) => Err(e).context("PTRACE_SYSCALL"),
    }
}

/// Has a thread execute `steps` instructions, or those before its next system call: what comes behind that has points of its
/// own.
fn step(tid: Pid, steps: u32) -> anyhow::Result<()> {
    for _ in 0..steps {
        if is_before_call(tid) || ptrace::step(tid, None).is_err() {
            return Ok(());
        }
        if has_ended(wait_for_news(Some(tid))?) {
            return Ok(());
        }
        take_stop(tid)?;
    }
    Ok(())
}

/// Whether a stopped thread makes a system call with its next instruction.
fn is_before_call(tid: Pid) -> bool {
    let next = ptrace::getregs(tid).and_then(|registers| ptrace::read(tid, registers.rip as _));
    next.is_ok_and(|word| word & 0xffff == SYSCALL)
}
