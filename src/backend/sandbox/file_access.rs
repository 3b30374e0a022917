//! Files, by landlock (Linux's Documentation/userspace-api/landlock.rst).

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
    RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

use super::policy::SandboxPolicy;

/// The newest version that this was tried with. An older kernel takes what it knows; what a newer
/// one could forbid as well is left to be tried first.
const TRIED: ABI = ABI::V7;

/// Leaves this thread, and those that it makes from now on, the files in `policy` and the right to
/// remove files in `socket_folder`. No network, no signal to others, no abstract socket of others
/// either. `false` where the kernel has no landlock.
///
/// A path that is not there is left out: there is nothing to allow.
pub(super) fn restrict(
    policy: &SandboxPolicy,
    socket_folder: Option<&Path>,
) -> Result<bool, RulesetError> {
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev | AccessFs::ReadDir;
    // Neither device nodes nor links out of the folder.
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
        .add_rules(path_beneath_rules(socket_folder, AccessFs::RemoveFile))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}
