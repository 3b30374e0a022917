// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The descriptors that a service manager keeps for a unit, by the rules of systemd's `FDSTORE=1`
//! (`sd_pid_notify_with_fds(3)`, `FileDescriptorStoreMax=`).

use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

use rustix::event::PollFlags;

/// What a descriptor is named that came without `FDNAME=`.
const UNNAMED: &str = "stored";
/// Longest name in bytes.
const NAME_LIMIT: usize = 255;

/// A kept descriptor.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) name: String,
    pub(super) fd: OwnedFd,
    /// Whether it goes once its other end is closed (all but `FDPOLL=0`).
    pub(super) polled: bool,
}

/// What became of a descriptor that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    /// The same open file description is kept already, under its first name.
    Duplicate,
    /// There are as many as the unit may have.
    Full,
}

/// The store.
#[derive(Debug)]
pub(super) struct Store {
    limit: usize,
    /// Oldest first.
    kept: Vec<Kept>,
}

impl Store {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Vec::new(),
        }
    }

    /// Keeps a descriptor. It is closed if it is not kept. The limit comes first, as in systemd: a full store refuses
    /// also what it has.
    pub(super) fn add(&mut self, name: Option<&str>, fd: OwnedFd, polled: bool) -> Added {
        if self.kept.len() >= self.limit {
            return Added::Full;
        }
        if self.kept.iter().any(|kept| is_same(&kept.fd, &fd)) {
            return Added::Duplicate;
        }
        let name = name.unwrap_or(UNNAMED).to_owned();
        self.kept.push(Kept { name, fd, polled });
        Added::New
    }

    /// Closes all with this name. Returns how many there were.
    pub(super) fn remove(&mut self, name: &str) -> usize {
        let before = self.kept.len();
        self.kept.retain(|kept| kept.name != name);
        before - self.kept.len()
    }

    /// Closes all.
    pub(super) fn clear(&mut self) {
        self.kept.clear();
    }

    /// Closes those that poll(2) reports an end or an error of. `flags` are in the order of [`Store::polled`].
    pub(super) fn drop_ended(&mut self, flags: &[PollFlags]) -> usize {
        let before = self.kept.len();
        let mut flags = flags.iter();
        self.kept.retain(|kept| {
            let ended = kept.polled && {
                let flags = flags.next().copied().unwrap_or(PollFlags::empty());
                flags.intersects(PollFlags::HUP | PollFlags::ERR)
            };
            !ended
        });
        before - self.kept.len()
    }

    /// Those that are watched for their end.
    pub(super) fn polled(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.polled)
    }

    /// All, in the order in which the next start gets them: the newest first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Kept> {
        self.kept.iter().rev()
    }
}

/// Whether a name may stand in `LISTEN_FDNAMES`. An empty one may.
pub(super) fn is_valid_name(name: &str) -> bool {
    let is_valid = |byte: u8| (b' '..127).contains(&byte) && byte != b':';
    name.len() <= NAME_LIMIT && name.bytes().all(is_valid)
}

/// Whether two descriptors are one open file description (`kcmp(2)`).
fn is_same(one: &impl AsFd, other: &impl AsFd) -> bool {
    const KCMP_FILE: libc::c_int = 0;
    let us = rustix::process::getpid().as_raw_nonzero().get();
    let [one, other] = [one.as_fd(), other.as_fd()].map(|fd| libc::c_long::from(fd.as_raw_fd()));
    // SAFETY: kcmp(2) takes numbers only and changes nothing.
    unsafe { libc::syscall(libc::SYS_kcmp, us, us, KCMP_FILE, one, other) == 0 }
}
