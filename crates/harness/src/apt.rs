// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Debian packages without installing them: a private apt state in the build folder.
//!
//! The host's sources, lists and packages are only read. What is fetched is checked
//! by apt against the archive's signature and unpacked into a folder.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::run::{read, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const UNSTABLE: &str = "sid";

/// An apt that knows the host's Debian archives and, besides, its backports.
#[derive(Debug)]
pub struct PrivateApt {
    dir: PathBuf,
    /// Sid has none, and testing only at times.
    backports: Option<String>,
    /// By dpkg's name; `None` is the host's.
    architecture: Option<&'static str>,
}

/// Where a package comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Suite {
    /// The host's release.
    Release,
    /// Its backports, by their name.
    Backports(String),
}

impl Suite {
    /// `package` of this suite, as apt-get(8) wants to be told.
    #[must_use]
    pub fn package(&self, package: &str) -> String {
        match self {
            Self::Release => package.to_owned(),
            Self::Backports(name) => format!("{package}/{name}"),
        }
    }
}

impl PrivateApt {
    /// Sets the state up in `dir` and fetches the package lists.
    ///
    /// # Errors
    ///
    /// If the host is no Debian, or its archive cannot be reached.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let (main, archives) = host_archives(&codename()?)?;
        let release: BTreeSet<String> = archives.iter().map(Archive::source).collect();
        Self::set_up(dir, &main, &release, None)
    }

    /// The same for another architecture, such as `arm64`, of the host's release.
    ///
    /// # Errors
    ///
    /// As [`PrivateApt::open`].
    pub fn open_architecture(dir: &Path, architecture: &'static str) -> anyhow::Result<Self> {
        let (main, archives) = host_archives(&codename()?)?;
        let release: BTreeSet<String> = archives.iter().map(Archive::source).collect();
        Self::set_up(dir, &main, &release, Some(architecture))
    }

    /// The same for another release of Debian alone, such as `trixie`, from the host's archive.
    ///
    /// # Errors
    ///
    /// As [`PrivateApt::open`].
    pub fn open_release(dir: &Path, release: &str) -> anyhow::Result<Self> {
        let (main, _) = host_archives(&codename()?)?;
        let main = Archive {
            suite: release.to_owned(),
            codename: release.to_owned(),
            ..main
        };
        Self::set_up(dir, &main, &BTreeSet::from([main.source()]), None)
    }

    fn set_up(
        dir: &Path,
        main: &Archive,
        release: &BTreeSet<String>,
        architecture: Option<&'static str>,
    ) -> anyhow::Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let mut apt = Self {
            dir: dir.to_owned(),
            backports: None,
            architecture,
        };
        if main.codename != UNSTABLE {
            let backports = Archive {
                suite: format!("{}-backports", main.codename),
                ..main.clone()
            };
            let mut all = release.clone();
            all.insert(backports.source());
            if apt.update(&all).is_ok() {
                apt.backports = Some(backports.suite);
                return Ok(apt);
            }
        }
        apt.update(release)?;
        Ok(apt)
    }

    /// The backports, if there are any.
    #[must_use]
    pub fn backports(&self) -> Option<Suite> {
        self.backports.clone().map(Suite::Backports)
    }

    fn update(&self, sources: &BTreeSet<String>) -> anyhow::Result<()> {
        let text: String = sources.iter().map(String::as_str).collect();
        fs::write(self.dir.join("sources.list"), text).context("cannot write sources")?;
        run(self.command("apt-get").arg("update")).map(drop)
    }

    /// The host's release if its `package` has at least this version, else its backports.
    ///
    /// # Errors
    ///
    /// If neither has.
    pub fn suite_with(&self, package: &str, least: (u32, u32)) -> anyhow::Result<Suite> {
        for suite in [Suite::Release].into_iter().chain(self.backports()) {
            let text = read(
                self.command("apt-cache")
                    .args(["show", "--no-all-versions"])
                    .arg(suite.package(package)),
            );
            let version = text.ok().and_then(|text| version(&text));
            if version.is_some_and(|version| version >= least) {
                return Ok(suite);
            }
        }
        bail!("neither this release nor its backports have {package} {least:?} or newer")
    }

    /// Unpacks `packages` of `suite`, with all they depend on that the host has not
    /// installed, into `into`.
    ///
    /// # Errors
    ///
    /// If a package cannot be had.
    pub fn unpack_with_dependencies(
        &self,
        packages: &[&str],
        suite: &Suite,
        into: &Path,
    ) -> anyhow::Result<()> {
        self.unpack_beside(&[], packages, suite, into)
    }

    /// As [`unpack_with_dependencies`](Self::unpack_with_dependencies), with all that a machine with nothing
    /// installed would need, the C library too: for programs of another release or architecture.
    ///
    /// # Errors
    ///
    /// If a package cannot be had.
    pub fn unpack_whole(
        &self,
        packages: &[&str],
        suite: &Suite,
        into: &Path,
    ) -> anyhow::Result<()> {
        let nothing = self.dir.join("nothing-installed");
        fs::write(&nothing, "").context("cannot write an empty list of packages")?;
        let status = format!("Dir::State::status={}", nothing.display());
        self.unpack_beside(&["-o", &status], packages, suite, into)
    }

    /// Unpacks `packages` with what is missing beside what is installed; `options` may say what that is.
    fn unpack_beside(
        &self,
        options: &[&str],
        packages: &[&str],
        suite: &Suite,
        into: &Path,
    ) -> anyhow::Result<()> {
        let archives = self.dir.join("cache/archives");
        let mut command = self.command("apt-get");
        command.args(options).args([
            "install",
            "--download-only",
            "--yes",
            "--no-install-recommends",
            "--reinstall",
        ]);
        if let Suite::Backports(name) = suite {
            command.args(["-t", name]);
        }
        run(command.args(packages))?;
        self.unpack_all(&archives, into)
    }

    /// Unpacks exactly `packages`, of the versions that the host would install.
    ///
    /// # Errors
    ///
    /// If a package cannot be had.
    pub fn unpack(&self, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        let folder = tempfile::tempdir_in(&self.dir).context("cannot create a folder")?;
        run(self
            .command("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(folder.path()))?;
        self.unpack_all(folder.path(), into)
    }

    /// The packages that `package` depends on directly.
    ///
    /// # Errors
    ///
    /// If there is no such package.
    pub fn dependencies(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let text = read(
            self.command("apt-cache")
                .args(["depends", "--important", package]),
        )?;
        let names = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    fn unpack_all(&self, archives: &Path, into: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(into).with_context(|| format!("cannot create {}", into.display()))?;
        for entry in fs::read_dir(archives)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb")
                    .arg("--extract")
                    .arg(&path)
                    .arg(into))?;
                fs::remove_file(&path)?;
            }
        }
        merge_usr(into)
    }

    /// An apt program that uses this state. As it takes no lock of the host and
    /// installs nothing, it needs no root either.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let at = |name: &str| self.dir.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=-".to_owned(),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "Debug::NoLocking=1".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Retries=3".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        if let Some(architecture) = self.architecture {
            for option in ["APT::Architecture", "APT::Architectures"] {
                command.args(["-o", &format!("{option}={architecture}")]);
            }
        }
        command
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Packages have files in `/lib` or in `/usr/lib`, as their release likes it; programs look in either.
fn merge_usr(root: &Path) -> anyhow::Result<()> {
    for name in ["bin", "sbin", "lib", "lib64"] {
        let (link, folder) = (root.join(name), root.join("usr").join(name));
        if link.is_symlink() || !(link.exists() || folder.exists()) {
            continue;
        }
        if link.exists() {
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
            run(Command::new("cp")
                .args(["-al", "--"])
                .arg(link.join("."))
                .arg(&folder))?;
            fs::remove_dir_all(&link)
                .with_context(|| format!("cannot remove {}", link.display()))?;
        }
        symlink(Path::new("usr").join(name), &link)
            .with_context(|| format!("cannot create {}", link.display()))?;
    }
    Ok(())
}

/// The upstream version in what `apt-cache show` says, as major and minor number.
fn version(text: &str) -> Option<(u32, u32)> {
    let version = text
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))?;
    let upstream = version.split_once(':').map_or(version, |(_, rest)| rest);
    let mut parts = upstream
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// An archive that apt fetches from.
#[derive(Debug, Clone)]
struct Archive {
    uri: String,
    /// By the name in apt's sources, which may be "stable".
    suite: String,
    /// By the archive's own name.
    codename: String,
    component: String,
}

impl Archive {
    fn source(&self) -> String {
        let Self {
            uri,
            suite,
            component,
            ..
        } = self;
        format!("deb [signed-by={KEYRING}] {uri} {suite} {component}\n")
    }
}

/// The archive that the host has its release from.
///
/// # Errors
///
/// If the host is no Debian or apt has no sources.
pub(crate) fn host_mirror() -> anyhow::Result<String> {
    Ok(host_archives(&codename()?)?.0.uri)
}

/// The code name of the host's Debian release.
pub(crate) fn codename() -> anyhow::Result<String> {
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let field = |name: &str| {
        release
            .lines()
            .find_map(|line| Some(line.strip_prefix(name)?.trim_matches('"').to_owned()))
    };
    ensure!(
        field("ID=").as_deref() == Some("debian"),
        "packages are fetched on Debian only"
    );
    field("VERSION_CODENAME=").context("/etc/os-release names no VERSION_CODENAME")
}

/// The archives of the release `codename` that the host uses, the main one apart: whichever
/// mirror it reaches, we reach too.
fn host_archives(codename: &str) -> anyhow::Result<(Archive, Vec<Archive>)> {
    let list = read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(CODENAME) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let known: Vec<Archive> = list
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some(Archive {
                uri: words.next()?,
                suite: words.next()?,
                codename: words.next()?,
                component: words.next()?,
            })
        })
        .filter(|archive| archive.component == "main")
        .collect();
    // Sid calls itself by the name of the next release.
    for name in [codename, UNSTABLE] {
        let of_release = |archive: &&Archive| {
            archive
                .codename
                .strip_prefix(name)
                .is_some_and(|tail| ["", "-updates", "-security", "-backports"].contains(&tail))
        };
        let archives: Vec<Archive> = known.iter().filter(of_release).cloned().collect();
        if let Some(main) = archives.iter().find(|archive| archive.codename == name) {
            return Ok((main.clone(), archives));
        }
    }
    bail!("apt has no source for {codename}: see apt-get(8) update")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_versions_are_read() {
        let show = |version: &str| format!("Package: p\nVersion: {version}\nSection: misc\n");
        assert_eq!(version(&show("1:10.0.13+ds-1")), Some((10, 0)));
        assert_eq!(version(&show("25.0.7-2")), Some((25, 0)));
        assert_eq!(version("Package: p\n"), None);
    }

    #[test]
    fn lib_and_usr_lib_become_one() {
        let root = tempfile::tempdir().expect("tempdir");
        let root = root.path();
        for folder in ["lib/modules", "usr/lib/modules/1", "usr/sbin"] {
            fs::create_dir_all(root.join(folder)).expect("mkdir");
        }
        fs::write(root.join("lib/modules/list"), "old").expect("write");
        for _ in 0..2 {
            merge_usr(root).expect("merge");
            for path in [
                "lib/modules/list",
                "usr/lib/modules/list",
                "lib/modules/1",
                "sbin",
            ] {
                assert!(root.join(path).exists(), "{path}");
            }
            assert!(!root.join("bin").exists());
        }
    }
}
