// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Tells files apart, whichever descriptors they come by.

use std::os::fd::AsFd;

use rustix::fs::fstat;

/// Device and inode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileId(u64, u64);

impl FileId {
    /// `None` if the file cannot be looked at.
    pub(super) fn of(file: impl AsFd) -> Option<Self> {
        let stat = fstat(file).ok()?;
        Some(Self(stat.st_dev, stat.st_ino))
    }
}
