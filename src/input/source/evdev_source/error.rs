//! Why an evdev device cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::backend::HelperError;

/// Why an evdev device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EvdevOpenError {
    /// There is no such file.
    #[error("there is no input device {}: see `vhostctl list-devices`", .0.display())]
    Missing(PathBuf),
    /// There is no such file, and no start before found it, which could tell what to wait for.
    #[error(
        "there is no input device {}, and it is not known what it is, as no start has found it yet: plug it in, and see `vhostctl list-devices`",
        .0.display()
    )]
    NeverSeen(PathBuf),
    /// There is no such file, and it cannot be read what it was.
    #[error(
        "there is no input device {}, and {} does not say what it is: {error}",
        .path.display(), .file.display()
    )]
    Description {
        /// The device.
        path: PathBuf,
        /// The file that says what it was.
        file: PathBuf,
        /// Why it cannot be read.
        error: String,
    },
    /// The user has no permission to read it.
    #[error(
        "no permission to open the input device {}: run as a member of the group that owns it (usually \"input\"); a systemd unit also needs DeviceAllow= for it",
        .0.display()
    )]
    Denied(PathBuf),
    /// The file does not answer evdev's ioctls.
    #[error("{} is not an evdev device such as /dev/input/event*: {error}", .path.display())]
    NotEvdev {
        /// The file.
        path: PathBuf,
        /// The error of the ioctl.
        #[source]
        error: io::Error,
    },
    /// Its name, its serial number or where it is plugged in is longer than the kernel's own devices have it.
    #[error("the input device {} has a name, serial number or port of more than 255 bytes", .0.display())]
    LongName(PathBuf),
    /// Another process has grabbed it (`EVIOCGRAB`).
    #[error(
        "the input device {} is grabbed by another process, perhaps for another VM: end that one, or use --no-grab to share it",
        .0.display()
    )]
    Grabbed(PathBuf),
    /// The process that opens it again cannot be started.
    #[error(transparent)]
    Opener(#[from] HelperError),
    /// Any other error.
    #[error("cannot open the input device {}: {error}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        #[source]
        error: io::Error,
    },
}
