// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where a device's name leads to, and which folders say when that changes.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::place::Moment;

/// The folder of input devices, where udev's links lead to.
const DEV_INPUT: &str = "/dev/input";
/// Most links in a row.
const MAX_LINKS: usize = 8;

/// The folder with the node that `path` leads to, or will.
pub(super) fn node_folder(path: &Path) -> PathBuf {
    let node = follow(path).ok();
    let folder = node.as_deref().and_then(Path::parent);
    match folder {
        Some(folder) => folder.to_owned(),
        None if path.starts_with("/dev") => DEV_INPUT.into(),
        None => path.parent().unwrap_or(Path::new("/")).to_owned(),
    }
}

/// What `path` leads to. Folders that are links are not followed: the names are those that inotify and udev use.
///
/// # Errors
/// `NotFound` if it leads nowhere, and those of `readlink(2)`.
fn follow(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        match next(&path)? {
            Some(next) => path = next,
            None => return Ok(path),
        }
    }
    Err(io::Error::from_raw_os_error(libc::ELOOP))
}

/// Where the link `path` leads; `None` if it is no link.
fn next(path: &Path) -> io::Result<Option<PathBuf>> {
    let target = match fs::read_link(path) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(None),
        target => target?,
    };
    let mut next = path.to_owned();
    next.pop();
    for component in target.components() {
        match component {
            Component::ParentDir => {
                next.pop();
            }
            Component::CurDir => {}
            _ => next.push(component),
        }
    }
    Ok(Some(next))
}

/// `folder`, or the nearest one above that exists.
pub(super) fn existing(folder: &Path) -> &Path {
    let mut folders = folder.ancestors();
    folders
        .find(|folder| folder.is_dir())
        .unwrap_or(Path::new("/"))
}

/// The folders in which the name `path`, or a link that it leads to, may be changed: for each the nearest one that
/// exists.
pub(super) fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    let mut path = Some(path.to_owned());
    while let Some(name) = path.filter(|_| folders.len() < MAX_LINKS) {
        let folder = name.parent().unwrap_or(Path::new("/"));
        folders.push(existing(folder).to_owned());
        path = next(&name).ok().flatten();
    }
    folders
}

/// A link that udev makes anew has another identity, even if it leads to the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    inode: u64,
    changed: (i64, i64),
}

impl Link {
    /// The link at `path`; `None` if it is no link.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let metadata = fs::symlink_metadata(path).ok();
        let link = metadata.filter(|metadata| metadata.is_symlink())?;
        Some(Self {
            inode: link.ino(),
            changed: (link.ctime(), link.ctime_nsec()),
        })
    }

    /// When it was made.
    pub(super) fn made(self) -> Moment {
        Moment::of_link(self.changed)
    }
}

/// The path of the node that `path` leads to, and its name if it is in `folder`.
///
/// # Errors
/// `NotFound` if it leads nowhere.
pub(super) fn node(path: &Path, folder: &Path) -> io::Result<(PathBuf, Option<OsString>)> {
    let node = follow(path)?;
    let name = match node.parent() == Some(folder) {
        true => node.file_name().map(OsStr::to_owned),
        false => None,
    };
    Ok((node, name))
}
