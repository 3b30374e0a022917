// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A service manager for one unit: socket activation, notifications, and the file descriptor store, as systemd has
//! them (`sd_listen_fds(3)`, `sd_notify(3)`, `sd_pid_notify_with_fds(3)`, `systemd.service(5)`). The program may die
//! and be started again with the descriptors that it had kept.

mod locker;
mod notification;
mod service;
mod store;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;

use crate::{Deadline, Error, Notification, Result};
use notification::Datagram;
use store::{Added, Store, is_valid_name};

pub use locker::{fill_locker, fill_locker_of};
pub use service::{Service, ServiceOptions};

/// The manager's end of `NOTIFY_SOCKET`, served by a thread of its own, and the descriptors it keeps.
#[derive(Debug)]
struct Manager {
    shared: Arc<Shared>,
    path: PathBuf,
    /// Closed, it ends the thread.
    end: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    store: Store,
    seen: Vec<Notification>,
    /// What systemd would have logged.
    warnings: Vec<String>,
}

impl Manager {
    /// A manager that keeps as many descriptors.
    fn new(limit: usize) -> Result<Self> {
        let folder = tempfile::tempdir().map_err(Error::io("a folder for NOTIFY_SOCKET"))?;
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).map_err(Error::io("binding NOTIFY_SOCKET"))?;
        let (end, ended) = UnixStream::pair().map_err(Error::io("socketpair"))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                store: Store::new(limit),
                seen: Vec::new(),
                warnings: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("manager".into());
        let thread = thread
            .spawn(move || serving.serve(&socket, &ended))
            .map_err(Error::io("starting the manager's thread"))?;
        Ok(Self {
            shared,
            path,
            end: Some(end),
            thread: Some(thread),
            _folder: folder,
        })
    }

    /// What `NOTIFY_SOCKET` is to be set to.
    fn path(&self) -> &Path {
        &self.path
    }

    /// Duplicates of what is kept, in the order in which the next start gets them.
    fn kept(&self) -> Result<Vec<(String, OwnedFd)>> {
        let state = self.shared.lock();
        let kept = state.store.newest_first().map(|kept| {
            let fd = kept.fd.try_clone().map_err(Error::io("dup"))?;
            Ok((kept.name.clone(), fd))
        });
        kept.collect()
    }

    /// Waits until all that was sent so far is done: by a message of its own behind it, as `sd_notify_barrier(3)`.
    fn barrier(&self) -> Result<()> {
        let (ours, theirs) = UnixStream::pair().map_err(Error::io("socketpair"))?;
        let sender = UnixDatagram::unbound().map_err(Error::io("a datagram socket"))?;
        sender
            .connect(&self.path)
            .map_err(Error::io("connecting to NOTIFY_SOCKET"))?;
        let fds = [theirs.as_fd()];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
        control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
        let text = [std::io::IoSlice::new(b"BARRIER=1")];
        let flags = rustix::net::SendFlags::NOSIGNAL;
        rustix::net::sendmsg(&sender, &text, &mut control, flags)
            .map_err(Error::os("sending BARRIER=1"))?;
        drop(theirs);
        let deadline = Deadline::default();
        match deadline.ready(&ours, PollFlags::IN)? {
            true => Ok(()),
            false => Err(deadline.missed("the answer to BARRIER=1")),
        }
    }

    /// Closes all that is kept.
    fn clear(&self) {
        self.shared.lock().store.clear();
    }

    /// Waits until `look` gives something.
    fn wait<T>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut(&State) -> Option<T>,
    ) -> Result<T> {
        let deadline = Deadline::after(limit);
        let mut state = self.shared.lock();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if deadline.passed() {
                let seen = state.seen.iter();
                let seen: Vec<_> = seen.map(|n| format!("{}={}", n.name, n.value)).collect();
                return Err(deadline.missed(format!("{what}, got {seen:?}")));
            }
            let waited = self.shared.changed.wait_timeout(state, deadline.left());
            state = waited.unwrap_or_else(|e| e.into_inner()).0;
        }
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // It panicked if it fails, and said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Receives messages and watches what is kept, until the other end of `ended` is closed.
    fn serve(&self, socket: &UnixDatagram, ended: &UnixStream) {
        loop {
            // Duplicates: the test may clear the store meanwhile.
            let polled: Vec<_> = {
                let state = self.lock();
                let fds = state.store.polled().map(|kept| kept.fd.try_clone());
                fds.collect::<Result<_, _>>().unwrap_or_default()
            };
            let mut fds = vec![
                PollFd::new(ended, PollFlags::IN),
                PollFd::new(socket, PollFlags::IN),
            ];
            fds.extend(
                polled
                    .iter()
                    .map(|fd: &OwnedFd| PollFd::new(fd, PollFlags::empty())),
            );
            let tick = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 20_000_000,
            };
            // A store that was cleared meanwhile is looked at again at the next tick.
            if poll(&mut fds, Some(&tick)).is_err() {
                continue;
            }
            let flags: Vec<_> = fds.iter().map(PollFd::revents).collect();
            drop(fds);
            if !flags[0].is_empty() {
                return;
            }
            // Messages first, as systemd.
            let mut barriers = Vec::new();
            let mut state = self.lock();
            while let Ok(Some(datagram)) = Datagram::receive(socket) {
                barriers.extend(state.obey(datagram));
            }
            if flags[2..].iter().any(|flags| !flags.is_empty()) {
                state.drop_ended();
            }
            drop(state);
            self.changed.notify_all();
            // Whoever waits finds all done that came before.
            drop(barriers);
        }
    }
}

impl State {
    /// Does what a message says. Returns the descriptors of `BARRIER=1`, which are to be closed then.
    fn obey(&mut self, datagram: Datagram) -> Vec<OwnedFd> {
        let at = Instant::now();
        if datagram.has("BARRIER=1") {
            if datagram.lines.len() > 1 {
                self.warn("BARRIER=1 with other assignments, which are ignored");
            }
            if datagram.fds.len() != 1 {
                self.warn("BARRIER=1 without exactly one descriptor");
            }
            return datagram.fds;
        }
        for line in &datagram.lines {
            if let Some((name, value)) = line.split_once('=') {
                self.seen.push(Notification {
                    name: name.into(),
                    value: value.into(),
                    at,
                });
            }
        }
        let name = datagram.value("FDNAME").map(str::to_owned);
        let valid = name.as_deref().filter(|name| is_valid_name(name));
        if datagram.has("FDSTOREREMOVE=1") {
            match valid {
                Some(name) => drop(self.store.remove(name)),
                None => self.warn("FDSTOREREMOVE=1 without a valid FDNAME="),
            }
        } else if datagram.has("FDSTORE=1") {
            if name.is_some() && valid.is_none() {
                self.warn("FDNAME= is no valid name");
            }
            let polled = !datagram.has("FDPOLL=0");
            for fd in datagram.fds {
                if self.store.add(valid, fd, polled) == Added::Full {
                    self.warn("more descriptors than FileDescriptorStoreMax=");
                    break;
                }
            }
        }
        Vec::new()
    }

    fn warn(&mut self, text: &str) {
        self.warnings.push(text.to_owned());
    }

    /// Closes what is kept and has ended.
    fn drop_ended(&mut self) {
        let flags = {
            let fds = self.store.polled();
            let mut fds: Vec<_> = fds
                .map(|kept| PollFd::new(&kept.fd, PollFlags::empty()))
                .collect();
            let now = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            if poll(&mut fds, Some(&now)).is_err() {
                return;
            }
            fds.iter().map(PollFd::revents).collect::<Vec<_>>()
        };
        self.store.drop_ended(&flags);
    }
}
