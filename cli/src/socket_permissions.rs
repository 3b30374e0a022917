// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Who may connect to a socket: its owner, its group and its mode.

use std::fmt;
use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use crate::accounts::{known_group, known_user};

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
        let account = known_user(user);
        let group_id = match (group, group.parse()) {
            ("", _) => account.as_ref().map(|account| account.gid.as_raw()),
            (_, Ok(id)) => Some(id),
            (name, Err(_)) => {
                let group = known_group(name);
                group.map(|group| group.gid.as_raw())
            }
        };
        let group = match (group, group_id) {
            ("", Some(id)) => {
                let group = known_group(&id.to_string());
                group.map_or_else(|| id.to_string(), |group| group.name)
            }
            (name, _) => name.to_owned(),
        };
        Self {
            user: user.to_owned(),
            group,
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
        let [user, group] = [data.uid(), data.gid()].map(|id| id.to_string());
        Some(Self {
            user: known_user(&user).map_or(user, |user| user.name),
            group: known_group(&group).map_or(group, |group| group.name),
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
        match self.group.as_str() {
            // That of a user whom this host does not know.
            "" => write!(f, "{}, mode {}", self.user, self.mode),
            group => write!(f, "{}:{group}, mode {}", self.user, self.mode),
        }
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
        let without_group = SocketPermissions::named("root", "", "0600");
        assert_eq!(without_group.to_string(), "root:root, mode 0600");
        let unknown = SocketPermissions::named("nobody-knows", "", "0600");
        assert_eq!(unknown.to_string(), "nobody-knows, mode 0600");
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
