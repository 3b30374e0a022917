// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether anybody listens on a socket. systemd does not notice if the file is removed, and goes on saying that a socket listens
//! which it closed because the unit's files were missing while it read its units again.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// All Unix sockets of the network namespace.
const TABLE: &str = "/proc/net/unix";
/// The service manager's own socket. Where the table does not have it, it is that of another namespace.
const MANAGER: &str = "/run/systemd/private";
/// The flag of those that listen (`__SO_ACCEPTCON`).
const LISTENING: &str = "00010000";

/// The paths on which somebody listens, read when the first is asked about.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    paths: OnceCell<Option<BTreeSet<String>>>,
}

impl Listeners {
    /// Whether nobody listens at a path at which systemd says that a socket listens. Sockets in folders that this user may
    /// not enter cannot be seen, but they are in the table.
    pub(super) fn lack(&self, path: &str) -> bool {
        let file = Path::new(path);
        if !file.is_absolute() {
            return false;
        }
        let paths = self.paths.get_or_init(|| {
            let table = fs::read(TABLE).unwrap_or_default();
            listening(&String::from_utf8_lossy(&table))
        });
        let is_lost = paths.as_ref().is_some_and(|paths| !paths.contains(path));
        is_lost || matches!(file.try_exists(), Ok(false))
    }
}

/// The paths in a table whose sockets listen; `None` if the service manager is not among them.
fn listening(table: &str) -> Option<BTreeSet<String>> {
    let paths: BTreeSet<_> = table.lines().filter_map(listening_path).collect();
    paths.contains(MANAGER).then_some(paths)
}

/// The path of one line, if its socket listens: address, references, protocol, flags, type, state, inode, path.
///
/// The kernel prints paths as they are, a line's end included. So a local user can add lines, which hide that a socket is
/// lost, and nothing else: what is printed of it is a hint.
fn listening_path(line: &str) -> Option<String> {
    let mut rest = line;
    let mut next = || {
        let (word, after) = rest.split_once(' ')?;
        // The inode is aligned.
        rest = after.trim_start_matches(' ');
        Some(word)
    };
    let flags = (0..4).map(|_| next()).last()??;
    for _ in 0..3 {
        next()?;
    }
    (flags == LISTENING && rest.starts_with('/')).then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
    const SYSTEMD: &str =
        "0000000000000000: 00000002 00000000 00010000 0001 01  1234 /run/systemd/private\n";

    #[test]
    fn those_that_listen_are_found_by_their_path() {
        let table = format!(
            "{HEAD}{SYSTEMD}\
             0000000000000000: 00000002 00000000 00010000 0001 01 123456 /run/vhost-user/gpu/vm1.sock\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 123457 /run/vhost-user/gpu/vm2.sock\n\
             0000000000000000: 00000002 00000000 00010000 0005 01 123458 /run/with a blank\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 123459 @abstract\n\
             0000000000000000: 00000003 00000000 00000000 0001 03 123460\n"
        );
        let expected = [MANAGER, "/run/vhost-user/gpu/vm1.sock", "/run/with a blank"];
        let expected = expected.map(str::to_owned);
        assert_eq!(listening(&table), Some(BTreeSet::from(expected)));
    }

    #[test]
    fn table_of_another_namespace_tells_nothing() {
        assert_eq!(listening(""), None);
        let other = SYSTEMD.replace("private", "other");
        assert_eq!(listening(&format!("{HEAD}{other}")), None);
    }

    #[test]
    fn file_that_is_not_there_and_tcp_need_no_table() {
        assert!(!Listeners::default().lack("127.0.0.1:5900"));
        assert!(Listeners::default().lack("/nonexistent/socket"));
    }
}
