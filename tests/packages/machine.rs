// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine on which packages are installed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::debian_root::{DebianRoot, packages_in};
use harness::paths::source_root;
use harness::run::{read, run};
use harness::systemd::Sandbox;

pub(crate) const SOON: Duration = Duration::from_secs(60);

/// Where the packages lie on the machine.
const FOLDER: &str = "/root/packages";

/// A version before the one that is built.
pub(crate) const OLD_VERSION: &str = "0.0.1-1";

/// Folders that a system changes by itself.
const VOLATILE: [&str; 13] = [
    "dev",
    "mnt",
    "proc",
    "root",
    "sys",
    "tmp",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt",
    "var/lib/dpkg",
    "var/log",
    "var/tmp",
];

/// What "make packages" has built, or who set `BUILT_PACKAGES`: `deb` or `rpm`.
pub(crate) fn built(kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    let folder = folder(kind)?;
    let key = read(Command::new(source_root().join("packaging/build")).arg("key"))?;
    let of_packages = fs::read_to_string(folder.join("key")).unwrap_or_default();
    // However they were built.
    let tree = |key: &str| key.trim().trim_end_matches("-quick").to_owned();
    ensure!(
        tree(&of_packages) == tree(&key),
        "{} has no packages of this tree: make packages",
        folder.display()
    );
    let packages = files_of_kind(&folder, kind)?;
    ensure!(packages.len() == 4, "{packages:?}");
    Ok(packages)
}

/// The packages with the symbols of these.
pub(crate) fn symbols(kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    built(kind)?;
    files_of_kind(&folder(kind)?.join("debug"), kind)
}

/// Where "make packages" put them, or another such folder: that of "make packages-debian".
fn folder(kind: &str) -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("BUILT_PACKAGES") {
        return Ok(Path::new(&folder).join(kind));
    }
    // The tests lie in target/PROFILE/deps.
    let own = std::env::current_exe()?;
    let target = own.ancestors().nth(3).context("no target folder")?;
    Ok(target.join("packages").join(kind))
}

fn files_of_kind(folder: &Path, kind: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == kind) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The packages that an older version of the project is taken for: in the folder that `OLD_PACKAGES` names, or these.
fn older(packages: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    match std::env::var_os("OLD_PACKAGES") {
        Some(folder) => files_of_kind(Path::new(&folder), "deb"),
        None => Ok(packages.to_owned()),
    }
}

/// Builds a package anew, in a folder, as of another version and with changed files. The other packages that it names are of
/// that version too.
fn renamed(
    package: &Path,
    version: &str,
    change: impl Fn(&Path) -> anyhow::Result<()>,
    into: &Path,
) -> anyhow::Result<PathBuf> {
    let field = |name: &str| -> anyhow::Result<String> {
        let mut command = Command::new("dpkg-deb");
        let value = read(command.arg("--field").arg(package).arg(name))?;
        Ok(value.trim().to_owned())
    };
    let (name, own) = (field("Package")?, field("Version")?);
    let tree = into.join(&name);
    run(Command::new("dpkg-deb")
        .arg("--raw-extract")
        .arg(package)
        .arg(&tree))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control)?.replace(&own, version);
    fs::write(&control, text)?;
    change(&tree)?;
    let renamed = into.join(format!("{name}_{version}.deb"));
    run(Command::new("dpkg-deb")
        .args(["--build", "--root-owner-group", "-Zgzip", "-z1"])
        .arg(&tree)
        .arg(&renamed))?;
    Ok(renamed)
}

/// A Debian with a running systemd and nothing else, and with the packages at hand.
pub(crate) struct Machine {
    pub(crate) sandbox: Sandbox,
}

impl Machine {
    /// A new machine of this release, with what the packages depend on in the cache of its apt: it has no network.
    pub(crate) fn boot(release: &str) -> anyhow::Result<Self> {
        Self::boot_with(release, |_| Ok(()))
    }

    /// The same with files changed in each package of the old version, which is unpacked in a folder.
    pub(crate) fn boot_with(
        release: &str,
        change: impl Fn(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let root = DebianRoot::of(release)?;
        let packages = built("deb")?;
        let archives = root.fetch_dependencies(&packages)?;
        let machine = Self::with_archives(&root, &archives)?;
        machine.copy(&packages, &format!("{FOLDER}/deb"))?;
        let folder = tempfile::tempdir()?;
        let old: Vec<PathBuf> = older(&packages)?
            .iter()
            .map(|package| renamed(package, OLD_VERSION, &change, folder.path()))
            .collect::<anyhow::Result<_>>()?;
        machine.copy(&old, &format!("{FOLDER}/old"))?;
        Ok(machine)
    }

    /// A new machine of this release with these packages of the archive, and with none of ours.
    pub(crate) fn bare(release: &str, names: &[&str]) -> anyhow::Result<Self> {
        let root = DebianRoot::of(release)?;
        let machine = Self::with_archives(&root, &root.fetch(names)?)?;
        machine.apt(&format!(
            "install --no-install-recommends {}",
            names.join(" ")
        ))?;
        Ok(machine)
    }

    fn with_archives(root: &DebianRoot, archives: &Path) -> anyhow::Result<Self> {
        let sandbox = Sandbox::start_on(&root.path(), &[])?;
        let machine = Self { sandbox };
        machine.copy(&packages_in(archives)?, "/var/cache/apt/archives")?;
        Ok(machine)
    }

    /// Copies files into a folder of the machine.
    pub(crate) fn copy(&self, files: &[PathBuf], into: &str) -> anyhow::Result<()> {
        let folder = self.sandbox.path(into);
        fs::create_dir_all(&folder)?;
        for file in files {
            let name = file.file_name().context("a file without a name")?;
            fs::copy(file, folder.join(name))?;
        }
        Ok(())
    }

    /// Runs a line of shell as root, which has to succeed; returns what it prints.
    pub(crate) fn sh(&self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        ensure!(output.status.success(), "{line}: {}: {said}", output.status);
        Ok(said)
    }

    pub(crate) fn run(&self, line: &str) -> anyhow::Result<Output> {
        self.sandbox.exec(["sh", "-c", line])
    }

    /// What the README says to do, with the packages of `kind`.
    pub(crate) fn install(&self, kind: &str) -> anyhow::Result<String> {
        self.apt(&format!("install {FOLDER}/{kind}/*.deb"))
    }

    pub(crate) fn apt(&self, words: &str) -> anyhow::Result<String> {
        self.sh(&format!(
            "DEBIAN_FRONTEND=noninteractive apt-get --yes --allow-downgrades {words}"
        ))
    }

    /// All files of the machine but those that it changes by itself.
    pub(crate) fn files(&self) -> anyhow::Result<BTreeSet<String>> {
        let pruned = VOLATILE
            .map(|folder| format!("-path ./{folder}"))
            .join(" -o ");
        let list = self.sh(&format!("cd / && find . \\( {pruned} \\) -prune -o -print"))?;
        Ok(list.lines().map(str::to_owned).collect())
    }

    pub(crate) fn pid(&self, service: &str) -> anyhow::Result<String> {
        self.sandbox.property(service, "MainPID")
    }

    pub(crate) fn said(&self, service: &str) -> String {
        let journal =
            self.sandbox
                .journal(&["--unit", service, "--lines=40", "--output=short-monotonic"]);
        journal.unwrap_or_else(|error| error.to_string())
    }
}

/// What systemd itself keeps of units and of what apt starts.
pub(crate) fn is_systemds(path: &str) -> bool {
    [
        "./run/systemd/",
        "./run/log/",
        "./run/user",
        "./var/lib/systemd/",
        "./run/lock",
    ]
    .iter()
    .any(|folder| path.starts_with(folder))
}
