// SPDX-License-Identifier: Apache-2.0 OR MIT
//! One of our drop-ins: its content before, and the wanted content.

use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::Builder;

use crate::verbs::error::Error;
use crate::verbs::shared::delete_drop_in::delete;

/// The content of a drop-in before, and the wanted content; `None` for no file.
pub(super) struct DropInEdit {
    file: PathBuf,
    before: Option<String>,
    wanted: Option<String>,
    applied: bool,
}

impl DropInEdit {
    pub(super) fn new(file: PathBuf, wanted: Option<String>) -> Result<Self, Error> {
        Ok(Self {
            before: read(&file)?,
            file,
            wanted,
            applied: false,
        })
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Whether it existed before.
    pub(super) fn existed(&self) -> bool {
        self.before.is_some()
    }

    /// Whether the wanted content differs.
    pub(super) fn changes(&self) -> bool {
        self.before != self.wanted
    }

    /// Writes the wanted content. A file that has it stays as old as it is: settings that are newer than a program count as
    /// changed.
    pub(super) fn apply(&mut self) -> Result<(), Error> {
        if self.changes() {
            put(&self.file, self.wanted.as_deref())?;
        }
        self.applied = true;
        Ok(())
    }

    pub(super) fn is_applied(&self) -> bool {
        self.applied
    }

    /// Restores the content before.
    pub(super) fn undo(&self) -> Result<(), Error> {
        match self.applied && self.changes() {
            true => put(&self.file, self.before.as_deref()),
            false => Ok(()),
        }
    }

    /// What was done, for the user.
    pub(super) fn summary(&self) -> Option<String> {
        let what = match (&self.before, &self.wanted) {
            (None, None) => return None,
            (None, Some(_)) => "Created",
            (Some(_), None) => "Deleted",
            _ if self.changes() => "Replaced",
            _ => "Kept",
        };
        Some(format!("{what} {}.", self.file.display()))
    }
}

fn read(file: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file("read", file, error)),
    }
}

fn put(file: &Path, text: Option<&str>) -> Result<(), Error> {
    match text {
        Some(text) => write(file, text).map_err(|error| Error::file("write", file, error)),
        None => delete(file),
    }
}

/// Writes a file atomically.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let folder = file.parent().ok_or(ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    let written = (|| {
        let mode = fs::Permissions::from_mode(0o644);
        let mut temporary = Builder::new()
            .prefix(".vhostctl-")
            .permissions(mode)
            .tempfile_in(folder)?;
        temporary.write_all(text.as_bytes())?;
        temporary.as_file().sync_all()?;
        temporary.persist(file).map_err(|error| error.error)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Only if it is empty, hence ours.
        let _ = fs::remove_dir(folder);
    }
    written
}
