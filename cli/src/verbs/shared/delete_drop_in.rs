// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Deleting drop-ins of ours.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::verbs::error::Error;

/// Deletes one of our files, and its folder if nothing else is in it.
pub(crate) fn delete(file: &Path) -> Result<(), Error> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(Error::file("delete", file, error));
        }
        _ => {}
    }
    if let Some(folder) = file.parent() {
        // It does not exist, or has other drop-ins.
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}
