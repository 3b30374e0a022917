// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who is at the other end of a connection.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _};

use conventions::Peer;

/// The user id that stands for users outside the user namespace (`kernel.overflowuid`).
const UNMAPPED: u32 = 65534;

/// The process at the other end of a Unix socket.
pub(crate) fn peer(socket: impl AsFd) -> io::Result<Peer> {
    // Not by rustix, whose process ids are never 0: the kernel's answer for a process outside this pid namespace.
    let mut cred = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length = mem::size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the socket is open, and `cred` has room for the `length` bytes that the kernel may write.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Peer {
        pid: cred.pid.unsigned_abs(),
        uid: Some(cred.uid).filter(|uid| *uid != UNMAPPED),
    })
}
