// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Where the device is when its opener starts.

use std::ffi::OsString;
use std::fs;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, fstat, statx};

/// Where the device is when its opener starts.
#[derive(Clone, Copy, Debug)]
pub(in crate::input::source::evdev_source) enum Place {
    /// Where the target leads, if it leads anywhere.
    Target,
    /// At this node: a predecessor of the program opened it, and its name may lead to another one by now.
    Node(NodeId),
    /// A predecessor of the program opened it, and the kernel has deleted its node then.
    Gone(Moment),
    /// It is not there, and nobody knows which nodes were there beside it.
    Unknown,
}

/// The number of a file system, and of a file in it: no other node has it while the device is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::input::source::evdev_source) struct NodeId {
    file_system: u64,
    inode: u64,
}

/// A time stamp of the kernel on a file: seconds and nanoseconds of the host's clock, as coarse as its ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::input::source::evdev_source) struct Moment(i64, i64);

impl Place {
    /// That of the device `file`, which a predecessor left, and which may be gone. The kernel's word counts, and no
    /// record: it changes a file for the last time when it deletes its only name.
    pub(in crate::input::source::evdev_source) fn left(file: Option<BorrowedFd<'_>>) -> Self {
        match file.and_then(|file| fstat(file).ok()) {
            None => Self::Unknown,
            // The types of the fields depend on the architecture.
            #[allow(clippy::unnecessary_cast)]
            Some(node) if node.st_nlink == 0 => {
                Self::Gone(Moment(node.st_ctime as i64, node.st_ctime_nsec as i64))
            }
            Some(node) => Self::Node(NodeId {
                file_system: node.st_dev,
                inode: node.st_ino,
            }),
        }
    }
}

impl NodeId {
    /// The name in `folder` of the node; `None` if it is not there any more.
    pub(super) fn name_in(self, folder: &Path) -> Option<OsString> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.find(|name| {
            let node = fs::symlink_metadata(folder.join(name));
            node.is_ok_and(|node| (node.dev(), node.ino()) == (self.file_system, self.inode))
        })
    }
}

impl Moment {
    /// When a link with this time of its last change was made, which has no other.
    pub(super) fn of_link((seconds, nanoseconds): (i64, i64)) -> Self {
        Self(seconds, nanoseconds)
    }

    /// When the node at `path` was made; `None` if it is not there. Nobody writes to a device's node, so for a file
    /// system that does not tell, its last change of contents is that.
    pub(super) fn made(path: &Path) -> Option<Self> {
        let wanted = StatxFlags::BTIME | StatxFlags::MTIME;
        let node = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, wanted).ok()?;
        let tells = node.stx_mask & StatxFlags::BTIME.bits() != 0;
        let time = if tells {
            node.stx_btime
        } else {
            node.stx_mtime
        };
        Some(Self(time.tv_sec, time.tv_nsec.into()))
    }
}
