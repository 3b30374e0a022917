// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Opens the node of an evdev device.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens `path` for reading, and for writing as well if the user may: LEDs and sounds need that.
///
/// # Errors
/// Those of `open(2)`.
pub(super) fn open_file(path: &Path) -> io::Result<File> {
    let open = |writable: bool| {
        // A terminal given by mistake must not become the program's own.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        OpenOptions::new()
            .read(true)
            .write(writable)
            .custom_flags(flags.bits() as i32)
            .open(path)
    };
    open(true).or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => open(false),
        _ => Err(error),
    })
}
