// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian packages that tests use, unpacked into the build folder.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{FlockOperation, flock};

use crate::apt::{PrivateApt, Suite, codename};
use crate::paths;

const DEBIAN_13: &str = "trixie";

/// The files of a package as the host would install it, in a folder that can be staged.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn unpacked(package: &str) -> anyhow::Result<PathBuf> {
    obtain(package, |apt, folder| apt.unpack(&[package], folder))
}

/// The files of `packages` in one folder, without what they depend on.
///
/// # Errors
///
/// If one cannot be fetched.
pub fn unpacked_together(name: &str, packages: &[&str]) -> anyhow::Result<PathBuf> {
    obtain(name, |apt, folder| apt.unpack(packages, folder))
}

/// The files of `packages` in one folder, without what they depend on: of the host's release if its
/// first one has at least this version, else of the backports.
///
/// # Errors
///
/// If one cannot be fetched.
pub fn unpacked_with(name: &str, packages: &[&str], least: (u32, u32)) -> anyhow::Result<PathBuf> {
    obtain(name, |apt, folder| {
        let first = packages.first().context("no packages are named")?;
        let suite = apt.suite_with(first, least)?;
        let packages: Vec<String> = packages.iter().map(|name| suite.package(name)).collect();
        let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
        apt.unpack(&packages, folder)
    })
}

/// The package that has virtiofsd: written in C in Debian 12, in Rust since.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn virtiofsd() -> anyhow::Result<PathBuf> {
    match codename()?.as_str() {
        "bookworm" => unpacked("qemu-system-common"),
        _ => unpacked("virtiofsd"),
    }
}

/// The package that has qemu-storage-daemon. What it links to comes with qemu-utils, which is installed.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn storage_daemon() -> anyhow::Result<PathBuf> {
    match codename()?.as_str() {
        "bookworm" => unpacked("qemu-system-common"),
        _ => unpacked("qemu-utils"),
    }
}

/// A passt with `--vhost-user`: the release's own or, in Debian 12 which has none, Debian 13's with the C
/// library that it needs.
///
/// # Errors
///
/// If it cannot be fetched.
pub fn passt() -> anyhow::Result<PathBuf> {
    const FOLDER: &str = "usr/lib/debian-13";
    const PROGRAM: &str = "#!/bin/sh\nd=/usr/lib/debian-13/usr\n\
        exec $d/lib64/ld-linux-x86-64.so.2 --library-path $d/lib/x86_64-linux-gnu $d/bin/passt \"$@\"\n";
    if codename()? != "bookworm" {
        return unpacked("passt");
    }
    let build = paths::build_dir();
    kept("passt-of-debian-13", |folder| {
        let apt = PrivateApt::open_release(&build.join("apt-debian-13"), DEBIAN_13)?;
        apt.unpack(&["passt", "libc6"], &folder.join(FOLDER))?;
        let program = folder.join("usr/bin/passt");
        fs::create_dir_all(folder.join("usr/bin"))?;
        fs::write(&program, PROGRAM).context("cannot write a script")?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        Ok(())
    })
}

/// The newest QEMU that a release of Debian has: that of Debian 13's backports, with the C library and all else
/// that it needs.
///
/// # Errors
///
/// If it cannot be fetched.
pub(crate) fn newest_qemu() -> anyhow::Result<PathBuf> {
    let build = paths::build_dir();
    kept("qemu-of-debian-13-backports", |folder| {
        let apt = PrivateApt::open_release(&build.join("apt-debian-13"), DEBIAN_13)?;
        let suite = apt.backports().context("Debian 13 has no backports")?;
        apt.unpack_whole(&["qemu-system-x86", "qemu-system-data"], &suite, folder)
    })
}

/// rust-vmm's vhost-device-rng, where `make check` has built it beside our programs; no release of Debian has
/// it.
#[must_use]
pub fn vhost_device_rng() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    own.ancestors()
        .map(|folder| folder.join("peers/bin/vhost-device-rng"))
        .find(|program| program.is_file())
}

/// Viewers of a console that are not installed ([`crate::viewers`]), in one folder with the libraries and modules
/// that this machine lacks.
///
/// # Errors
///
/// If one cannot be fetched.
pub(crate) fn viewers() -> anyhow::Result<PathBuf> {
    /// What each of them needs, and Chromium itself.
    const NEEDED: [&str; 6] = [
        "chromium-headless-shell",
        "libgdk-pixbuf-2.0-0",
        "libgvnc-1.0-0",
        "python3-cryptography",
        "python3-pil",
        "python3-twisted",
    ];
    /// Packages that depend on more than is used here: a desktop, Node.js, NumPy.
    const ALONE: [&str; 4] = ["gvncviewer", "novnc", "python3-websockify", "websockify"];
    obtain("viewers", |apt, folder| {
        apt.unpack_with_dependencies(&NEEDED, &Suite::Release, folder)?;
        apt.unpack(&ALONE, folder)
    })
}

/// What others reach a console by: ssh with its server, stunnel, and noVNC with websockify, with what they need.
///
/// # Errors
///
/// If one cannot be fetched.
pub fn ways_to_a_console() -> anyhow::Result<PathBuf> {
    /// Packages that depend on more than is used here.
    const ALONE: [&str; 3] = ["novnc", "python3-websockify", "websockify"];
    obtain("ways-to-a-console", |apt, folder| {
        let needed = ["openssh-client", "openssh-server", "openssl", "stunnel4"];
        apt.unpack_with_dependencies(&needed, &Suite::Release, folder)?;
        apt.unpack(&ALONE, folder)
    })
}

/// The folder of the Python module vncdotool, which `make peers` fetches from PyPI.
#[must_use]
pub fn vncdotool() -> Option<PathBuf> {
    let own = env::current_exe().ok()?;
    own.ancestors()
        .map(|folder| folder.join("peers/python"))
        .find(|folder| folder.join("vncdotool").is_dir())
}

fn obtain(
    name: &str,
    unpack: impl FnOnce(&PrivateApt, &Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let build = paths::build_dir();
    kept(name, |folder| {
        unpack(&PrivateApt::open(&build.join("apt"))?, folder)
    })
}

/// The folder of that name, made on first use.
fn kept(name: &str, make: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
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
        make(&fresh)?;
        fs::rename(&fresh, &folder).context("cannot put a package in place")?;
    }
    Ok(folder)
}
