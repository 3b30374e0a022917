// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Sockets that the program makes at a path, and removes at its end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use conventions::SOCKET_PATH_MAX;
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};

use super::error::{SocketError, SocketOption};

/// Makes a socket at the path. Replaces a socket that nobody listens on; leaves other files alone.
pub(super) fn listen(option: &SocketOption) -> Result<(UnixListener, SocketFile), SocketError> {
    let path = &*option.path;
    let failed = |attempt| {
        move |error| SocketError::Path {
            option: option.clone(),
            attempt,
            error,
        }
    };
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return Err(SocketError::TooLong(option.clone()));
    }
    let folder = match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    };
    let no_folder = || SocketError::NoFolder(option.clone(), folder.to_owned());
    match fs::metadata(folder) {
        Ok(there) if there.is_dir() => {}
        Ok(_) => return Err(no_folder()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(no_folder()),
        Err(e) => return Err(failed("look into its folder")(e)),
    }
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed("look at what lies there")(e)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::NotASocket(option.clone()));
        }
        Ok(_) if is_alive(path).map_err(failed("tell whether another process serves on it"))? => {
            return Err(SocketError::InUse(option.clone()));
        }
        Ok(_) => {
            log::info!("replacing the stale socket {}", path.display());
            fs::remove_file(path).map_err(failed("replace the stale socket"))?;
        }
    }
    let listener = UnixListener::bind(path).map_err(failed("listen"))?;
    let file = SocketFile::new(path).map_err(failed("look at the new socket"))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("set up the new socket"))?;
    Ok((listener, file))
}

/// The socket file we made; gone when this is, unless another file lies there by then.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            // The program may be asked to leave its folder before the end.
            path: std::path::absolute(path)?,
            identity: identity(path)?,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !identity(&self.path).is_ok_and(|now| now == self.identity) {
            return;
        }
        if let Err(e) = fs::remove_file(&self.path) {
            log::warn!("cannot remove the socket {}: {e}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let there = fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

/// Whether a process still holds the socket at `path`. Connecting would tell, but would also be
/// that process's front-end; a datagram socket is refused by a live stream socket in another way
/// than by a dead one, and nobody notices.
fn is_alive(path: &Path) -> io::Result<bool> {
    let probe = net::socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    match net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::PROTOTYPE) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &Path) -> Result<(UnixListener, SocketFile), SocketError> {
        listen(&SocketOption {
            name: "socket-path".to_owned(),
            path: path.to_owned(),
        })
    }

    fn error(path: &Path) -> SocketError {
        at(path).map(drop).unwrap_err()
    }

    #[test]
    fn own_socket_is_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let (_listener, file) = at(&path).unwrap();
        assert_eq!(file.path(), path);
        assert!(path.exists());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn file_that_replaced_the_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let socket = at(&path).unwrap();
        fs::rename(&path, folder.path().join("kept")).unwrap();
        fs::write(&path, "mine").unwrap();
        drop(socket);
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn only_a_stale_socket_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let live = UnixListener::bind(&path).unwrap();
        assert!(matches!(error(&path), SocketError::InUse(_)));
        // The probe is not a connection.
        live.set_nonblocking(true).unwrap();
        assert_eq!(live.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(live);
        drop(at(&path).unwrap());

        fs::write(&path, "mine").unwrap();
        assert!(matches!(error(&path), SocketError::NotASocket(_)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }

    #[test]
    fn impossible_paths_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("x".repeat(SOCKET_PATH_MAX));
        assert!(matches!(error(&long), SocketError::TooLong(_)));
        let missing = folder.path().join("missing/gpu.sock");
        assert!(matches!(error(&missing), SocketError::NoFolder(..)));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(
            error(&file.join("gpu.sock")),
            SocketError::NoFolder(..)
        ));
        // A folder that is there and cannot be looked at is not called missing.
        let circle = folder.path().join("circle");
        std::os::unix::fs::symlink(&circle, &circle).unwrap();
        assert!(matches!(
            error(&circle.join("gpu.sock")),
            SocketError::Path { .. }
        ));
    }
}
