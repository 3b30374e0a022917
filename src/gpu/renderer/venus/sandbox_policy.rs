// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the sandbox must allow for Venus: threads of virglrenderer, memfds and sockets. The library is loaded and the render
//! server connected before, and neither files nor devices are opened. docs/sandbox.md says which calls were observed.

use crate::backend::{SandboxPolicy, SyscallArgument, SyscallRule};

/// `DMA_BUF_IOCTL_SYNC`, before and after this process reads a dmabuf.
const DMABUF_SYNC: u32 = libc::_IOW::<u64>(b'b' as u32, 0) as u32;

const CALLS: &[SyscallRule] = &[
    // Memory that a context shares with the server, in which the server counts the work that is done.
    SyscallRule::any(libc::SYS_ftruncate),
    // The header of what lavapipe exports.
    SyscallRule::any(libc::SYS_pread64),
    // Whether what is exported is a dmabuf.
    SyscallRule::any(libc::SYS_fstatfs),
    SyscallRule::with(libc::SYS_ioctl, SyscallArgument::is(1, DMABUF_SYNC)),
    // Waiting for fences and for the end of the server at once.
    SyscallRule::any(libc::SYS_epoll_create1),
];

/// The policy.
pub(super) fn sandbox_policy() -> SandboxPolicy {
    SandboxPolicy {
        calls: CALLS.to_vec(),
        threads: true,
        ..SandboxPolicy::default()
    }
}
