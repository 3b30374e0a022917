// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Files, by landlock (Linux's Documentation/userspace-api/landlock.rst).

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::policy::SandboxPolicy;

/// The newest version that this was tested with. An older kernel restricts what it can.
const TRIED: ABI = ABI::V7;

/// Restricts this thread, and those that it makes from now on, to the files in `policy` and to removing files in
/// `socket_folders`. Forbids the network, signals to other processes and their abstract sockets. Returns `false` if
/// the kernel has no landlock.
///
/// Paths that do not exist are ignored.
pub(super) fn restrict(
    policy: &SandboxPolicy,
    socket_folders: &[PathBuf],
) -> Result<bool, RulesetError> {
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::ReadDir;
    // No device nodes, and no links out of the directory.
    let write = AccessFs::from_file(TRIED)
        | AccessFs::ReadDir
        | AccessFs::MakeReg
        | AccessFs::MakeDir
        | AccessFs::RemoveFile
        | AccessFs::RemoveDir
        | AccessFs::Refer;
    let write = write & !(AccessFs::Execute | AccessFs::IoctlDev);
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(AccessNet::from_all(TRIED))?
        .scope(Scope::from_all(TRIED))?
        .create()?
        .add_rules(path_beneath_rules(&policy.read, AccessFs::from_read(TRIED)))?
        .add_rules(path_beneath_rules(&policy.list, AccessFs::ReadDir))?
        .add_rules(path_beneath_rules(&policy.write, write))?
        .add_rules(path_beneath_rules(&policy.devices, device))?
        .add_rules(path_beneath_rules(socket_folders, AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
