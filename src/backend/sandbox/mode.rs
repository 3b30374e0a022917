// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The values of `--sandbox`.

use std::path::Path;

use clap::ValueEnum;

use super::Sandbox;
use super::policy::{Action, SandboxPolicy};

/// Whether a program has a sandbox, and what happens to a system call that is not on its list: the value of `--sandbox`.
#[derive(ValueEnum, Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// It has one. The call ends the program (SIGSYS).
    #[default]
    On,
    /// It has one. The call is done, and the kernel logs it (seccomp(2), `SECCOMP_RET_LOG`). What the sandbox refuses by
    /// an error it refuses still.
    Log,
    /// It has none.
    Off,
}

impl SandboxMode {
    /// The sandbox that allows what `policy` says, and to remove the files `sockets`. `None` if there is to be none.
    pub(crate) fn sandbox<'a>(
        self,
        policy: SandboxPolicy,
        sockets: impl IntoIterator<Item = &'a Path>,
    ) -> Option<Sandbox> {
        let unlisted = match self {
            Self::On => Action::KillProcess,
            Self::Log => Action::Log,
            Self::Off => return None,
        };
        Some(Sandbox::new(policy, unlisted, sockets))
    }

    /// Warns if `outsider`, such as "a guest", is less confined than it should be.
    pub(crate) fn warn(self, outsider: &str) {
        match self {
            Self::On => {}
            Self::Log => log::warn!(
                "--sandbox=log: {outsider} that breaks into this process may make system calls that --sandbox=on would \
                 end it for; the kernel logs them"
            ),
            Self::Off => log::warn!(
                "--sandbox=off: {outsider} that breaks into this process has all rights of its user"
            ),
        }
    }

    /// Whether there is a sandbox.
    pub(crate) fn is_closed(self) -> bool {
        self != Self::Off
    }
}
