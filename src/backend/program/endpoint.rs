// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The vhost-user socket, in its three forms: a path to listen on, a listening socket that was passed (systemd), and
//! a connected socket that was passed (libvirt); and the program's further listening sockets.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use super::options::ConnectionOptions;
use crate::backend::continuity::Descriptors;
use crate::backend::device::DeviceListeners;
use crate::backend::sockets::{
    Further, ListenerOptions, Passed, PassedSockets, PlannedListener, SocketError, SocketFile,
    plan_further,
};

/// The sockets that the options or socket activation name, found before the program opens any file, which could get
/// the number of one.
#[derive(Debug)]
pub(super) struct Sockets {
    vhost_user: VhostUserSocket,
    further: Further,
}

/// The sockets, and all listening ones that were passed, which outlive this program.
pub(super) struct Found {
    pub(super) sockets: Result<Sockets, SocketError>,
    /// What an earlier run left of its state.
    pub(super) state: Option<Descriptors>,
    pub(super) shared: Vec<Arc<UnixListener>>,
}

/// The vhost-user socket: passed, or the path to make it at.
#[derive(Debug)]
enum VhostUserSocket {
    Planned(PlannedListener),
    Passed(Passed, Option<UnixStream>),
}

/// A socket to serve on.
#[derive(Debug)]
pub(super) enum Endpoint {
    /// Made by this program: other front-ends are turned away at once.
    Ours(Arc<UnixListener>, SocketFile),
    /// Passed by another process: other front-ends are for the next start of the program.
    Listening {
        listener: Arc<UnixListener>,
        /// A front-end that waited in an earlier run, and the service manager kept.
        kept: Option<UnixStream>,
    },
    Connected(UnixStream),
}

impl Sockets {
    /// Finds the sockets. Clears `LISTEN_*` in any case.
    pub(super) fn find(connection: &ConnectionOptions, further: &[ListenerOptions]) -> Found {
        let mut passed = PassedSockets::take();
        Found {
            sockets: Self::find_among(connection, further, &mut passed),
            state: passed.take_state(),
            shared: passed.into_shared(),
        }
    }

    fn find_among(
        connection: &ConnectionOptions,
        further: &[ListenerOptions],
        passed: &mut PassedSockets,
    ) -> Result<Self, SocketError> {
        let kept = passed.take_kept();
        // First: if another cannot be found, those who wait on this one are turned away.
        let by_fd = connection.fd.map(|fd| passed.take_fd("fd", fd));
        let further = plan_further(further, passed)?;
        let vhost_user = match (&connection.socket_path, by_fd) {
            (Some(path), _) => {
                VhostUserSocket::Planned(PlannedListener::at_path("socket-path", path))
            }
            (None, Some(by_fd)) => VhostUserSocket::Passed(by_fd?, kept),
            (None, None) => VhostUserSocket::Passed(passed.take_vhost_user()?, kept),
        };
        Ok(Self {
            vhost_user,
            further,
        })
    }

    /// Whether the vhost-user socket was passed and listens: it is there for the next run too.
    pub(super) fn is_shared(&self) -> bool {
        match &self.vhost_user {
            VhostUserSocket::Planned(planned) => planned.shared().is_some(),
            VhostUserSocket::Passed(passed, _) => matches!(passed, Passed::Listening(_)),
        }
    }

    /// Makes the sockets that have to be made: the vhost-user socket last, at which a front-end may be waiting for
    /// the file.
    pub(super) fn listen(self) -> Result<(Endpoint, FurtherSockets), SocketError> {
        let mut further = FurtherSockets::default();
        for (name, planned) in self.further {
            further.add(name, planned)?;
        }
        let endpoint = match self.vhost_user {
            VhostUserSocket::Planned(planned) => Endpoint::listen(planned)?,
            VhostUserSocket::Passed(passed, kept) => Endpoint::passed(passed, kept),
        };
        Ok((endpoint, further))
    }
}

/// The further listening sockets, for the device to accept clients on.
#[derive(Debug, Default)]
pub(super) struct FurtherSockets {
    /// Removed at the end.
    files: Vec<SocketFile>,
    listeners: DeviceListeners,
    passed: usize,
}

impl FurtherSockets {
    fn add(&mut self, name: &'static str, planned: PlannedListener) -> Result<(), SocketError> {
        let (listener, file) = planned.listen()?.into_parts();
        match file {
            Some(file) => self.files.push(file),
            None => self.passed += 1,
        }
        self.listeners.add(name, listener);
        Ok(())
    }

    /// The files that are to be removed at the end.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(SocketFile::path)
    }

    /// The sockets, for the device.
    pub(super) fn listeners(&self) -> DeviceListeners {
        self.listeners.clone()
    }

    /// Whether there are any, and the service manager passed them all: a client that comes later starts the program
    /// again.
    pub(super) fn are_passed(&self) -> bool {
        self.files.is_empty() && self.passed > 0
    }
}

impl Endpoint {
    fn listen(planned: PlannedListener) -> Result<Self, SocketError> {
        Ok(match planned.listen()?.into_parts() {
            (listener, Some(file)) => Self::Ours(listener, file),
            (listener, None) => Self::passed(Passed::Listening(listener), None),
        })
    }

    fn passed(passed: Passed, kept: Option<UnixStream>) -> Self {
        match passed {
            Passed::Listening(listener) => Self::Listening { listener, kept },
            Passed::Connected(stream) => Self::Connected(stream),
        }
    }

    /// The file that is to be removed at the end.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::Ours(_, file) => Some(file.path()),
            Self::Listening { .. } | Self::Connected(_) => None,
        }
    }

    /// Where it is, in words.
    pub(super) fn describe(&self) -> String {
        let address = match self {
            Self::Ours(_, file) => return file.path().display().to_string(),
            Self::Listening { listener, .. } => listener.local_addr(),
            Self::Connected(stream) => stream.local_addr(),
        };
        address
            .ok()
            .and_then(|address| address.as_pathname().map(|path| path.display().to_string()))
            .unwrap_or_else(|| "an unnamed socket".to_owned())
    }
}
