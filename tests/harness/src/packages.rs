//! Debian packages that tests use as they are, unpacked into the build folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use crate::apt::PrivateApt;
use crate::paths;

/// The files of a package as the host would install it, in a folder that can be staged.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn unpacked(package: &str) -> anyhow::Result<PathBuf> {
    obtain(package, |apt, folder| apt.unpack(&[package], folder))
}

/// The files of `packages` of Debian's backports in one folder, without what they depend on.
///
/// # Errors
///
/// If one cannot be fetched.
pub fn backports(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    obtain(name, |apt, folder| {
        let of = |package| format!("{package}/{}", apt.backports());
        let packages: Vec<String> = packages.iter().map(of).collect();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        apt.unpack(&packages, folder)
    })
}

fn obtain(
    name: &str,
    unpack: impl FnOnce(&PrivateApt, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let build = paths::build_dir();
    let folder = build.join("packages").join(name);
    fs::create_dir_all(build.join("packages")).context("cannot create a folder for packages")?;
    // Tests run side by side: one fetches, the others wait.
    let lock = File::create(build.join("lock")).context("cannot create a lock file")?;
    flock(&lock, FlockOperation::LockExclusive).context("cannot lock the build folder")?;
    if !folder.exists() {
        let fresh = folder.with_extension("new");
        if fresh.exists() {
            fs::remove_dir_all(&fresh).context("cannot remove what is left of a package")?;
        }
        unpack(&PrivateApt::open(&build.join("apt"))?, &fresh)?;
        fs::rename(&fresh, &folder).context("cannot put a package in place")?;
    }
    Ok(folder)
}
