// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The descriptors of socket activation (sd_listen_fds(3)).

use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use conventions::FIRST_PASSED_FD;
use listenfd::ListenFd;
use rustix::io::Errno;

use super::error::SocketError;
use super::passed::{Adopted, Passed, open};
use crate::backend::continuity::{self, Descriptors};
use crate::backend::service::notify;

/// The name of the vhost-user socket (`FileDescriptorName=`), where others are passed beside it.
const VHOST_USER: &str = "vhost-user";

/// What socket activation passed, until it is taken: by name, by number, or as what is left. The order says nothing.
#[derive(Debug)]
pub(crate) struct PassedSockets {
    descriptors: Vec<Descriptor>,
    /// How many descriptors socket activation passed.
    count: usize,
    /// A front-end that an earlier run accepted, and the service manager kept.
    kept: Option<UnixStream>,
    /// What an earlier run left of its state.
    state: Option<Descriptors>,
    /// All that listen, taken or not, and those that options name.
    shared: Vec<Arc<UnixListener>>,
}

#[derive(Debug)]
struct Descriptor {
    number: RawFd,
    name: String,
    socket: Result<Adopted, SocketError>,
}

impl Descriptor {
    /// The Unix socket; an error for a TCP socket.
    fn unix(self) -> Result<Passed, SocketError> {
        self.socket?.unix(self.number)
    }
}

/// A listening socket that was passed.
#[derive(Debug)]
pub(super) struct PassedListener {
    pub(super) listener: Arc<UnixListener>,
    /// Whether it is a TCP socket.
    pub(super) is_port: bool,
}

impl PassedSockets {
    /// Takes all descriptors. Clears `LISTEN_*` in any case.
    pub(crate) fn take() -> Self {
        // Without LISTEN_PID listenfd takes the descriptors; sd_listen_fds(3) does not.
        let addressed = std::env::var_os("LISTEN_PID").is_some_and(|pid| !pid.is_empty());
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let passed = ListenFd::from_env();
        let count = if addressed { passed.len() } else { 0 };
        let names = names.split(':').chain(std::iter::repeat(""));
        let mut sockets = Self {
            descriptors: Vec::new(),
            count,
            kept: None,
            state: None,
            shared: Vec::new(),
        };
        let mut stored = Vec::new();
        for (number, name) in (FIRST_PASSED_FD..).zip(names).take(count) {
            let fd = open("fd", number);
            // What was kept follows the sockets.
            match fd {
                Ok(fd) if is_stored(name) && number != FIRST_PASSED_FD => stored.push((name, fd)),
                fd => sockets.descriptors.push(Descriptor {
                    number,
                    name: name.to_owned(),
                    socket: fd.and_then(|fd| Adopted::take(number, fd)),
                }),
            }
        }
        sockets.take_stored(stored);
        for descriptor in &sockets.descriptors {
            let socket = descriptor.socket.as_ref().ok();
            let listener = socket.and_then(Adopted::listener);
            sockets.shared.extend(listener.map(Arc::clone));
        }
        sockets
    }

    /// Takes what an earlier run had kept.
    fn take_stored(&mut self, mut stored: Vec<(&str, OwnedFd)>) {
        let mut take = |wanted| {
            let index = stored.iter().position(|(name, _)| *name == wanted);
            index.map(|index| stored.swap_remove(index).1)
        };
        let front_end = take(notify::FRONT_END).map(|fd| Adopted::take(fd.as_raw_fd(), fd));
        if let Some(Ok(Adopted::Unix(Passed::Connected(front_end)))) = front_end {
            self.kept = Some(front_end);
        }
        let state = continuity::NAMES.map(take);
        if let [Some(state), Some(images), Some(incoming), Some(outgoing)] = state {
            let kept = [state, images, incoming, outgoing];
            for fd in &kept {
                // Only a descriptor that is not open could fail.
                let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
            }
            self.state = Some(Descriptors::from_kept(kept));
        }
    }

    /// Whether socket activation passed any descriptor.
    pub(super) fn is_activated(&self) -> bool {
        self.count > 0
    }

    /// The connection that an earlier run had kept, once.
    pub(crate) fn take_kept(&mut self) -> Option<UnixStream> {
        self.kept.take()
    }

    /// What an earlier run left of its state, once.
    pub(crate) fn take_state(&mut self) -> Option<Descriptors> {
        self.state.take()
    }

    /// The listening sockets, taken or not, which outlive this program: for [`refuse_waiting`](super::refuse_waiting).
    pub(crate) fn into_shared(self) -> Vec<Arc<UnixListener>> {
        self.shared
    }

    /// Takes the descriptor that `--OPTION` names: one of socket activation, or another that is open.
    pub(crate) fn take_fd(&mut self, option: &str, number: RawFd) -> Result<Passed, SocketError> {
        let mut numbers = self.descriptors.iter();
        if let Some(index) = numbers.position(|descriptor| descriptor.number == number) {
            return self.descriptors.remove(index).unix();
        }
        let activated = usize::try_from(number - FIRST_PASSED_FD);
        if activated.is_ok_and(|index| index < self.count) || self.has(number) {
            return Err(SocketError::Twice(number));
        }
        let socket = Adopted::take(number, open(option, number)?)?.unix(number)?;
        if let Passed::Listening(listener) = &socket {
            self.shared.push(Arc::clone(listener));
        }
        Ok(socket)
    }

    fn has(&self, number: RawFd) -> bool {
        let mut numbers = self.shared.iter().map(|listener| listener.as_raw_fd());
        numbers.any(|taken| taken == number)
    }

    /// Takes the listening socket `name`, if it was passed.
    pub(super) fn take_named(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Arc<UnixListener>>, SocketError> {
        let mut named = self.descriptors.iter();
        let Some(index) = named.position(|descriptor| descriptor.name == name) else {
            return Ok(None);
        };
        if named.any(|descriptor| descriptor.name == name) {
            return Err(SocketError::Ambiguous(name));
        }
        let descriptor = self.descriptors.remove(index);
        let number = descriptor.number;
        Ok(Some(descriptor.unix()?.listening(number)?))
    }

    /// Takes the vhost-user socket: the one of this name, or the only one that is left. No other may be left, whose
    /// clients would wait for ever.
    pub(crate) fn take_vhost_user(&mut self) -> Result<Passed, SocketError> {
        self.take_only()?.unix()
    }

    fn take_only(&mut self) -> Result<Descriptor, SocketError> {
        let mut left = std::mem::take(&mut self.descriptors);
        let count = left.len();
        let others = left
            .iter()
            .filter(|descriptor| descriptor.name != VHOST_USER);
        let others: Vec<_> = others.map(|descriptor| descriptor.name.clone()).collect();
        match (left.pop(), others.first()) {
            (None, _) => Err(SocketError::None),
            (Some(only), _) if left.is_empty() => Ok(only),
            (Some(_), Some(other)) if others.len() + 1 == count => {
                Err(SocketError::Unknown(other.clone()))
            }
            (Some(_), _) => Err(SocketError::Several(count)),
        }
    }

    /// Takes all sockets in their order, which must listen.
    pub(super) fn take_all(&mut self) -> Result<Vec<PassedListener>, SocketError> {
        let all = self.descriptors.drain(..);
        all.map(|descriptor| {
            Ok(match descriptor.socket? {
                Adopted::Unix(socket) => PassedListener {
                    listener: socket.listening(descriptor.number)?,
                    is_port: false,
                },
                Adopted::Port(listener) => PassedListener {
                    listener,
                    is_port: true,
                },
                Adopted::Packets(_) => {
                    return Err(SocketError::NotUnixStream(descriptor.number));
                }
            })
        })
        .collect()
    }
}

/// Whether the service manager keeps descriptors of this name for the program.
fn is_stored(name: &str) -> bool {
    name == notify::FRONT_END || continuity::NAMES.contains(&name)
}

/// The only socket of socket activation, for a program that hands it on.
///
/// # Errors
/// Where there is not exactly one Unix socket.
pub fn activated_socket() -> Result<OwnedFd, SocketError> {
    // All else that has it is dropped by this statement.
    let Descriptor { number, socket, .. } = PassedSockets::take().take_only()?;
    let fd: OwnedFd = match socket? {
        Adopted::Unix(Passed::Listening(listener)) | Adopted::Packets(listener) => {
            Arc::into_inner(listener).ok_or(SocketError::None)?.into()
        }
        Adopted::Unix(Passed::Connected(stream)) => stream.into(),
        Adopted::Port(_) => return Err(SocketError::NotUnixStream(number)),
    };
    // The program that gets it expects the usual.
    let unusable = |e: Errno| SocketError::Descriptor(fd.as_raw_fd(), e.into());
    rustix::io::ioctl_fionbio(&fd, false).map_err(unusable)?;
    Ok(fd)
}
