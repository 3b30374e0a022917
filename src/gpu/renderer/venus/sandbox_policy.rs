// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the sandbox must allow for Venus: threads of virglrenderer, memfds and sockets. The library is loaded and the render
//! server connected before, and neither files nor devices are opened. docs/sandbox.md says which calls were observed.

use crate::backend::{SandboxPolicy, SyscallRule};

/// `DMA_BUF_IOCTL_SYNC`, before and after this process reads a dmabuf.
const DMABUF_SYNC: u32 = libc::_IOW::<u64>(b'b' as u32, 0) as u32;

const CALLS: &[SyscallRule] = &[
    // The memory of fences that a context shares with the server, and blobs.
    SyscallRule::any(libc::SYS_memfd_create),
    SyscallRule::any(libc::SYS_ftruncate),
    SyscallRule::any(libc::SYS_pread64),
    SyscallRule::any(libc::SYS_lseek),
    SyscallRule::with(
        libc::SYS_fcntl,
        crate::backend::SyscallArgument::is(1, libc::F_ADD_SEALS as u32),
    ),
    SyscallRule::with(
        libc::SYS_fcntl,
        crate::backend::SyscallArgument::is(1, libc::F_GET_SEALS as u32),
    ),
    SyscallRule::with(
        libc::SYS_ioctl,
        crate::backend::SyscallArgument::is(1, DMABUF_SYNC),
    ),
    // Fences.
    SyscallRule::any(libc::SYS_eventfd2),
    SyscallRule::any(libc::SYS_epoll_create1),
    SyscallRule::any(libc::SYS_poll),
    SyscallRule::any(libc::SYS_getsockopt),
];

/// The policy.
pub(super) fn sandbox_policy() -> SandboxPolicy {
    SandboxPolicy {
        calls: CALLS.to_vec(),
        threads: true,
        ..SandboxPolicy::default()
    }
}
