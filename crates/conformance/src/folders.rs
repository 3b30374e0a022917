// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The temporary folders of trials.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use tempfile::TempDir;

/// The folders of trials that run.
static FOLDERS: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn folders() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    FOLDERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the folders of all trials, and keeps others from being made: the process is about to end.
pub(crate) fn remove_folders() {
    let folders = folders();
    for folder in folders.iter() {
        remove(folder);
    }
    std::mem::forget(folders);
}

/// The folder of a trial, which goes with it.
#[derive(Debug)]
pub(crate) struct TrialFolder(TempDir);

impl TrialFolder {
    pub(crate) fn new() -> io::Result<Self> {
        let mut folders = folders();
        let folder = tempfile::Builder::new()
            .prefix("vhost-check-")
            .tempdir_in(parent(std::env::temp_dir()))?;
        folders.insert(folder.path().to_owned());
        Ok(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TrialFolder {
    fn drop(&mut self) {
        let mut folders = folders();
        // Under the lock: remove_folders removes it, or it is gone.
        remove(self.path());
        folders.remove(self.path());
    }
}

/// What could not be removed.
static LEFT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// The folders of checks of this process that could not be removed.
pub(crate) fn left() -> Vec<PathBuf> {
    let left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
    left.iter().cloned().collect()
}

/// Removes a folder, also where the program took away the rights to folders in it.
fn remove(folder: &Path) {
    if fs::remove_dir_all(folder).is_ok() {
        return;
    }
    open_up(folder);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
            left.insert(folder.to_owned());
        }
        _ => {}
    }
}

/// Gives the owner all rights to a folder and those in it; links are not followed.
fn open_up(folder: &Path) {
    let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            open_up(&entry.path());
        }
    }
}

/// The longest path of a folder for trials: a socket in a folder of it has a path of 107 bytes at most, also one that the
/// program makes.
const PARENT_MAX: usize = 48;

/// The folder for trials: $TMPDIR, unless no socket could be made in it.
fn parent(temporary: PathBuf) -> PathBuf {
    match temporary.as_os_str().len() > PARENT_MAX {
        true => "/tmp".into(),
        false => temporary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root needs no rights, so that it removes these at once.
    #[test]
    fn folders_without_rights_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "").unwrap();
        for path in [&inner, &folder.path().join("outer")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove(folder.path());
        assert!(!folder.path().exists());
        assert!(!left().contains(&folder.path().to_owned()));
    }
}
