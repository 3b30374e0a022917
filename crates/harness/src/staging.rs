// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The installed product, in a staging folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use conventions::StateVersion;
use memchr::memmem;
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
    stage_with(paths::program)
}

/// As [`stage`], with the programs that `find` finds by their names, such as those of another architecture.
///
/// # Errors
///
/// As [`stage`].
pub fn stage_with(find: impl Fn(&str) -> anyhow::Result<PathBuf>) -> anyhow::Result<TempDir> {
    let folder = tempfile::tempdir().context("cannot create a staging folder")?;
    for (place, name) in PROGRAMS {
        let program = find(name)?;
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

/// Makes `to` out of the program `from`: the same program, which keeps and understands states of the next version.
///
/// # Errors
///
/// If the file cannot be read or written, or does not tell its version.
pub fn program_of_next_state(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut program = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mark = memmem::find(&program, &StateVersion::MARK).context("it tells no version")?;
    let version = program
        .get_mut(mark + StateVersion::MARK.len()..)
        .and_then(|behind| behind.first_chunk_mut::<4>())
        .context("its version is cut")?;
    *version = (u32::from_le_bytes(*version) + 1).to_le_bytes();
    fs::write(to, program).with_context(|| format!("cannot write {}", to.display()))?;
    let mode = fs::metadata(from)?.permissions();
    Ok(fs::set_permissions(to, mode)?)
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_a_stripped_installation_lacks_debug_information() {
        // This program has debug information, as the released ones have.
        let own = std::env::current_exe().expect("a test has a file");
        let built = tempfile::tempdir().expect("folder");
        let release = built.path().join("release");
        fs::create_dir(&release).expect("folder");
        for (_, name) in PROGRAMS {
            symlink(&own, release.join(name)).expect("link");
        }
        let len = |file: &Path| fs::metadata(file).expect("a program").len();
        for (goal, is_stripped) in [("install", false), ("install-strip", true)] {
            let folder = tempfile::tempdir().expect("folder");
            let target = format!("CARGO_TARGET={}", built.path().display());
            run(make(folder.path()).arg(target).arg(goal)).expect(goal);
            for (place, name) in PROGRAMS {
                let installed = len(&folder.path().join(place).join(name));
                assert_eq!(installed < len(&own) / 2, is_stripped, "{goal}: {name}");
            }
        }
    }
}
