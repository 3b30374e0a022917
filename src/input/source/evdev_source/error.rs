// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Why an evdev device cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::backend::HelperError;
use crate::input::records::RecordError;

use super::address::EvdevAddress;

/// Why an evdev device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EvdevOpenError {
    /// There is no such file.
    #[error("there is no input device {0}: see `vhostctl list-devices`")]
    Missing(EvdevAddress),
    /// There is no such file, and no start before found it, which could tell what to wait for.
    #[error(
        "there is no input device {0}, and it is not known what it is, as no start has found it yet: plug it in, and see `vhostctl list-devices`"
    )]
    NeverSeen(EvdevAddress),
    /// There is no such file, and it cannot be read what it was.
    #[error("there is no input device {address}, and {} does not say what it is: {error}", .file.display())]
    Description {
        /// The device.
        address: EvdevAddress,
        /// The file that says what it was.
        file: PathBuf,
        /// Why it cannot be read.
        error: String,
    },
    /// Nothing tells several devices apart.
    #[error(
        "the input devices {} all match {address}: add the serial number to --evdev-match=, name one by --evdev-name= or --evdev-interface=, or use --evdev-path=",
        .nodes.join(" and ")
    )]
    Several {
        /// What they match.
        address: EvdevAddress,
        /// Their nodes, and what they say of themselves.
        nodes: Vec<String>,
    },
    /// The user has no permission to read it.
    #[error(
        "no permission to open the input device {0}: run as a member of the group that owns it (usually \"input\"); a systemd unit also needs DeviceAllow= for it"
    )]
    Denied(EvdevAddress),
    /// The file does not answer evdev's ioctls.
    #[error("{address} is not an evdev device such as /dev/input/event*: {error}")]
    NotEvdev {
        /// The file.
        address: EvdevAddress,
        /// The error of the ioctl.
        #[source]
        error: io::Error,
    },
    /// Its name, its serial number or where it is plugged in is longer than the kernel's own devices have it.
    #[error("the input device {0} has a name, serial number or port of more than 255 bytes")]
    LongName(EvdevAddress),
    /// Another process has grabbed it (`EVIOCGRAB`).
    #[error(
        "the input device {0} is grabbed by another process, perhaps for another VM: end that one, or use --no-grab to share it"
    )]
    Grabbed(EvdevAddress),
    /// The process that opens it again cannot be started.
    #[error(transparent)]
    Opener(#[from] HelperError),
    /// The state that the process before this one left cannot be used.
    #[error("cannot go on with the state that the process before left: {0}")]
    State(#[from] RecordError),
    /// Any other error.
    #[error("cannot open the input device {address}: {error}")]
    Io {
        /// The device.
        address: EvdevAddress,
        /// The error.
        #[source]
        error: io::Error,
    },
}

/// Why the device at `address` cannot be opened.
pub(super) fn cannot_open(address: &EvdevAddress, error: io::Error) -> EvdevOpenError {
    let address = address.clone();
    match error.kind() {
        io::ErrorKind::NotFound => EvdevOpenError::Missing(address),
        io::ErrorKind::PermissionDenied => EvdevOpenError::Denied(address),
        io::ErrorKind::IsADirectory => EvdevOpenError::NotEvdev { address, error },
        _ => EvdevOpenError::Io { address, error },
    }
}
