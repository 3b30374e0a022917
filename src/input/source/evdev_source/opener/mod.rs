// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens the device again when it comes back, for a program that may open nothing any more.
//!
//! The opener is a process of its own ([`start_helper`]): it waits for changes of the device's name and of the folder
//! with the nodes, by inotify, opens what the name leads to, and passes the descriptor. A device without a lasting name
//! it finds by what sysfs says of each node, so that it opens no other one. It reads nothing from the
//! device, and nothing of a guest. The target is fixed when it starts.

mod message;
mod names;
mod place;
mod search;
mod target;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::backend::{
    HelperError, NarrowedFiles, SandboxMode, SandboxPolicy, SyscallRule, start_helper,
};

pub(super) use message::Answer;
use message::Order;
pub(super) use place::Place;
use search::Search;
pub(super) use target::Target;

/// The program's end of an opener.
#[derive(Debug)]
pub(super) struct Opener {
    socket: OwnedFd,
}

impl Opener {
    /// Starts an opener for the device that `target` leads to, or will, and that is at `place` now. Its
    /// sandbox is as `mode` says.
    ///
    /// # Errors
    /// Those of [`start_helper`].
    pub(super) fn start(
        target: Target,
        place: Place,
        mode: SandboxMode,
    ) -> Result<Self, HelperError> {
        let folder = target.node_folder();
        let allowed = names::existing(&folder).to_owned();
        let mut policy = SandboxPolicy {
            devices: vec![allowed.clone()],
            read: target.read().into_iter().map(Path::to_owned).collect(),
            calls: vec![
                SyscallRule::any(libc::SYS_inotify_init1),
                SyscallRule::any(libc::SYS_inotify_add_watch),
                SyscallRule::any(libc::SYS_inotify_rm_watch),
                SyscallRule::any(libc::SYS_getdents64),
            ],
            ..SandboxPolicy::default()
        };
        // Only what is there can be allowed. Once the folder is there, the rest is given up.
        let narrows = mode.is_closed() && allowed != folder && target.is_folder_certain();
        let narrowed = narrows.then(|| NarrowedFiles::new(&mut policy, folder));
        let prepare = || Search::new(target, place, narrowed);
        let socket = start_helper(
            c"evdev-opener",
            PURPOSE,
            mode,
            policy,
            prepare,
            |search, socket| {
                // An error ends the opener, which the program notices.
                let _ = search.run(&socket);
            },
        )?;
        Ok(Self { socket })
    }

    /// What was opened last is the device.
    pub(super) fn accepted(&self) {
        self.tell(Order::Accepted);
    }

    /// The device is gone, and is to be opened once it is back.
    pub(super) fn lost(&self) {
        self.tell(Order::Lost);
    }

    /// What was opened is not the device, or cannot be used.
    pub(super) fn refused(&self) {
        self.tell(Order::Refused);
    }

    /// What was opened is used by another process.
    pub(super) fn busy(&self) {
        self.tell(Order::Busy);
    }

    fn tell(&self, order: Order) {
        // It ended, which the next `answer` says, or has not read many orders, which it never gets at once.
        if let Err(error) = order.send(&self.socket) {
            log::debug!("cannot reach the opener: {error}");
        }
    }

    /// The next answer.
    ///
    /// # Errors
    /// `WouldBlock` if there is none; any other error says that the opener has ended.
    pub(super) fn answer(&self) -> io::Result<Answer> {
        loop {
            match Answer::receive(&self.socket) {
                Err(Errno::INTR) => {}
                answer => return answer.map_err(io::Error::from),
            }
        }
    }
}

const PURPOSE: &str = "opens the input device again";

impl AsFd for Opener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
