// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who looks.

use std::fmt;
use std::os::fd::AsFd;

use conventions::ViewersStatus;

use super::accounts::Accounts;
use super::places::User;
use crate::backend::peer;

/// The process at the other end of a connection, when it connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ViewerPeer {
    user: User,
    name: String,
    pid: Option<u32>,
}

impl ViewerPeer {
    /// Asks the kernel (`SO_PEERCRED`).
    pub(super) fn of(socket: impl AsFd, accounts: &Accounts) -> Self {
        let peer = peer(socket).ok();
        // Of a TCP socket, which a drop-in of the socket unit may add, the kernel knows none.
        let uid = peer.and_then(|peer| peer.uid);
        let uid = uid.filter(|uid| *uid != u32::MAX);
        Self {
            user: User(uid),
            name: uid.map_or_else(|| "somebody".to_owned(), |uid| accounts.name(uid)),
            // 0 is a process outside this pid namespace.
            pid: peer.map(|peer| peer.pid).filter(|pid| *pid != 0),
        }
    }

    /// Whose process it is.
    pub(super) fn user(&self) -> User {
        self.user
    }
}

impl fmt::Display for ViewerPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "{} (pid {pid})", self.name),
            None => f.write_str(&self.name),
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
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn viewer_by_tcp_is_somebody() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let viewer = TcpStream::connect(port.local_addr().unwrap()).unwrap();
        let (accepted, _) = port.accept().unwrap();
        let accounts = Accounts::default();
        assert_eq!(ViewerPeer::of(&accepted, &accounts).to_string(), "somebody");
        drop(viewer);
        let (one, _other) = UnixStream::pair().unwrap();
        let pid = std::process::id();
        let said = ViewerPeer::of(&one, &accounts).to_string();
        assert!(said.ends_with(&format!(" (pid {pid})")), "{said}");
    }

    #[test]
    fn status_names_every_viewer() {
        let peer = |name: &str, pid| ViewerPeer {
            user: User(None),
            name: name.to_owned(),
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
