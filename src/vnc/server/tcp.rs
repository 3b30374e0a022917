// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers by TCP, which a drop-in of the socket unit allows: small updates at once, and noticing that one vanished.
//!
//! A viewer that vanished, or whose computer sleeps, answers nothing; what it pressed stays pressed until it is
//! disconnected. One that does not read, or whose link is slow, answers all the same: the kernel at its end confirms
//! what came, and says that there is no room for more. It may be as slow as it likes.
//!
//! `TCP_USER_TIMEOUT` takes the one for the other: it ends a connection whose peer has had no room for so long
//! (tcp(7)). Without it the kernel gives up after a quarter of an hour. So it is asked when it last heard of the peer.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, sockopt};

/// How long a viewer is silent before the kernel asks whether it is still there, and how it goes on asking, while nothing
/// is to be sent: one that vanished is noticed after 30 s.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// How long what was sent to it may stay unanswered.
const UNANSWERED: Duration = Duration::from_secs(30);
/// Questions whether it has room again that went unanswered; one may just be on its way.
const UNANSWERED_PROBES: u8 = 2;

/// How often [`is_gone`] is asked.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Has small updates sent at once, and a viewer that vanished noticed. Without this it works as well.
pub(super) fn tune(viewer: &OwnedFd) {
    let tuned = sockopt::set_tcp_nodelay(viewer, true)
        .and_then(|()| sockopt::set_socket_keepalive(viewer, true))
        .and_then(|()| sockopt::set_tcp_keepidle(viewer, KEEPALIVE_AFTER))
        .and_then(|()| sockopt::set_tcp_keepintvl(viewer, KEEPALIVE_INTERVAL))
        .and_then(|()| sockopt::set_tcp_keepcnt(viewer, KEEPALIVE_PROBES));
    if let Err(e) = tuned {
        log::debug!("cannot set up a TCP connection: {e}");
    }
}

/// Whether the peer is of another kernel, perhaps: not by a Unix socket.
pub(super) fn is_remote(viewer: impl AsFd) -> bool {
    sockopt::socket_domain(viewer).is_ok_and(|domain| domain != AddressFamily::UNIX)
}

/// Whether the peer has answered nothing for too long though it was asked or sent something.
pub(super) fn is_gone(viewer: impl AsFd) -> bool {
    info(viewer).is_ok_and(|info| has_vanished(&info))
}

fn has_vanished(info: &libc::tcp_info) -> bool {
    // The kernel does not count data without news as an answer: a viewer may move its pointer and be sent nothing.
    let heard = info.tcpi_last_ack_recv.min(info.tcpi_last_data_recv);
    let silent = Duration::from_millis(heard.into());
    let asked = info.tcpi_unacked > 0 || info.tcpi_probes >= UNANSWERED_PROBES;
    asked && silent >= UNANSWERED
}

/// What the kernel knows of a connection.
fn info(socket: impl AsFd) -> io::Result<libc::tcp_info> {
    // SAFETY: it consists of numbers, which may all be 0.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the socket is open, and `info` has room for the `length` bytes that the kernel may write.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &raw mut length,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info)
}

#[cfg(test)]
mod tests;
