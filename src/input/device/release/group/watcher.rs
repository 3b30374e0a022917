// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The helper at work, within its own process.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use inotify::{Inotify, WatchMask};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;

use crate::input::device::release::{GrabRequest, ReleasedBy};

use super::message;

/// The files that say what is asked of the group: neither exists while the guest has its devices.
#[derive(Debug)]
struct GroupFiles {
    by_command: PathBuf,
    by_chord: PathBuf,
}

/// Watches the files, and changes them.
#[derive(Debug)]
pub(super) struct Watcher {
    files: GroupFiles,
    inotify: Inotify,
    told: Option<GrabRequest>,
    /// Locked by each member as long as it lives.
    _folder: File,
}

impl GroupFiles {
    fn new(file: &Path) -> Self {
        let mut by_chord = OsString::from(file);
        by_chord.push(".chord");
        Self {
            by_command: file.to_owned(),
            by_chord: by_chord.into(),
        }
    }

    fn read(&self) -> GrabRequest {
        let exists = |path| fs::symlink_metadata(path).is_ok();
        if exists(&self.by_command) {
            GrabRequest::Release(ReleasedBy::Command)
        } else if exists(&self.by_chord) {
            GrabRequest::Release(ReleasedBy::Chord)
        } else {
            GrabRequest::Grab
        }
    }

    fn write(&self, request: GrabRequest) -> io::Result<()> {
        match request {
            GrabRequest::Grab => {
                remove(&self.by_command)?;
                remove(&self.by_chord)
            }
            GrabRequest::Release(ReleasedBy::Chord) => {
                make(&self.by_chord)?;
                remove(&self.by_command)
            }
            GrabRequest::Release(ReleasedBy::Command) => {
                make(&self.by_command)?;
                remove(&self.by_chord)
            }
        }
    }
}

/// Nothing is written to it, and nothing that is there is opened.
fn make(path: &Path) -> io::Result<()> {
    match OpenOptions::new().write(true).create_new(true).open(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Watcher {
    /// Watches from now on. The first member of the group makes a new start, unless it `is_resumed`: all members may have
    /// been restarted at once, while their VM runs.
    pub(super) fn new(file: &Path, is_resumed: bool) -> io::Result<Self> {
        let no_folder = || io::Error::from(io::ErrorKind::InvalidInput);
        let folder = file.parent().ok_or_else(no_folder)?;
        // Otherwise it would be noticed when the user strikes the chord.
        rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::DELETE_SELF
            | WatchMask::ONLYDIR;
        inotify.watches().add(folder, mask)?;
        let files = GroupFiles::new(file);
        let folder = File::open(folder)?;
        // What a VM that has ended left released is not kept from the next one.
        if !is_resumed && flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok() {
            files.write(GrabRequest::Grab)?;
        }
        flock(&folder, FlockOperation::LockShared)?;
        Ok(Self {
            files,
            inotify,
            told: None,
            _folder: folder,
        })
    }

    /// Serves the program until it ends.
    pub(super) fn run(mut self, socket: &OwnedFd) -> io::Result<()> {
        loop {
            self.tell(socket)?;
            let mut fds = [
                PollFd::new(socket, PollFlags::IN),
                PollFd::from_borrowed_fd(self.inotify.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            // First: what the files say is read after it.
            self.forget_changes()?;
            match message::receive(socket) {
                Ok(Some(request)) => {
                    self.told = Some(request);
                    self.files.write(request)?;
                }
                Ok(None) => return Ok(()),
                Err(Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells the program what the files say, if it does not know.
    fn tell(&mut self, socket: &OwnedFd) -> io::Result<()> {
        let now = self.files.read();
        if self.told == Some(now) {
            return Ok(());
        }
        match message::send(socket, now) {
            Ok(()) => self.told = Some(now),
            // It has many to read, and hears of the last one after the next change.
            Err(Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn forget_changes(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
