// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Roots of Debian releases with systemd and D-Bus and nothing else, as of a machine that was just installed.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::apt;
use crate::paths;
use crate::run::{is_installed, read, run};

/// What is in a root beside Debian's essential packages and apt.
const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus";

/// Why none can be made here; `None` if they can.
#[must_use]
pub fn missing() -> Option<String> {
    let program = ["debootstrap", "apt-get"]
        .into_iter()
        .find(|program| !is_installed(program))?;
    Some(format!("a root of Debian needs {program}"))
}

/// A root that debootstrap(8) made in the build folder, and the packages that were fetched for it. Nothing is to be
/// written into it: start a [`Sandbox`](crate::systemd::Sandbox) on it.
#[derive(Debug)]
pub struct DebianRoot {
    folder: PathBuf,
}

impl DebianRoot {
    /// The root of `release`, such as `trixie`. It is made if it is not there.
    ///
    /// # Errors
    ///
    /// If it cannot be made, such as without root or without the archive.
    pub fn of(release: &str) -> anyhow::Result<Self> {
        let folder = paths::build_dir().join(format!("installed-{release}"));
        fs::create_dir_all(folder.join("archives/partial"))
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let root = Self { folder };
        let _lock = root.lock()?;
        let complete = root.folder.join("complete");
        if !fs::read_to_string(&complete).is_ok_and(|packages| packages == PACKAGES) {
            root.make(release)
                .with_context(|| format!("cannot make a root of Debian {release}"))?;
            fs::write(&complete, PACKAGES).context("cannot write that it is complete")?;
        }
        Ok(root)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Fetches what the installation of these files of packages would fetch, recommended packages too; returns the
    /// folder of all that was fetched so far. In a machine without network it is what
    /// `/var/cache/apt/archives` has to contain.
    ///
    /// # Errors
    ///
    /// If the archive lacks a package or cannot be reached.
    pub fn fetch_dependencies(&self, packages: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        self.download(|apt| apt.args(packages))?;
        Ok(self.folder.join("archives"))
    }

    /// Fetches these packages of the archive, with what they depend on, into the same folder, which it returns. Recommended
    /// packages are left out.
    ///
    /// # Errors
    ///
    /// If the archive lacks a package or cannot be reached.
    pub fn fetch(&self, names: &[&str]) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        self.download(|apt| apt.arg("--no-install-recommends").args(names))?;
        Ok(self.folder.join("archives"))
    }

    /// Fetches this package of the archive alone into the same folder, to be unpacked; returns its file.
    ///
    /// # Errors
    ///
    /// If the archive lacks it or cannot be reached.
    pub fn fetch_alone(&self, name: &str) -> anyhow::Result<PathBuf> {
        let _lock = self.lock()?;
        let folder = tempfile::tempdir_in(&self.folder).context("cannot create a folder")?;
        self.retried(|| {
            let mut apt = self.apt();
            apt.args(["download", name]).current_dir(folder.path());
            run(&mut apt).map(drop)
        })?;
        let fetched = packages_in(folder.path())?;
        let [package] = &fetched[..] else {
            anyhow::bail!("apt-get download {name}: {fetched:?}");
        };
        let file = package.file_name().context("a file without a name")?;
        let kept = self.folder.join("archives").join(file);
        fs::rename(package, &kept).context("cannot move what was fetched")?;
        Ok(kept)
    }

    fn download(&self, which: impl Fn(&mut Command) -> &mut Command) -> anyhow::Result<()> {
        self.retried(|| {
            let mut apt = self.apt();
            apt.args(["install", "--download-only", "--yes"]);
            run(which(&mut apt)).map(drop)
        })
    }

    /// Tries it with new lists if it failed: the archive may have newer packages than it had for the old ones.
    fn retried(&self, fetch: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
        fetch().or_else(|_| {
            run(self.apt().arg("update"))?;
            fetch()
        })
    }

    /// The host's apt for this root. It installs nothing.
    fn apt(&self) -> Command {
        let mut apt = Command::new("apt-get");
        let at = |path: &str| self.folder.join(path).display().to_string();
        for option in [
            format!("Dir={}", at("root")),
            format!("Dir::State::status={}", at("root/var/lib/dpkg/status")),
            format!("Dir::Cache::archives={}", at("archives")),
            format!("Dir::Log={}", at("log")),
            "Dir::Bin::methods=/usr/lib/apt/methods".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            apt.args(["-o", &option]);
        }
        apt.env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        apt
    }

    fn lock(&self) -> anyhow::Result<OwnedFd> {
        let lock = File::create(self.folder.join("lock")).context("cannot create a lock file")?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the folder")?;
        Ok(lock.into())
    }

    fn make(&self, release: &str) -> anyhow::Result<()> {
        ensure!(
            rustix::process::geteuid().is_root(),
            "debootstrap needs root"
        );
        let root = self.path();
        if root.exists() {
            fs::remove_dir_all(&root)
                .with_context(|| format!("cannot remove {}", root.display()))?;
        }
        let mirror = match std::env::var("DEBIAN_MIRROR") {
            Ok(mirror) => mirror,
            Err(_) => apt::host_mirror()?,
        };
        let include = format!("--include={PACKAGES}");
        let mut debootstrap = Command::new("debootstrap");
        debootstrap
            .args(["--variant=minbase", &include, release])
            .arg(&root)
            .arg(mirror);
        // debootstrap does not read apt's configuration.
        let proxy =
            read(Command::new("apt-config").args(["shell", "proxy", "Acquire::http::Proxy"]))?;
        if let Some(proxy) = proxy.trim().strip_prefix("proxy=") {
            debootstrap.env("http_proxy", proxy.trim_matches('\''));
        }
        run(&mut debootstrap)?;
        let archives = root.join("var/cache/apt/archives");
        fs::remove_dir_all(&archives).context("cannot remove what was fetched")?;
        fs::create_dir_all(archives.join("partial")).context("cannot create a folder of apt")
    }
}

/// The names of the files of packages in a folder, as [`DebianRoot::fetch_dependencies`] returns it.
///
/// # Errors
///
/// If it cannot be read.
pub fn packages_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut packages = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            packages.push(path);
        }
    }
    packages.sort();
    Ok(packages)
}
