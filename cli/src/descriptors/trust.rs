// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Whether other users can change a file. The descriptors of a user name programs that vhostctl runs, also as root if
//! HOME or XDG_CONFIG_HOME still names the folder of another user.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::process::{getegid, geteuid};

/// How many symbolic links the kernel follows.
const LINKS_MAX: u32 = 40;
const STICKY: u32 = 0o1000;

/// Why others than root and the caller can change what is at a path: the file, a folder above it, or a link on the
/// way. `None` if they cannot, or nothing is there.
pub(crate) fn why_untrusted(path: &Path) -> Option<String> {
    let mut at = PathBuf::from("/");
    if let Some(why) = why_others_can_change(&at, &fs::symlink_metadata(&at).ok()?) {
        return Some(why);
    }
    let mut links = 0;
    let mut left: VecDeque<OsString> = names(path).collect();
    while let Some(name) = left.pop_front() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        let data = fs::symlink_metadata(&next).ok()?;
        if let Some(why) = why_others_can_change(&next, &data) {
            return Some(why);
        }
        if data.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Some(format!("{} leads in a circle", next.display()));
            }
            let target = fs::read_link(&next).ok()?;
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
                left.push_front(name);
            }
        } else {
            at = next;
        }
    }
    None
}

/// The parts of a path below its root.
fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Why others than root and the caller can change this file, whatever is above it.
fn why_others_can_change(path: &Path, data: &Metadata) -> Option<String> {
    let shown = path.display();
    let (owner, mode) = (data.uid(), data.mode());
    if owner != 0 && owner != geteuid().as_raw() {
        return Some(format!("{shown} belongs to user {owner}"));
    }
    // In a sticky folder such as /tmp, others cannot replace the file. The mode of a link has no meaning.
    if data.is_symlink() || data.is_dir() && mode & STICKY != 0 {
        return None;
    }
    if mode & 0o002 != 0 {
        return Some(format!("{shown} can be changed by everybody"));
    }
    // root decides which groups may change its files.
    let group = data.gid();
    (mode & 0o020 != 0 && owner != 0 && group != getegid().as_raw())
        .then(|| format!("{shown} can be changed by group {group}"))
}
