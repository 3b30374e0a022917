// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The files of the repository, in memory, so that tests can check files that do not exist.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Text files by their path below the root of the repository.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    files: BTreeMap<PathBuf, String>,
}

impl Sources {
    /// Reads all files below the folders `folders` of `root` whose extension is `extension`.
    ///
    /// # Errors
    ///
    /// A file or folder that cannot be read.
    pub fn read(root: &Path, folders: &[&str], extension: &str) -> Result<Self> {
        let mut sources = Self::default();
        for folder in folders {
            sources.read_folder(root, Path::new(folder), extension)?;
        }
        Ok(sources)
    }

    fn read_folder(&mut self, root: &Path, folder: &Path, extension: &str) -> Result<()> {
        let full = root.join(folder);
        let entries = fs::read_dir(&full).with_context(|| format!("cannot list {full:?}"))?;
        for entry in entries {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.read_folder(root, &path, extension)?;
            } else if path.extension().is_some_and(|found| found == extension) {
                self.insert_file(root, &path)?;
            }
        }
        Ok(())
    }

    /// Reads the file `path` below `root`.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub fn insert_file(&mut self, root: &Path, path: &Path) -> Result<()> {
        let text = fs::read_to_string(root.join(path))
            .with_context(|| format!("cannot read {}", path.display()))?;
        self.files.insert(path.to_owned(), text);
        Ok(())
    }

    /// Adds a file.
    pub fn insert(&mut self, path: &str, text: &str) {
        self.files.insert(PathBuf::from(path), text.to_owned());
    }

    /// The text of a file.
    #[must_use]
    pub fn get(&self, path: &Path) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    /// All files, in the order of their paths.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.files
            .iter()
            .map(|(path, text)| (path.as_path(), text.as_str()))
    }
}

/// The path without `..` and without a slash at its end.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path {
        if part == ".." {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}
