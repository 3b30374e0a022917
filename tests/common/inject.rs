// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Makes a thread of a running program execute a chosen system call, by ptrace(2): what a guest could do
//! after it took over the program. Needs x86-64 and root, since a sandboxed program cannot be traced
//! otherwise.

use std::ffi::c_void;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// What became of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It returned this; less than 0 is an errno.
    Returned(i64),
    /// The process was ended for it.
    Ended(Signal),
}

/// An argument of a system call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Word<'a> {
    Number(i64),
    /// The address of these bytes and a NUL, in the program's memory.
    Text(&'a str),
}

/// `syscall`, the instruction.
const SYSCALL: i64 = 0x050f;
/// Below the stack there is a red zone of 128 bytes; texts lie below that.
const RED_ZONE: u64 = 1024;
const TEXT_ROOM: u64 = 256;
/// How long a thread is waited for.
const LIMIT: Duration = Duration::from_secs(60);

/// The threads of a process: their numbers and names.
pub(crate) fn threads(pid: u32) -> anyhow::Result<Vec<(i32, String)>> {
    let folder = format!("/proc/{pid}/task");
    let mut threads = Vec::new();
    for task in fs::read_dir(&folder).context(folder)? {
        let task = task?;
        let number = task.file_name().to_string_lossy().parse()?;
        let name = fs::read_to_string(task.path().join("comm"))?;
        threads.push((number, name.trim().to_owned()));
    }
    threads.sort();
    Ok(threads)
}

/// Has a thread, which waits in a system call, make another one, and go on waiting.
pub(crate) fn inject(thread: i32, number: i64, words: &[Word<'_>]) -> anyhow::Result<Outcome> {
    let pid = Pid::from_raw(thread);
    let saved = stop_in_call(pid)?;
    let mut registers = saved;
    registers.rip -= 2;
    let mut arguments = [0_u64; 6];
    let mut place = saved.rsp - RED_ZONE;
    for (argument, word) in arguments.iter_mut().zip(words) {
        *argument = match *word {
            Word::Number(number) => number as u64,
            Word::Text(text) => {
                place -= TEXT_ROOM;
                write(pid, place, text)?;
                place
            }
        };
    }
    registers.rax = number as u64;
    // No call is to be restarted: this is a new one.
    registers.orig_rax = u64::MAX;
    [
        registers.rdi,
        registers.rsi,
        registers.rdx,
        registers.r10,
        registers.r8,
        registers.r9,
    ] = arguments;
    ptrace::setregs(pid, registers)?;
    ptrace::step(pid, None)?;
    match wait(pid)? {
        WaitStatus::Stopped(_, Signal::SIGTRAP) => {
            let result = ptrace::getregs(pid)?.rax as i64;
            ptrace::setregs(pid, saved)?;
            ptrace::detach(pid, None)?;
            Ok(Outcome::Returned(result))
        }
        // A signal that the call sent to the thread itself.
        WaitStatus::Stopped(_, signal) => {
            ptrace::detach(pid, signal)?;
            Ok(Outcome::Ended(signal))
        }
        WaitStatus::Signaled(_, signal, _) => Ok(Outcome::Ended(signal)),
        other => bail!("after its system call: {other:?}"),
    }
}

/// Stops a thread within a system call: its registers there. One that is at work between two is let go
/// on until it waits again.
fn stop_in_call(pid: Pid) -> anyhow::Result<libc::user_regs_struct> {
    let deadline = Instant::now() + LIMIT;
    loop {
        ptrace::attach(pid).context("cannot trace it")?;
        let stopped = wait(pid)?;
        ensure!(
            matches!(stopped, WaitStatus::Stopped(..)),
            "it does not stop: {stopped:?}"
        );
        let registers = ptrace::getregs(pid)?;
        let before = registers.rip.wrapping_sub(2) as *mut c_void;
        if ptrace::read(pid, before)? & 0xffff == SYSCALL {
            return Ok(registers);
        }
        // Whoever is to end the program would wait for a thread that stays stopped.
        ptrace::detach(pid, None)?;
        ensure!(Instant::now() < deadline, "thread {pid} waits for nothing");
        thread::sleep(Duration::from_millis(1));
    }
}

fn wait(pid: Pid) -> anyhow::Result<WaitStatus> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let flags = WaitPidFlag::__WALL | WaitPidFlag::WNOHANG;
        match waitpid(pid, Some(flags))? {
            WaitStatus::StillAlive if Instant::now() > deadline => {
                bail!("thread {pid} neither stops nor ends")
            }
            WaitStatus::StillAlive => thread::sleep(Duration::from_millis(1)),
            status => return Ok(status),
        }
    }
}

fn write(pid: Pid, place: u64, text: &str) -> anyhow::Result<()> {
    ensure!((text.len() as u64) < TEXT_ROOM, "{text} is too long");
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    for (n, chunk) in bytes.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        let place = (place + 8 * n as u64) as *mut c_void;
        ptrace::write(pid, place, i64::from_ne_bytes(word))?;
    }
    Ok(())
}
