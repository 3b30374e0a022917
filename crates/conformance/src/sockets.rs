// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The sockets at which programs listen: how they are found and connected to.

use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use frontend::Deadline;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::outcome::{Flaw, fails};
use crate::process::Backend;

/// Connects to the socket at `path`, or else to the only one in its folder: some programs add a number to the path.
pub(crate) fn connect(
    backend: &mut Backend,
    path: &Path,
    deadline: &Deadline,
) -> Result<UnixStream, Flaw> {
    loop {
        if let Ok(stream) = connect_now(path) {
            return Ok(stream);
        }
        if let [only] = &sockets_beside(path)[..] {
            if let Ok(stream) = connect_now(only) {
                return Ok(stream);
            }
        }
        if let Some(end) = backend.wait_end(&Deadline::after(Duration::from_millis(2)))? {
            if backend.others().is_empty() {
                return fails(format!("it ends with {end} before it can be connected to"));
            }
        }
        if deadline.passed() {
            return fails(format!("it does not listen at {}", path.display()));
        }
    }
}

/// Connects without waiting: a listener whose queue is full would keep connect(2) for ever.
pub(crate) fn connect_now(path: &Path) -> io::Result<UnixStream> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    // What is sent and received later has limits of its own.
    Ok(socket.into())
}

/// All sockets in the folder of `path`.
pub(crate) fn sockets_beside(path: &Path) -> Vec<PathBuf> {
    let entries = path.parent().and_then(|folder| fs::read_dir(folder).ok());
    let paths = entries.into_iter().flatten().flatten();
    let is_socket =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    paths.map(|entry| entry.path()).filter(is_socket).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn full_queue_of_a_listener_does_not_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let waiting: Vec<_> = (0..8).map(|_| connect_now(&path)).collect();
        assert!(waiting[0].is_ok());
        let full = waiting.into_iter().find_map(Result::err).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
