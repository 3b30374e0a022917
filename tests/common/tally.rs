// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Counts the system calls of a thread of a running program, by ptrace(2), and the bytes that they send. Needs x86-64
//! and root, as [`super::inject`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long the thread may be at work before it waits for events.
const LIMIT: Duration = Duration::from_secs(60);
/// How long it must have waited for events to be at rest.
const REST: Duration = Duration::from_millis(3);

/// System calls by which a device does its work. Others depend on the allocator and on Mesa's threads; how often a
/// driver is notified, by write(2), depends on when it looks.
const COUNTED: [(i64, &str); 13] = [
    (libc::SYS_epoll_wait, "epoll_wait"),
    (libc::SYS_epoll_pwait, "epoll_pwait"),
    (libc::SYS_epoll_ctl, "epoll_ctl"),
    (libc::SYS_read, "read"),
    (libc::SYS_sendmsg, "sendmsg"),
    (libc::SYS_sendto, "sendto"),
    (libc::SYS_recvmsg, "recvmsg"),
    (libc::SYS_recvfrom, "recvfrom"),
    (libc::SYS_accept4, "accept4"),
    (libc::SYS_poll, "poll"),
    (libc::SYS_ppoll, "ppoll"),
    (libc::SYS_timerfd_settime, "timerfd_settime"),
    (libc::SYS_ioctl, "ioctl"),
];

/// What a thread did.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How often it made each system call.
    pub(crate) calls: BTreeMap<&'static str, u32>,
    /// Bytes that it sent.
    pub(crate) sent: u64,
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: u32 = self.calls.values().sum();
        write!(f, "{total} {:?}, {} bytes", self.calls, self.sent)
    }
}

enum Ask {
    /// Begin anew, once the thread is at rest.
    Begin,
    /// Say what it did, once it is at rest.
    Report,
}

/// A thread whose system calls are counted, until this is dropped.
pub(crate) struct Counted {
    asks: Option<Sender<Ask>>,
    tallies: Receiver<Tally>,
    tracer: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Counted {
    /// Counts the system calls of the thread with that number, which waits for events.
    pub(crate) fn new(thread: i32) -> Self {
        let (asks, asked) = channel();
        let (tells, tallies) = channel();
        // Only the thread that traces another one may wait for it.
        let tracer = thread::spawn(move || trace(Pid::from_raw(thread), &asked, &tells));
        Self {
            asks: Some(asks),
            tallies,
            tracer: Some(tracer),
        }
    }

    /// Begins anew once the thread is at rest.
    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        self.ask(Ask::Begin).map(drop)
    }

    /// What the thread has done, once it is at rest.
    pub(crate) fn report(&mut self) -> anyhow::Result<Tally> {
        self.ask(Ask::Report)
    }

    fn ask(&mut self, ask: Ask) -> anyhow::Result<Tally> {
        let asks = self.asks.as_ref().context("no tracer")?;
        // A tracer that has ended closed both channels, and says why.
        let _ = asks.send(ask);
        if let Ok(tally) = self.tallies.recv() {
            return Ok(tally);
        }
        let ended = self.tracer.take().context("the tracer has failed before")?;
        match ended.join() {
            Ok(Err(error)) => Err(error),
            other => bail!("the tracer has ended: {other:?}"),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(tracer) = self.tracer.take() {
            // Its error has nobody to be told to but who waits for a tally.
            let _ = tracer.join();
        }
    }
}

fn trace(pid: Pid, asked: &Receiver<Ask>, tells: &Sender<Tally>) -> anyhow::Result<()> {
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).context("cannot trace it")?;
    ptrace::interrupt(pid)?;
    let mut tally = Tally::default();
    // The call that the thread is in.
    let mut within: Option<i64> = None;
    let mut since = Instant::now();
    let mut ask = None;
    let mut asked_at = Instant::now();
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => thread::sleep(Duration::from_micros(50)),
            WaitStatus::PtraceSyscall(_) => {
                since = Instant::now();
                let registers = ptrace::getregs(pid)?;
                within = match within {
                    None => Some(registers.orig_rax as i64),
                    Some(call) => {
                        tally.add(call, registers.rax as i64);
                        None
                    }
                };
                ptrace::syscall(pid, None)?;
            }
            // The interruption: the call that it waited in is begun anew.
            WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                within = None;
                ptrace::syscall(pid, None)?;
            }
            WaitStatus::Stopped(_, signal) => ptrace::syscall(pid, signal)?,
            other => bail!("the thread has ended: {other:?}"),
        }
        let waits = matches!(within, Some(libc::SYS_epoll_wait | libc::SYS_epoll_pwait));
        let is_at_rest = waits && since.elapsed() > REST;
        if ask.is_none() {
            ask = match asked.try_recv() {
                Ok(ask) => Some(ask),
                Err(TryRecvError::Empty) => None,
                Err(TryRecvError::Disconnected) => break,
            };
            asked_at = Instant::now();
        }
        ensure!(
            ask.is_none() || asked_at.elapsed() < LIMIT,
            "the thread is never at rest"
        );
        let Some(what) = ask.take_if(|_| is_at_rest) else {
            continue;
        };
        if matches!(what, Ask::Begin) {
            tally = Tally::default();
        }
        if tells.send(tally.clone()).is_err() {
            break;
        }
    }
    let_go(pid)
}

/// Stops the thread, as it must be to be let go.
fn let_go(pid: Pid) -> anyhow::Result<()> {
    ptrace::interrupt(pid)?;
    let deadline = Instant::now() + LIMIT;
    loop {
        match waitpid(pid, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG))? {
            WaitStatus::StillAlive => thread::sleep(Duration::from_micros(50)),
            WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::Stopped(_, Signal::SIGTRAP) => break,
            other => bail!("the thread does not stop: {other:?}"),
        }
        ensure!(Instant::now() < deadline, "the thread does not stop");
    }
    ptrace::detach(pid, None)?;
    Ok(())
}

impl Tally {
    fn add(&mut self, call: i64, result: i64) {
        let Some((_, name)) = COUNTED.iter().find(|(number, _)| *number == call) else {
            return;
        };
        *self.calls.entry(name).or_default() += 1;
        if [libc::SYS_sendmsg, libc::SYS_sendto].contains(&call) {
            self.sent += u64::try_from(result).unwrap_or(0);
        }
    }
}
