// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sandbox: a program gives up privileges, files and system calls before it serves a front-end.
//! docs/sandbox.md says what remains, and why.
//!
//! There are two steps. Dropping privileges and files (landlock) binds a thread and those that it makes, so it
//! comes before the first other thread. Dropping system calls (seccomp) binds all threads, so it comes when the
//! device is built.

use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};

mod bpf;
mod file_access;
mod mode;
mod narrowed;
mod policy;
mod syscalls;
#[cfg(test)]
mod tests;

pub use mode::SandboxMode;
pub(crate) use narrowed::NarrowedFiles;
use policy::Action;
pub use policy::{SandboxPolicy, SyscallArgument, SyscallRule};

/// Why the sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("cannot set up the sandbox: {attempt}: {error}; --sandbox=off starts without it")]
    Privileges {
        attempt: &'static str,
        #[source]
        error: Errno,
    },
    #[error("cannot set up the sandbox: landlock: {0}; --sandbox=off starts without it")]
    Files(#[from] landlock::RulesetError),
    #[error("cannot set up the sandbox: seccomp: {0}; --sandbox=off starts without it")]
    Calls(#[from] seccompiler::Error),
}

/// A program's sandbox.
#[derive(Debug)]
pub(crate) struct Sandbox {
    policy: SandboxPolicy,
    /// What happens to a system call that is not on the list.
    unlisted: Action,
    /// The directories of the sockets that the program removes at its end.
    socket_folders: Vec<PathBuf>,
}

impl Sandbox {
    fn new<'a>(
        policy: SandboxPolicy,
        unlisted: Action,
        sockets: impl IntoIterator<Item = &'a Path>,
    ) -> Self {
        let folders = sockets.into_iter().filter_map(Path::parent);
        Self {
            policy,
            unlisted,
            socket_folders: folders.map(Path::to_owned).collect(),
        }
    }

    /// Drops privileges and files, for this thread and those that it makes from now on.
    pub(crate) fn restrict_files(&self) -> Result<(), SandboxError> {
        // rustix reads the auxiliary vector at its first use, by a system call or from /proc, which the
        // sandbox forbids.
        let _ = rustix::param::page_size();
        give_up_privileges()?;
        if !file_access::restrict(&self.policy, &self.socket_folders)? {
            log::warn!(
                "this kernel has no landlock (Linux 5.13, lsm=landlock): only the system call filter \
                 restricts files"
            );
        }
        Ok(())
    }

    /// Drops system calls, for all threads.
    pub(crate) fn restrict_syscalls(&self) -> Result<(), SandboxError> {
        syscalls::restrict(&self.policy, self.unlisted, !self.socket_folders.is_empty())?;
        log::debug!("the sandbox is set up");
        Ok(())
    }
}

/// Forbids other processes of the user to look into this one, and core dumps; drops all capabilities. Landlock
/// and seccomp set `PR_SET_NO_NEW_PRIVS`.
fn give_up_privileges() -> Result<(), SandboxError> {
    let failed = |attempt| move |error| SandboxError::Privileges { attempt, error };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(failed("PR_SET_DUMPABLE"))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // Usually there are none, and no second call is needed.
    if capabilities(None).ok() != Some(none) {
        set_capabilities(None, none).map_err(failed("dropping capabilities"))?;
    }
    Ok(())
}
