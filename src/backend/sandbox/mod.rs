//! What a program gives up before it serves a front-end, whoever started it: privileges, files and
//! system calls. docs/sandbox.md says what remains, and why.
//!
//! It closes in two steps, because of what each binds. Privileges and files (Linux's landlock) are
//! given up by a thread for itself and those that it makes, so that comes before the first other
//! thread; system calls (seccomp) by all threads at once, after the device has begun.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

mod bpf;
mod file_access;
mod policy;
mod syscalls;
#[cfg(test)]
mod tests;

pub use policy::{Argument, SandboxPolicy, SyscallRule};

/// Why a program cannot give up what it has.
#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error("the sandbox cannot be closed: {attempt}: {error}; --sandbox=off starts without it")]
    Privileges {
        attempt: &'static str,
        #[source]
        error: Errno,
    },
    #[error("the sandbox cannot be closed: landlock: {0}; --sandbox=off starts without it")]
    Files(#[from] landlock::RulesetError),
    #[error("the sandbox cannot be closed: seccomp: {0}; --sandbox=off starts without it")]
    Calls(#[from] seccompiler::Error),
}

/// A program's sandbox, closed by and by.
#[derive(Debug)]
pub(super) struct Sandbox {
    policy: SandboxPolicy,
    /// The folder of a socket that is to be removed at the end.
    socket_folder: Option<PathBuf>,
}

impl Sandbox {
    /// One that leaves what `policy` allows, and the right to remove the socket file `socket`.
    pub(super) fn new(policy: SandboxPolicy, socket: Option<&Path>) -> Self {
        Self {
            policy,
            socket_folder: socket.and_then(Path::parent).map(Path::to_owned),
        }
    }

    /// Gives up privileges and files, for this thread and those that it makes from now on.
    pub(super) fn restrict_files(&self) -> Result<(), SandboxError> {
        // rustix looks up what the kernel told the process once, when it is asked first, by a system
        // call or in /proc, neither of which is there later.
        let _ = rustix::param::page_size();
        give_up_privileges()?;
        if !file_access::restrict(&self.policy, self.socket_folder.as_deref())? {
            log::warn!(
                "this kernel has no landlock (Linux 5.13, lsm=landlock): files are closed by the \
                 system call filter alone"
            );
        }
        Ok(())
    }

    /// Gives up system calls, for all threads.
    pub(super) fn restrict_syscalls(&self) -> Result<(), SandboxError> {
        syscalls::restrict(&self.policy, self.socket_folder.is_some())?;
        log::debug!("the sandbox is closed");
        Ok(())
    }
}

/// No process of the same user looks into this one, nor does a core dump, and no capability is left.
/// That none comes back (`PR_SET_NO_NEW_PRIVS`) is a part of the other steps.
fn give_up_privileges() -> Result<(), SandboxError> {
    let failed = |attempt| move |error| SandboxError::Privileges { attempt, error };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("closing /proc"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // One call in place of two, where there are none already: the usual case.
    if capabilities(None).ok() != Some(none) {
        set_capabilities(None, none).map_err(failed("dropping capabilities"))?;
    }
    Ok(())
}
