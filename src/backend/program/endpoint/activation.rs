//! Descriptors that were passed: by `--fd`, or by socket activation (sd_listen_fds(3)).

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use conventions::FIRST_PASSED_FD;
use listenfd::ListenFd;
use rustix::net::{AddressFamily, SocketType};

use super::{Endpoint, SocketError, refuse_waiting};
use crate::backend::service::notify;

/// The value of `--fd` in a command line that cannot be parsed.
pub(super) fn named_fd<I>(arguments: I) -> Option<RawFd>
where
    I: IntoIterator<Item = OsString>,
{
    let mut arguments = arguments.into_iter().skip(1);
    while let Some(argument) = arguments.next() {
        let value = match argument.to_str() {
            Some("--") => return None,
            Some("--fd") => arguments.next()?,
            Some(argument) => match argument.strip_prefix("--fd=") {
                Some(value) => value.into(),
                None => continue,
            },
            None => continue,
        };
        return value.to_str()?.parse().ok().filter(|fd| *fd >= 0);
    }
    None
}

/// Takes the descriptor that `--fd` names, if it is open.
pub(super) fn open(number: RawFd) -> Result<OwnedFd, SocketError> {
    // SAFETY: the descriptor is only asked whether it is open, at the very start of the program,
    // when nothing else can open or close one.
    let given = unsafe { BorrowedFd::borrow_raw(number) };
    if rustix::io::fcntl_getfd(given.as_fd()).is_err() {
        return Err(SocketError::NotOpen(number));
    }
    // SAFETY: it is open, and the conventions hand it to this program to keep: nothing here has
    // opened a descriptor yet, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The descriptors of socket activation.
pub(super) struct Activation {
    passed: ListenFd,
    names: Vec<String>,
    /// How many sockets were passed, without the kept connection.
    sockets: usize,
}

impl Activation {
    pub(super) fn take() -> Self {
        // Without LISTEN_PID listenfd takes the descriptors; sd_listen_fds(3) does not.
        let addressed = std::env::var_os("LISTEN_PID").is_some_and(|pid| !pid.is_empty());
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let passed = ListenFd::from_env();
        let passed = if addressed { passed } else { ListenFd::empty() };
        Self {
            sockets: passed.len(),
            names: names.split(':').map(str::to_owned).collect(),
            passed,
        }
    }

    /// The connection that an earlier run had kept. It follows the sockets.
    pub(super) fn take_kept(&mut self) -> Option<UnixStream> {
        let index = self
            .names
            .iter()
            .position(|name| name == notify::FRONT_END)
            .filter(|index| *index > 0)?;
        let family = i32::from(AddressFamily::UNIX.as_raw());
        let stream = SocketType::STREAM.as_raw() as i32;
        let kept = self
            .passed
            .take_custom(index, family, stream, "unix stream socket");
        let fd: OwnedFd = kept.ok().flatten()?;
        self.sockets = index;
        match Endpoint::adopt(fd.as_raw_fd(), fd) {
            Ok(Endpoint::Connected(front_end)) => Some(front_end),
            _ => None,
        }
    }

    pub(super) fn endpoint(mut self) -> Result<Endpoint, SocketError> {
        for index in (0..self.sockets).filter(|_| self.sockets > 1) {
            let Ok(Some(listener)) = self.passed.take_unix_listener(index) else {
                continue;
            };
            if listener.set_nonblocking(true).is_ok() {
                refuse_waiting(&listener);
            }
        }
        Endpoint::adopt(FIRST_PASSED_FD, self.socket()?)
    }

    /// The only socket.
    pub(super) fn socket(mut self) -> Result<OwnedFd, SocketError> {
        match self.sockets {
            0 => Err(SocketError::None),
            1 => {
                let family = i32::from(AddressFamily::UNIX.as_raw());
                let stream = SocketType::STREAM.as_raw() as i32;
                self.passed
                    .take_custom(0, family, stream, "unix stream socket")
                    .map_err(|_| SocketError::NotUnixStream(FIRST_PASSED_FD))?
                    .ok_or(SocketError::None)
            }
            several => Err(SocketError::Several(several)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fd_is_found_in_an_invalid_command_line() {
        let fd = |line: &str| named_fd(line.split(' ').map(OsString::from));
        assert_eq!(fd("gpu --bad --fd=3 stray"), Some(3));
        assert_eq!(fd("gpu --fd 4 --fd=5"), Some(4));
        for line in [
            "gpu",
            "gpu --fd",
            "gpu --fd=x",
            "gpu --fd=-1",
            "gpu -- --fd=3",
        ] {
            assert_eq!(fd(line), None, "{line}");
        }
    }
}
