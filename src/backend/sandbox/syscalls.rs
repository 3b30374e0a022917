// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The list of allowed system calls (seccomp). Any other ends the process (SIGSYS), or is logged, except for calls newer than
//! the list, which fail with ENOSYS.
//!
//! The numbers are those of the target architecture. Beside a call are those that a newer C library may use instead.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{BackendError, BpfProgram, Error, apply_filter_all_threads};

use super::bpf::{self, Case};
use super::policy::{Action, SandboxPolicy, SyscallArgument, SyscallRule};

/// The ioctl(2) `request`, whatever it is asked of.
const fn ioctl(request: u32) -> SyscallRule {
    SyscallRule::with(libc::SYS_ioctl, SyscallArgument::is(1, request))
}

const fn fcntl(command: i32) -> SyscallRule {
    SyscallRule::with(libc::SYS_fcntl, SyscallArgument::is(1, command as u32))
}

/// Calls for serving any device.
const SERVING: &[SyscallRule] = &[
    // The sockets of front-end, daemon and display, the guest's kicks and calls, the log, the
    // service manager. No socket is made or connected: those that are needed are there.
    SyscallRule::any(libc::SYS_read),
    SyscallRule::any(libc::SYS_readv),
    SyscallRule::any(libc::SYS_write),
    SyscallRule::any(libc::SYS_writev),
    SyscallRule::any(libc::SYS_recvfrom),
    SyscallRule::any(libc::SYS_recvmsg),
    // Transfers that are counted in memory that outlives the process.
    SyscallRule::any(libc::SYS_recvmmsg),
    SyscallRule::any(libc::SYS_sendmmsg),
    SyscallRule::any(libc::SYS_sendto),
    SyscallRule::any(libc::SYS_sendmsg),
    SyscallRule::any(libc::SYS_accept),
    SyscallRule::any(libc::SYS_accept4),
    SyscallRule::any(libc::SYS_shutdown),
    SyscallRule::any(libc::SYS_getsockname),
    SyscallRule::any(libc::SYS_getpeername),
    SyscallRule::any(libc::SYS_getsockopt),
    SyscallRule::any(libc::SYS_setsockopt),
    SyscallRule::any(libc::SYS_close),
    SyscallRule::any(libc::SYS_dup),
    // Not F_SETOWN and its like, by which others would get signals.
    fcntl(libc::F_DUPFD),
    fcntl(libc::F_DUPFD_CLOEXEC),
    fcntl(libc::F_GETFD),
    fcntl(libc::F_SETFD),
    fcntl(libc::F_GETFL),
    fcntl(libc::F_SETFL),
    fcntl(libc::F_ADD_SEALS),
    fcntl(libc::F_GET_SEALS),
    fcntl(F_DUPFD_QUERY),
    ioctl(libc::FIONBIO as u32),
    ioctl(libc::FIOCLEX as u32),
    // What the front-end has not read yet of a channel that is made for it, and when it has.
    ioctl(libc::TIOCOUTQ as u32),
    SyscallRule::any(libc::SYS_epoll_create1),
    // Whether it is a terminal, which the C library asks before it writes to a stream. None is.
    ioctl(libc::TCGETS as u32).fails(libc::ENOTTY),
    ioctl(libc::TCGETS2 as u32).fails(libc::ENOTTY),
    // A message of the log that is too large for a datagram goes by a memfd.
    SyscallRule::any(libc::SYS_memfd_create),
    // Waiting.
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_poll),
    SyscallRule::any(libc::SYS_ppoll),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_epoll_wait),
    SyscallRule::any(libc::SYS_epoll_pwait),
    SyscallRule::any(libc::SYS_epoll_pwait2),
    SyscallRule::any(libc::SYS_epoll_ctl),
    SyscallRule::any(libc::SYS_eventfd2),
    SyscallRule::any(libc::SYS_timerfd_create),
    SyscallRule::any(libc::SYS_timerfd_settime),
    // Time, where it cannot be read without a call.
    SyscallRule::any(libc::SYS_clock_gettime),
    SyscallRule::any(libc::SYS_clock_getres),
    SyscallRule::any(libc::SYS_gettimeofday),
    SyscallRule::any(libc::SYS_clock_nanosleep),
    SyscallRule::any(libc::SYS_nanosleep),
    // The guest's memory, of which the size is asked, and our own.
    SyscallRule::any(libc::SYS_lseek),
    SyscallRule::any(libc::SYS_fstat),
    SyscallRule::any(libc::SYS_newfstatat),
    SyscallRule::any(libc::SYS_statx),
    SyscallRule::any(libc::SYS_munmap),
    SyscallRule::any(libc::SYS_mremap),
    SyscallRule::any(libc::SYS_madvise),
    SyscallRule::any(libc::SYS_brk),
    SyscallRule::any(libc::SYS_getrandom),
    // How many processors there are decides how memory is shared out to threads.
    SyscallRule::any(libc::SYS_sched_getaffinity),
    // Locks between threads.
    SyscallRule::any(libc::SYS_futex),
    SyscallRule::any(libc::SYS_futex_waitv),
    SyscallRule::any(FUTEX_WAKE),
    SyscallRule::any(FUTEX_WAIT),
    SyscallRule::any(libc::SYS_sched_yield),
    // Signals to oneself, and the end of a thread and of all.
    SyscallRule::any(libc::SYS_rt_sigaction),
    SyscallRule::any(libc::SYS_rt_sigprocmask),
    SyscallRule::any(libc::SYS_rt_sigreturn),
    SyscallRule::any(libc::SYS_sigaltstack),
    SyscallRule::any(libc::SYS_restart_syscall),
    SyscallRule::any(libc::SYS_getpid),
    SyscallRule::any(libc::SYS_gettid),
    SyscallRule::any(libc::SYS_exit),
    SyscallRule::any(libc::SYS_exit_group),
    // A thread that was made just before may still be at its first steps.
    SyscallRule::any(libc::SYS_set_robust_list),
    SyscallRule::any(libc::SYS_rseq),
    SyscallRule::with(
        libc::SYS_prctl,
        SyscallArgument::is(0, libc::PR_SET_NAME as u32),
    ),
    // The C library names its memory for /proc/PID/maps, where it is told to.
    SyscallRule::with(libc::SYS_prctl, SyscallArgument::is(0, PR_SET_VMA)),
];

/// futex_wake(2) and futex_wait(2), Linux 6.7: the same for all processors.
const FUTEX_WAKE: c_long = 454;
const FUTEX_WAIT: c_long = 455;
/// Whether two descriptors are of one file, Linux 6.10.
const F_DUPFD_QUERY: i32 = 1027;
const PR_SET_VMA: u32 = 0x5356_4d41;

/// Mapping memory that is not executable.
const DATA: &[SyscallRule] = &[
    SyscallRule::with(
        libc::SYS_mmap,
        SyscallArgument::lacks(2, libc::PROT_EXEC as u32),
    ),
    SyscallRule::with(
        libc::SYS_mprotect,
        SyscallArgument::lacks(2, libc::PROT_EXEC as u32),
    ),
];

/// Mapping any memory.
const CODE: &[SyscallRule] = &[
    SyscallRule::any(libc::SYS_mmap),
    SyscallRule::any(libc::SYS_mprotect),
];

/// Removing the socket file.
const REMOVING: &[SyscallRule] = &[
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_unlink),
    SyscallRule::any(libc::SYS_unlinkat),
];

/// Looking for files and opening them. Without any file in the policy these fail instead of ending the process:
/// libraries look for files that they can do without, as the backtrace of a panic does.
const OPENING: &[SyscallRule] = &[
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_open),
    SyscallRule::any(libc::SYS_openat),
    SyscallRule::any(libc::SYS_openat2),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_access),
    SyscallRule::any(libc::SYS_faccessat),
    SyscallRule::any(libc::SYS_faccessat2),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_stat),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_lstat),
    #[cfg(target_arch = "x86_64")]
    SyscallRule::any(libc::SYS_readlink),
    SyscallRule::any(libc::SYS_readlinkat),
    SyscallRule::any(libc::SYS_getcwd),
];

/// Making threads, but no processes or namespaces.
const THREADS: &[SyscallRule] = &[
    SyscallRule::with(
        libc::SYS_clone,
        SyscallArgument::masked(0, THREAD | NAMESPACES, THREAD),
    ),
    // Its arguments are in memory, which seccomp cannot check. It fails as on an older kernel, and the C
    // library uses clone(2).
    SyscallRule::any(libc::SYS_clone3).fails(libc::ENOSYS),
    // The shadow stack of a thread (Linux 6.6).
    SyscallRule::any(MAP_SHADOW_STACK),
];
const THREAD: u32 = libc::CLONE_THREAD as u32;
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
const MAP_SHADOW_STACK: c_long = 453;

/// Restricts all threads to the system calls for serving and of `policy`, and if `removes`, for removing a
/// socket file. `unlisted` happens to all others.
pub(super) fn restrict(
    policy: &SandboxPolicy,
    unlisted: Action,
    removes: bool,
) -> Result<(), Error> {
    apply_filter_all_threads(&program(policy, unlisted, removes)?)
}

/// The list as a program for the kernel.
pub(super) fn program(
    policy: &SandboxPolicy,
    unlisted: Action,
    removes: bool,
) -> Result<BpfProgram, BackendError> {
    let mut list = List::default();
    list.add(SERVING.iter().copied());
    list.add(if policy.code { CODE } else { DATA }.iter().copied());
    let closed = !policy.opens_files();
    let opening = |call: &SyscallRule| {
        if closed {
            call.fails(libc::EACCES)
        } else {
            *call
        }
    };
    list.add(OPENING.iter().map(opening));
    list.add(policy.calls.iter().copied());
    // Signals only to this process: abort(3).
    let pid = SyscallArgument::is(0, std::process::id());
    list.add([SyscallRule::with(libc::SYS_tgkill, pid)]);
    if removes {
        list.add(REMOVING.iter().copied());
    }
    if policy.threads {
        list.add(THREADS.iter().copied());
    }
    bpf::compile(&list.0, unlisted)
}

/// System calls by number, each with its cases.
#[derive(Default)]
struct List(BTreeMap<u32, Vec<Case>>);

impl List {
    fn add(&mut self, calls: impl IntoIterator<Item = SyscallRule>) {
        for call in calls {
            // None is less than 0.
            let cases = self.0.entry(call.number as u32).or_default();
            // A case after one that always matches has no effect.
            if cases.last().is_none_or(|(argument, _)| argument.is_some()) {
                cases.push((call.argument, call.action));
            }
        }
    }
}
