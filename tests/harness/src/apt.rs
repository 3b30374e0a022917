//! Debian packages without installing them: a private apt state in the build folder.
//!
//! The host's sources, lists and packages are only read. What is fetched is checked
//! by apt against the archive's signature and unpacked into a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::run::{read, run};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt that knows the host's Debian archives and, besides, its backports.
#[derive(Debug)]
pub struct PrivateApt {
    dir: PathBuf,
    backports: String,
}

impl PrivateApt {
    /// Sets the state up in `dir` and fetches the package lists.
    ///
    /// # Errors
    ///
    /// If the host is no Debian, or its archive cannot be reached.
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let codename = codename()?;
        let archives = host_archives(&codename)?;
        let (main, _, _) = archives
            .iter()
            .find(|(_, suite, _)| *suite == codename)
            .with_context(|| format!("apt has no source for {codename}: see apt-get(8) update"))?;
        let backports = format!("{codename}-backports");
        let mut sources: Vec<String> = archives
            .iter()
            .map(|(uri, suite, component)| source(uri, suite, component))
            .collect();
        sources.push(source(main, &backports, "main"));
        sources.sort_unstable();
        sources.dedup();
        Self::set_up(dir, &sources.concat(), backports)
    }

    fn set_up(dir: &Path, sources: &str, backports: String) -> anyhow::Result<Self> {
        for folder in ["lists/partial", "cache/archives/partial"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(dir.join("sources.list"), sources).context("cannot write sources")?;
        let apt = Self {
            dir: dir.to_owned(),
            backports,
        };
        run(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// The same for another release of Debian alone, such as `trixie`, from the host's archive.
    ///
    /// # Errors
    ///
    /// As [`PrivateApt::open`].
    pub fn open_release(dir: &Path, release: &str) -> anyhow::Result<Self> {
        let codename = codename()?;
        let archives = host_archives(&codename)?;
        let (main, _, _) = archives
            .iter()
            .find(|(_, suite, _)| *suite == codename)
            .with_context(|| format!("apt has no source for {codename}: see apt-get(8) update"))?;
        Self::set_up(
            dir,
            &source(main, release, "main"),
            format!("{release}-backports"),
        )
    }

    /// The name of the backports' suite; `PACKAGE/SUITE` names a package of it.
    #[must_use]
    pub fn backports(&self) -> &str {
        &self.backports
    }

    /// Unpacks `packages` from the backports, with all they depend on that the host
    /// has not installed, into `into`.
    ///
    /// # Errors
    ///
    /// If a package cannot be had.
    pub fn unpack_backports(&self, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        let archives = self.dir.join("cache/archives");
        run(self
            .command("apt-get")
            .args([
                "install",
                "--download-only",
                "--yes",
                "--no-install-recommends",
            ])
            .args(["--reinstall", "-t", &self.backports])
            .args(packages))?;
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
        Ok(())
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
        command
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

fn source(uri: &str, suite: &str, component: &str) -> String {
    format!("deb [signed-by={KEYRING}] {uri} {suite} {component}\n")
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

/// URI, suite and component of the archives of this release that the host uses:
/// whichever mirror it reaches, we reach too.
fn host_archives(codename: &str) -> anyhow::Result<Vec<(String, String, String)>> {
    let list = read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI) $(RELEASE) $(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    Ok(list
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(_, suite, component)| {
            let known = ["", "-updates", "-security", "-backports"];
            component == "main"
                && suite
                    .strip_prefix(codename)
                    .is_some_and(|tail| known.contains(&tail))
        })
        .collect())
}
