//! What a device needs of the system.

use std::path::PathBuf;

use libc::c_long;

/// What a device needs of the system after it is open, beside what serving it takes.
#[derive(Clone, Debug, Default)]
pub struct SandboxPolicy {
    /// Files and folders to read, and to map as code.
    pub read: Vec<PathBuf>,
    /// Folders to list, whose files are not to be opened.
    pub list: Vec<PathBuf>,
    /// Folders to make, write and remove files in.
    pub write: Vec<PathBuf>,
    /// Nodes of devices to open again, or folders of such.
    pub devices: Vec<PathBuf>,
    /// System calls.
    pub calls: Vec<SyscallRule>,
    /// To make threads.
    pub threads: bool,
    /// Memory that is executed, such as that of libraries and compiled shaders.
    pub code: bool,
}

impl SandboxPolicy {
    pub(super) fn opens_files(&self) -> bool {
        [&self.read, &self.list, &self.write, &self.devices]
            .iter()
            .any(|paths| !paths.is_empty())
    }
}

/// A condition on one of a system call's arguments, of which the lower 32 bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    pub(super) index: u8,
    pub(super) mask: u32,
    pub(super) value: u32,
}

impl Argument {
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
    /// SIGSYS ends the process.
    KillProcess,
}

/// A system call that does not end the process, whatever its arguments or with some only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallRule {
    pub(super) number: c_long,
    pub(super) argument: Option<Argument>,
    pub(super) action: Action,
}

impl SyscallRule {
    /// Allowed, whatever its arguments are.
    pub const fn any(number: c_long) -> Self {
        Self {
            number,
            argument: None,
            action: Action::Allow,
        }
    }

    /// Allowed where this holds for its arguments. To allow several cases, name each.
    pub const fn with(number: c_long, argument: Argument) -> Self {
        Self {
            number,
            argument: Some(argument),
            action: Action::Allow,
        }
    }

    /// Not allowed, but answered with `errno`, for those who try it and can do without.
    pub const fn fails(self, errno: i32) -> Self {
        Self {
            action: Action::Errno(errno),
            ..self
        }
    }
}
