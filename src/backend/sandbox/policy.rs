// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a device may use of the system.

use std::path::PathBuf;

use libc::c_long;

/// What the sandbox allows from [`DeviceBuilder::build`](crate::backend::DeviceBuilder::build) on, in addition
/// to serving a front-end. Paths that do not exist are ignored. The default allows nothing more.
#[derive(Clone, Debug, Default)]
pub struct SandboxPolicy {
    /// Files and directories to read, and to map as code.
    pub read: Vec<PathBuf>,
    /// Directories to list without opening their files.
    pub list: Vec<PathBuf>,
    /// Directories to make, write and remove files in.
    pub write: Vec<PathBuf>,
    /// Device nodes to open, or directories of them.
    pub devices: Vec<PathBuf>,
    /// System calls beside those for serving.
    pub calls: Vec<SyscallRule>,
    /// Whether to make threads.
    pub threads: bool,
    /// Whether to map executable memory, for libraries and compiled shaders.
    pub code: bool,
}

impl SandboxPolicy {
    pub(super) fn opens_files(&self) -> bool {
        [&self.read, &self.list, &self.write, &self.devices]
            .iter()
            .any(|paths| !paths.is_empty())
    }
}

/// A condition on an argument of a system call. Only its lower 32 bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallArgument {
    pub(super) index: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl SyscallArgument {
    /// The argument `index`, counted from 0, is `value`.
    pub const fn is(index: u8, value: u32) -> Self {
        Self::masked(index, u32::MAX, value)
    }

    /// The argument `index` has none of these bits.
    pub const fn lacks(index: u8, bits: u32) -> Self {
        Self::masked(index, bits, 0)
    }

    /// The bits `mask` of the argument `index` are `value`.
    pub const fn masked(index: u8, mask: u32, value: u32) -> Self {
        Self { index, mask, value }
    }
}

/// What the kernel does with a system call (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    /// The call fails with this errno.
    Errno(i32),
    /// The call is allowed, and the kernel logs it.
    Log,
    /// SIGSYS ends the process.
    KillProcess,
}

/// A system call that does not end the process: always, or for one value of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallRule {
    pub(super) number: c_long,
    pub(super) argument: Option<SyscallArgument>,
    pub(super) action: Action,
}

impl SyscallRule {
    /// Allows the call `number` (`libc::SYS_*`) with any arguments.
    pub const fn any(number: c_long) -> Self {
        Self {
            number,
            argument: None,
            action: Action::Allow,
        }
    }

    /// Allows the call if `argument` matches. Several rules for a call allow several cases.
    pub const fn with(number: c_long, argument: SyscallArgument) -> Self {
        Self {
            number,
            argument: Some(argument),
            action: Action::Allow,
        }
    }

    /// Makes the call fail with `errno` instead: for libraries that try it and can do without.
    pub const fn fails(self, errno: i32) -> Self {
        Self {
            action: Action::Errno(errno),
            ..self
        }
    }
}
