// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One vhostctl at a time changes settings.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use crate::verbs::error::Error;

/// Locked while settings are read and changed. Not one of the drop-ins: everybody may read those, and so lock them.
const LOCK: &str = "/run/vhostctl.lock";

/// Waits until no other vhostctl reads settings to change them: two that give a device to two VMs would otherwise
/// both find it free. `None` for a user who may not change them, whom a later step tells so.
pub(crate) fn lock() -> Result<Option<File>, Error> {
    let options = OpenOptions::new()
        .create(true)
        .write(true)
        .mode(0o600)
        .clone();
    let locked = options.open(LOCK).and_then(|file| {
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    });
    match locked {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(Error::file("lock", Path::new(LOCK), error)),
    }
}
