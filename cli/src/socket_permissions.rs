//! Who may connect to a socket: its owner, its group and its mode.

use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use nix::unistd::{Gid, Group, Uid, User};

/// The owner, group and mode of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SocketPermissions {
    user: String,
    group: String,
    mode: String,
    /// The numbers of the user and the group, if they are known.
    ids: [Option<u32>; 2],
}

impl SocketPermissions {
    /// By names or numbers, as in a unit. Without a group, it is that of the user.
    pub(crate) fn named(user: &str, group: &str, mode: &str) -> Self {
        let account = match user.parse() {
            Ok(id) => User::from_uid(Uid::from_raw(id)),
            Err(_) => User::from_name(user),
        };
        let account = account.ok().flatten();
        let group_id = match (group, group.parse()) {
            ("", _) => account.as_ref().map(|account| account.gid.as_raw()),
            (_, Ok(id)) => Some(id),
            (name, Err(_)) => {
                let group = Group::from_name(name).ok().flatten();
                group.map(|group| group.gid.as_raw())
            }
        };
        Self {
            user: user.to_owned(),
            group: group.to_owned(),
            mode: mode.to_owned(),
            ids: [account.map(|account| account.uid.as_raw()), group_id],
        }
    }

    /// The current permissions of a socket; `None` if there is no socket.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let data = fs::symlink_metadata(path).ok()?;
        if !data.file_type().is_socket() {
            return None;
        }
        let user = User::from_uid(Uid::from_raw(data.uid())).ok().flatten();
        let group = Group::from_gid(Gid::from_raw(data.gid())).ok().flatten();
        Some(Self {
            user: user.map_or_else(|| data.uid().to_string(), |user| user.name),
            group: group.map_or_else(|| data.gid().to_string(), |group| group.name),
            mode: format!("{:04o}", data.mode() & 0o7777),
            ids: [Some(data.uid()), Some(data.gid())],
        })
    }

    /// Whether both mean the same, by names or numbers.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.ids == other.ids && self.mode == other.mode
    }
}

impl fmt::Display for SocketPermissions {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}:{}, mode {}", self.user, self.group, self.mode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn numbers_and_names_are_the_same_access() {
        let root = SocketPermissions::named("root", "root", "0600");
        assert_eq!(root.to_string(), "root:root, mode 0600");
        for same in [
            SocketPermissions::named("0", "0", "0600"),
            SocketPermissions::named("root", "", "0600"),
        ] {
            assert!(root.is_same(&same), "{same:?}");
        }
        for other in [
            SocketPermissions::named("root", "root", "0660"),
            SocketPermissions::named("4711", "root", "0600"),
            SocketPermissions::named("root", "4711", "0600"),
        ] {
            assert!(!root.is_same(&other), "{other:?}");
        }
    }

    #[test]
    fn a_socket_tells_its_access() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.sock");
        let _listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("its mode");
        let path = path.to_str().expect("UTF-8");
        let permissions = SocketPermissions::of(path).expect("a socket");
        assert!(
            permissions.to_string().ends_with(", mode 0640"),
            "{permissions}"
        );
        assert_eq!(SocketPermissions::of("/nonexistent.sock"), None);
        assert_eq!(SocketPermissions::of("/dev/null"), None);
    }
}
