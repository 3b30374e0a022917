// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files that a process gives up some time after it entered its sandbox.

use std::io;
use std::path::PathBuf;

use super::file_access;
use super::policy::{SandboxPolicy, SyscallArgument, SyscallRule};

/// What is left to a process once it says so. Landlock's rules are about files that exist: of a folder that does not exist
/// yet, the nearest one above it has to be allowed first.
#[derive(Clone, Debug)]
pub(crate) struct NarrowedFiles(SandboxPolicy);

impl NarrowedFiles {
    /// All devices but those in `folder` are to be given up. What `policy` reads stays; it is extended by the system
    /// calls for this.
    pub(crate) fn new(policy: &mut SandboxPolicy, folder: PathBuf) -> Self {
        let no_new_privileges = SyscallArgument::is(0, libc::PR_SET_NO_NEW_PRIVS as u32);
        policy.calls.extend([
            SyscallRule::any(libc::SYS_landlock_create_ruleset),
            SyscallRule::any(libc::SYS_landlock_add_rule),
            SyscallRule::any(libc::SYS_landlock_restrict_self),
            SyscallRule::with(libc::SYS_prctl, no_new_privileges),
        ]);
        Self(SandboxPolicy {
            devices: vec![folder],
            read: policy.read.clone(),
            ..SandboxPolicy::default()
        })
    }

    /// Gives up the others, for this thread and those that it makes from now on. A kernel without landlock ignores it.
    ///
    /// # Errors
    /// Those of landlock.
    pub(crate) fn enter(self) -> io::Result<()> {
        let restricted = file_access::restrict(&self.0, &[]);
        restricted.map(drop).map_err(io::Error::other)
    }
}
