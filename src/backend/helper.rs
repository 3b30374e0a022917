// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A process beside the program, which keeps a power that the program itself gives up in its sandbox, such as to open
//! one device again.
//!
//! It is forked before the program makes threads, has none of the program's descriptors but one end of a socket pair,
//! and enters a sandbox of its own. It never sees a byte of the guest, the front-end or a client. It ends with the program.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::panic::{self, AssertUnwindSafe};

use log::LevelFilter;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, set_parent_process_death_signal, waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::sandbox::{Sandbox, SandboxError, SandboxMode, SandboxPolicy};

/// Why there is no helper.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// The host has no descriptors, processes or memory left.
    #[error("cannot start the process that {purpose}: {error}")]
    Start {
        /// What it is for, as the end of a sentence.
        purpose: &'static str,
        /// The error.
        #[source]
        error: io::Error,
    },
    /// It ended, with this message if it had one.
    #[error("the process that {purpose} ended at once: {reason}")]
    Ended {
        /// What it is for, as the end of a sentence.
        purpose: &'static str,
        /// What it said.
        reason: String,
    },
}

/// The only descriptor of a helper beside the standard ones.
const SOCKET: RawFd = 3;
/// The first byte of a helper's first message: it is in its sandbox. Otherwise the message says why not.
const READY: &[u8] = &[0];
/// Longest message about a start that failed.
const MAX_REASON: usize = 512;

/// Starts a helper that calls `prepare`, and then `work` with its end of a socket pair of whole messages
/// (`SOCK_SEQPACKET`); it ends when `work` returns. Returns the other end, non-blocking, once `prepare` has returned. Its
/// end of file says that the helper has ended, and the helper's that the program has.
///
/// `mode` says whether the helper has a sandbox, and `policy` what it may do in it beside serving sockets. `name` (at most 15 bytes) is its
/// name in ps(1), `purpose` completes "the process that ...".
///
/// Only for [`Program::open`](crate::backend::Program::open), where the program has one thread.
///
/// # Errors
/// If the helper does not get into its sandbox, or `prepare` fails.
pub fn start_helper<T>(
    name: &CStr,
    purpose: &'static str,
    mode: SandboxMode,
    policy: SandboxPolicy,
    prepare: impl FnOnce() -> io::Result<T>,
    work: impl FnOnce(T, OwnedFd),
) -> Result<OwnedFd, HelperError> {
    let failed = |error: Errno| HelperError::Start {
        purpose,
        error: error.into(),
    };
    let (ours, theirs) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(failed)?;
    let program = getpid();
    // SAFETY: the program has one thread, so no lock is held that the child would wait for; and the child never
    // returns from here.
    match unsafe { libc::fork() } {
        0 => {
            let prepare = || {
                begin(name, program, mode.sandbox(policy, []))?;
                Ok(prepare()?)
            };
            run(theirs, prepare, work)
        }
        -1 => {
            let error = io::Error::last_os_error();
            return Err(HelperError::Start { purpose, error });
        }
        child => {
            drop(theirs);
            wait_until_ready(&ours, Pid::from_raw(child), purpose)?;
        }
    }
    rustix::io::ioctl_fionbio(&ours, true).map_err(failed)?;
    Ok(ours)
}

fn wait_until_ready(
    helper: &OwnedFd,
    child: Option<Pid>,
    purpose: &'static str,
) -> Result<(), HelperError> {
    let mut message = [MaybeUninit::uninit(); MAX_REASON];
    let received = loop {
        match rustix::net::recv(helper, &mut message, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            other => break other,
        }
    };
    let reason = match received {
        Ok(((message, _), _)) if message == READY => return Ok(()),
        Ok((([], _), _)) => match waitpid(child, WaitOptions::empty()) {
            Ok(Some((_, status))) => match (status.terminating_signal(), status.exit_status()) {
                (Some(signal), _) => format!("killed by signal {signal}"),
                (None, Some(status)) => format!("exit status {status}"),
                (None, None) => "for an unknown reason".to_owned(),
            },
            _ => "for an unknown reason".to_owned(),
        },
        Ok(((message, _), _)) => String::from_utf8_lossy(message).into_owned(),
        Err(error) => io::Error::from(error).to_string(),
    };
    Err(HelperError::Ended { purpose, reason })
}

/// The helper, from its first step to its last.
fn run<T>(
    socket: OwnedFd,
    prepare: impl FnOnce() -> Result<T, BeginError>,
    work: impl FnOnce(T, OwnedFd),
) -> ! {
    // Nothing may be logged: the log's descriptor is another one soon.
    log::set_max_level(LevelFilter::Off);
    panic::set_hook(Box::new(|_| {}));
    let ended = panic::catch_unwind(AssertUnwindSafe(|| {
        let kept = match keep_only(&socket) {
            Ok(kept) => kept,
            Err(error) => {
                let _ = say(&socket, Err(&error.into()));
                return;
            }
        };
        // It owned a number that is another file's now, or no file's.
        std::mem::forget(socket);
        let prepared = prepare();
        let said = say(&kept, prepared.as_ref().map(drop));
        if let (Ok(prepared), Ok(())) = (prepared, said) {
            work(prepared, kept);
        }
    }));
    // SAFETY: ends the process without running what the program registered for its own end.
    unsafe { libc::_exit(i32::from(ended.is_err())) }
}

/// The first message: whether the helper is ready.
fn say(socket: &OwnedFd, begun: Result<(), &BeginError>) -> Result<(), Errno> {
    let first = match begun {
        Ok(()) => READY.to_vec(),
        Err(error) => error.to_string().into_bytes(),
    };
    let first = first.get(..MAX_REASON).unwrap_or(&first);
    rustix::net::send(socket, first, SendFlags::NOSIGNAL).map(drop)
}

/// Leaves the program's signals and powers behind.
fn begin(name: &CStr, program: Pid, sandbox: Option<Sandbox>) -> Result<(), BeginError> {
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // Sent to the whole service, or terminal: the program gives up the device, and its end ends this process.
        // SAFETY: the program's own handler is replaced, in this process only.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(program) {
        return Err(Errno::SRCH.into());
    }
    rustix::thread::set_name(name)?;
    if let Some(sandbox) = sandbox {
        sandbox.restrict_files()?;
        sandbox.restrict_syscalls()?;
    }
    Ok(())
}

#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error(transparent)]
    System(#[from] Errno),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Prepare(#[from] io::Error),
}

/// Moves `socket` to [`SOCKET`], and closes every other descriptor but the standard ones, which become /dev/null.
///
/// If that fails, `socket` is as it was; otherwise its number is no longer its own.
fn keep_only(socket: &OwnedFd) -> Result<OwnedFd, Errno> {
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDWR,
        rustix::fs::Mode::empty(),
    )?;
    dup2_stdin(null.as_fd())?;
    dup2_stdout(null.as_fd())?;
    dup2_stderr(null.as_fd())?;
    // SAFETY: these calls only change this process's table of descriptors. The program's objects that own one of them
    // are neither used nor dropped in this process; `null` is forgotten below, and `socket` by the caller.
    let kept = unsafe {
        libc::dup2(socket.as_raw_fd(), SOCKET) == SOCKET
            && libc::syscall(libc::SYS_close_range, SOCKET + 1, u32::MAX, 0) == 0
    };
    let error = Errno::from_io_error(&io::Error::last_os_error());
    std::mem::forget(null);
    if !kept {
        return Err(error.unwrap_or(Errno::IO));
    }
    // SAFETY: the descriptor was made just now, and nothing owns it: whatever had the number in the program is neither
    // used nor dropped here.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET) })
}

#[cfg(test)]
mod tests;
