//! Who looks.

use std::fmt;
use std::os::fd::AsFd;

use conventions::ViewersStatus;
use rustix::net::sockopt;

use super::accounts::Accounts;

/// The process at the other end of a connection, when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ViewerPeer {
    user: String,
    pid: Option<i32>,
}

impl ViewerPeer {
    /// Asks the kernel (`SO_PEERCRED`).
    pub(super) fn of(socket: impl AsFd, accounts: &Accounts) -> Self {
        match sockopt::socket_peercred(socket) {
            Ok(peer) => Self {
                user: accounts.name(peer.uid.as_raw()),
                pid: Some(peer.pid.as_raw_nonzero().get()),
            },
            // A TCP socket, by a drop-in of the socket unit.
            Err(_) => Self {
                user: "somebody".to_owned(),
                pid: None,
            },
        }
    }
}

impl fmt::Display for ViewerPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "{} (pid {pid})", self.user),
            None => f.write_str(&self.user),
        }
    }
}

/// The text for `STATUS=`: how many look, and who.
pub(super) fn status_text<'a>(viewers: impl Iterator<Item = &'a ViewerPeer>) -> String {
    let names: Vec<String> = viewers.map(ViewerPeer::to_string).collect();
    let who = &names.join(", ");
    let count = names.len();
    ViewersStatus { count, who }.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_every_viewer() {
        let peer = |user: &str, pid| ViewerPeer {
            user: user.to_owned(),
            pid,
        };
        let peers = [
            peer("alice", Some(17)),
            peer("root", Some(99)),
            peer("somebody", None),
        ];
        assert_eq!(status_text(peers[..0].iter()), "nobody looks");
        assert_eq!(status_text(peers[..1].iter()), "1 viewer: alice (pid 17)");
        let all = "3 viewers: alice (pid 17), root (pid 99), somebody";
        assert_eq!(status_text(peers.iter()), all);
    }
}
