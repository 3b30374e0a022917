// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Clients of a device beside its front-end, on a listening socket of its own.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use vmm_sys_util::epoll::EventSet;

use super::DeviceContext;
use crate::backend::lock::lock;
use crate::backend::logging::RateLimitedLog;
use crate::backend::sockets::is_passing;

/// The program's further listening sockets, by name, until the device takes them. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct DeviceListeners(Arc<Mutex<Vec<NamedListener>>>);

type NamedListener = (&'static str, Arc<UnixListener>);

impl DeviceListeners {
    pub(crate) fn add(&self, name: &'static str, listener: Arc<UnixListener>) {
        lock(&self.0).push((name, listener));
    }

    pub(super) fn take(&self, name: &str) -> Option<NamedListener> {
        let mut listeners = lock(&self.0);
        let index = listeners.iter().position(|(other, _)| *other == name)?;
        Some(listeners.swap_remove(index))
    }
}

/// Accepts clients on a listening socket, a limited number at the same time: more are closed at once.
/// [`DeviceContext::listen`] makes it.
///
/// The device says when a client is gone ([`ClientListener::leave`]). A program whose sockets the service manager
/// passed ends when the last one left, if no front-end has connected so far: a later client starts it again.
pub struct ClientListener {
    context: DeviceContext,
    name: &'static str,
    listener: Arc<UnixListener>,
    token: u16,
    max: usize,
    count: usize,
    /// Whether the event loop tells of clients that wait.
    watched: bool,
    /// Given up to accept, and close, a client when the process has no descriptor left. A client that stays in the
    /// queue would wake the worker for ever.
    spare: Option<OwnedFd>,
    log: RateLimitedLog,
}

impl ClientListener {
    pub(super) fn watch(
        context: DeviceContext,
        name: &'static str,
        listener: Arc<UnixListener>,
        token: u16,
        max: usize,
    ) -> io::Result<Self> {
        context.watch(listener.as_fd(), EventSet::IN, token)?;
        Ok(Self {
            context,
            name,
            spare: Some(listener.as_fd().try_clone_to_owned()?),
            listener,
            token,
            max,
            count: 0,
            watched: true,
            log: RateLimitedLog::default(),
        })
    }

    /// Accepts a client that waits. Call it when the token's event comes, which comes again while more wait. The
    /// connection does not block; it counts until [`ClientListener::leave`].
    pub fn accept(&mut self) -> Option<UnixStream> {
        let client = match self.listener.accept() {
            Ok((client, _)) => client,
            Err(e) if is_passing(&e) => return None,
            Err(e) => {
                self.refuse(&e);
                return None;
            }
        };
        if self.count >= self.max {
            self.log.warn(format_args!(
                "{}: turned away a client: {} are connected, and no more are served",
                self.name, self.count
            ));
            return None;
        }
        if let Err(e) = client.set_nonblocking(true) {
            self.log
                .warn(format_args!("{}: cannot serve a client: {e}", self.name));
            return None;
        }
        self.count += 1;
        self.context.client_came();
        Some(client)
    }

    /// A client that another process of the program accepted counts too, until [`ClientListener::leave`].
    pub(crate) fn adopt(&mut self) {
        self.count += 1;
        self.context.client_came();
    }

    /// A client that was accepted is gone.
    pub fn leave(&mut self) {
        let Some(count) = self.count.checked_sub(1) else {
            return;
        };
        self.count = count;
        self.restore();
        self.context.client_left();
    }

    /// How many clients are connected.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Closes a client that cannot be accepted for want of descriptors.
    fn refuse(&mut self, error: &io::Error) {
        self.log.warn(format_args!(
            "{}: cannot accept a client: {error}",
            self.name
        ));
        let closed = self.spare.take().is_some() && self.listener.accept().is_ok();
        self.spare = self.listener.as_fd().try_clone_to_owned().ok();
        if closed || !self.watched {
            return;
        }
        // Fails only for a descriptor that is not watched.
        let _ = self.context.unwatch(self.listener.as_fd());
        self.watched = false;
    }

    /// Accepts again after a failure, now that a descriptor is free.
    fn restore(&mut self) {
        if self.spare.is_none() {
            self.spare = self.listener.as_fd().try_clone_to_owned().ok();
        }
        if self.watched {
            return;
        }
        let watched = self
            .context
            .watch(self.listener.as_fd(), EventSet::IN, self.token);
        self.watched = watched.is_ok();
    }
}

#[cfg(test)]
mod tests;
