// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A group of devices that change hands together, such as the keyboard and the mouse of a VM. Each is served by a process
//! of its own, whose sandbox lets it open no file. So each has a helper beside it ([`start_helper`]), which makes,
//! removes and watches the group's file, and knows nothing else.

mod message;
mod watcher;

#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::backend::{HelperError, SandboxMode, SandboxPolicy, SyscallRule, start_helper};

use super::GrabRequest;
use watcher::Watcher;

/// A device's place in its group.
#[derive(Debug)]
pub(super) struct GrabGroup {
    socket: OwnedFd,
    first: Option<GrabRequest>,
}

/// Why a device cannot be in a group.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// There is no helper.
    #[error("cannot watch the file {} of --grab-group=: {error}", .file.display())]
    Helper {
        /// The group's file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        error: HelperError,
    },
    /// The helper ended, or does not answer.
    #[error("cannot watch the file {} of --grab-group=: {error}", .file.display())]
    Answer {
        /// The group's file.
        file: PathBuf,
        /// What is wrong.
        #[source]
        error: io::Error,
    },
}

const PURPOSE: &str = "watches the group's file";
/// How long the helper may take for its first word.
const FIRST_LIMIT: Duration = Duration::from_secs(10);

impl GrabGroup {
    /// Joins the group of `file`, whose folder exists. `is_resumed` says that a process goes on that was a member.
    pub(super) fn join(
        file: &Path,
        mode: SandboxMode,
        is_resumed: bool,
    ) -> Result<Self, GroupError> {
        let failed = |error: io::Error| GroupError::Answer {
            file: file.to_owned(),
            error,
        };
        let file_of_group = std::path::absolute(file).map_err(failed)?;
        let policy = SandboxPolicy {
            write: file_of_group
                .parent()
                .map(Path::to_owned)
                .into_iter()
                .collect(),
            calls: vec![
                SyscallRule::any(libc::SYS_inotify_init1),
                SyscallRule::any(libc::SYS_inotify_add_watch),
                SyscallRule::any(libc::SYS_flock),
                #[cfg(target_arch = "x86_64")]
                SyscallRule::any(libc::SYS_unlink),
                SyscallRule::any(libc::SYS_unlinkat),
            ],
            ..SandboxPolicy::default()
        };
        let prepare = || Watcher::new(&file_of_group, is_resumed);
        let socket = start_helper(
            c"grab-group",
            PURPOSE,
            mode,
            policy,
            prepare,
            |watcher, socket| {
                // An error ends the helper, which the program notices.
                let _ = watcher.run(&socket);
            },
        )
        .map_err(|error| GroupError::Helper {
            file: file.to_owned(),
            error,
        })?;
        let mut group = Self {
            socket,
            first: None,
        };
        group.first = group.await_first().map_err(failed)?;
        Ok(group)
    }

    fn await_first(&self) -> io::Result<Option<GrabRequest>> {
        let deadline = Instant::now() + FIRST_LIMIT;
        loop {
            match self.next() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                first => return first,
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the group said as this device joined.
    pub(super) fn first(&self) -> Option<GrabRequest> {
        self.first
    }

    /// The next word of the group; `None` if there is none.
    ///
    /// # Errors
    /// If the helper has ended.
    pub(super) fn next(&self) -> io::Result<Option<GrabRequest>> {
        match message::receive(&self.socket) {
            Ok(Some(request)) => Ok(Some(request)),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes `request` on to the others.
    pub(super) fn tell(&self, request: GrabRequest) {
        // The helper has ended, which `next` says, or has many requests to pass on already.
        if let Err(error) = message::send(&self.socket, request) {
            log::warn!("cannot tell the group of this device: {error}");
        }
    }
}

impl AsFd for GrabGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
