//! The installed product, in a staging folder.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::paths;
use crate::run::run;

const PROGRAMS: [(&str, &str); 5] = [
    ("usr/bin", "vhost-user-gpu"),
    ("usr/bin", "vhost-user-input"),
    ("usr/bin", "vhost-vnc"),
    ("usr/bin", "vhostctl"),
    ("usr/libexec", "vhost-user-accept"),
];

/// Installs units, descriptors, needrestart's exemption and the programs of the caller's own profile below a new
/// folder, as a package with `PREFIX=/usr` would.
///
/// # Errors
///
/// If the programs are not built, or `make install` fails.
pub fn stage() -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir().context("cannot create a staging folder")?;
    for (place, name) in PROGRAMS {
        let program = paths::program(name)?;
        let place = folder.path().join(place);
        fs::create_dir_all(&place)?;
        fs::copy(&program, place.join(name))
            .with_context(|| format!("cannot copy {}", program.display()))?;
    }
    run(make(folder.path()).args([
        "install-units",
        "install-descriptors",
        "install-needrestart",
    ]))?;
    Ok(folder)
}

fn make(destination: &Path) -> Command {
    let mut make = Command::new("make");
    // Options of an outer make are not meant for this one.
    make.env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL")
        .env_remove("MFLAGS");
    make.args(["--silent", "-f", "install.mk", "PREFIX=/usr"])
        .arg(format!("DESTDIR={}", destination.display()))
        .current_dir(paths::source_root());
    make
}
