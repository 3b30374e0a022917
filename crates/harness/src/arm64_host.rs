// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A host of another architecture: Debian on arm64 with its own kernel, systemd and D-Bus, on an emulated machine.
//!
//! It is made of Debian's packages, unpacked: no script of theirs runs, and systemd makes users and folders when it boots.
//! The agent of the test guest is one of its services.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::apt::PrivateApt;
use crate::artifacts::{Accelerator, Artifacts, Qemu};
use crate::board::Board;
use crate::initramfs::Archive;
use crate::paths;
use crate::qemu::Vm;
use crate::run::{installed, is_installed, run};

/// Where Cargo puts what it builds for it, by `crates/harness/debian-cross arm64`.
const TARGET: &str = "target/aarch64-unknown-linux-gnu/debug";
const QEMU: &str = "qemu-system-aarch64";
/// What else it is made with, and of which package.
const TOOLS: [(&str, &str); 3] = [
    (QEMU, "qemu-system-arm"),
    ("mke2fs", "e2fsprogs"),
    ("depmod", "kmod"),
];
/// What is installed, with all that it depends on.
const PACKAGES: [&str; 23] = [
    "base-files",
    "base-passwd",
    "bash",
    "busybox-static",
    "coreutils",
    "dash",
    "dbus",
    "findutils",
    "grep",
    "kmod",
    "libegl-mesa0",
    "libegl1",
    "libgl1",
    "libgl1-mesa-dri",
    "libgles2",
    "libvirglrenderer1",
    "linux-image-arm64",
    "mount",
    "sed",
    "systemd",
    "systemd-sysv",
    "udev",
    "util-linux",
];
/// Folders of the packages that no program reads.
const UNUSED: [&str; 4] = [
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
];
/// What the kernel needs for its disk. ext4 finds its checksum by name, so that it depends on nothing.
const MODULES: [&str; 3] = ["virtio_blk", "crc32c_generic", "ext4"];
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do busybox insmod \"$module\"; done </lib/modules/list
busybox mount -t ext4 /dev/vda /disk
busybox umount /proc
exec busybox switch_root /disk /sbin/init
";
/// Its programs are those of tests, which may use what they like.
const AGENT: &str = "[Unit]
Description=Agent of the test harness
After=dbus.socket

[Service]
ExecStart=/usr/bin/guest serve /dev/ttyAMA1
Environment=HOME=/root RUST_BACKTRACE=1
TasksMax=infinity

[Install]
WantedBy=multi-user.target
";
/// Bytes of the disk; what is not written takes no room.
const DISK: &str = "4G";
const MEMORY: &str = "1536M";
/// systemd needs the time of an emulated processor.
const BOOT_TIMEOUT: Duration = Duration::from_secs(420);
const STEP_TIMEOUT: Duration = Duration::from_secs(300);

/// Why there can be none here; `None` if there can.
#[must_use]
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("an arm64 host needs root, which owns the files on its disk".to_owned());
    }
    let (program, package) = TOOLS
        .into_iter()
        .find(|(program, _)| !is_installed(program))?;
    Some(format!(
        "an arm64 host needs {program} of the package {package}"
    ))
}

/// A program that Cargo has built for arm64.
///
/// # Errors
///
/// If it is not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = paths::build_dir().join(TARGET).join(name);
    if !path.is_file() {
        bail!("{} is not built: make check-arm64", path.display());
    }
    Ok(path)
}

/// The files of a host that has not booted yet. Each is a link to one that is kept: replace files, never change them.
#[derive(Debug)]
pub struct Files {
    folder: TempDir,
}

impl Files {
    /// The packages, in the build folder; they are fetched if they are not there.
    ///
    /// # Errors
    ///
    /// If they cannot be fetched.
    pub fn obtain() -> anyhow::Result<Self> {
        if let Some(reason) = missing() {
            bail!(reason);
        }
        let build = paths::build_dir();
        let kept = build.join("arm64-host");
        fs::create_dir_all(&kept).with_context(|| format!("cannot create {}", kept.display()))?;
        let lock = File::create(kept.join("lock")).context("cannot create a lock file")?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the folder")?;
        let complete = kept.join("complete");
        let packages = PACKAGES.join(" ");
        if !fs::read_to_string(&complete).is_ok_and(|made| made == packages) {
            unpack(&kept)?;
            fs::write(&complete, packages).context("cannot write that it is complete")?;
        }
        let folder = tempfile::tempdir_in(&build).context("cannot create a folder")?;
        run(Command::new("cp")
            .arg("-al")
            .arg(kept.join("root/."))
            .arg(folder.path()))?;
        let files = Self { folder };
        files.copy(&program("guest")?, "usr/bin/guest")?;
        let units = "etc/systemd/system";
        files.write(&format!("{units}/harness-agent.service"), AGENT)?;
        files.link(
            &format!("{units}/multi-user.target.wants/harness-agent.service"),
            "../harness-agent.service",
        )?;
        // Nobody logs in; libraries are found without a cache.
        for needless in ["getty.target", "ldconfig.service"] {
            files.link(&format!("{units}/{needless}"), "/dev/null")?;
        }
        Ok(files)
    }

    /// Its root.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file and makes the folders above it.
    ///
    /// # Errors
    ///
    /// If it cannot be written.
    pub fn write(&self, path: &str, content: &str) -> anyhow::Result<()> {
        let path = self.new_path(path)?;
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a file or folder, with its mode, and makes the folders above it.
    ///
    /// # Errors
    ///
    /// If it cannot be copied.
    pub fn copy(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        run(Command::new("cp")
            .args(["-aL", "--remove-destination"])
            .arg(from)
            .arg(self.new_path(to)?))
        .map(drop)
    }

    fn link(&self, path: &str, target: &str) -> anyhow::Result<()> {
        let path = self.new_path(path)?;
        symlink(target, &path).with_context(|| format!("cannot create {}", path.display()))
    }

    /// Makes room for a file: what is written to it must not end in the kept one.
    fn new_path(&self, path: &str) -> anyhow::Result<PathBuf> {
        let path = self.path().join(path.trim_start_matches('/'));
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        if path.symlink_metadata().is_ok_and(|file| !file.is_dir()) {
            fs::remove_file(&path)?;
        }
        Ok(path)
    }

    /// Boots a machine from them, with these further `arguments` for QEMU, and waits until systemd has started all of it.
    ///
    /// # Errors
    ///
    /// If it does not come up.
    pub fn boot(self, arguments: &[&str]) -> anyhow::Result<Host> {
        let folder = tempfile::tempdir_in(paths::build_dir()).context("cannot create a folder")?;
        let disk = folder.path().join("disk");
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-d"])
            .arg(self.path())
            .arg(&disk)
            .arg(DISK))?;
        let (kernel, kernel_version) = kernel_of(self.path())?;
        let initramfs = folder.path().join("initramfs");
        let modules = self.path().join("usr/lib/modules").join(&kernel_version);
        let content = initramfs_of(self.path(), &modules)?;
        fs::write(&initramfs, content).context("cannot write the initramfs")?;
        let image = folder.path().join("kernel");
        fs::copy(&kernel, &image).context("cannot copy the kernel")?;
        drop(self);
        let artifacts = Artifacts {
            qemu: Qemu::at(installed(QEMU).context("no QEMU for arm64")?, None)?,
            kernel: image,
            kernel_version,
            initramfs,
            accelerator: Accelerator::Tcg,
            board: Board::Virt,
        };
        let drive = format!(
            "file={},if=none,id=disk,format=raw,cache=unsafe",
            disk.display()
        );
        let words: Vec<String> = ["-smp", "2", "-drive", &drive]
            .into_iter()
            .chain(["-device", "virtio-blk-pci,drive=disk"])
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect();
        let vm = Vm::builder(&artifacts)
            .memory(MEMORY)
            .boot_timeout(BOOT_TIMEOUT)
            .arguments(&words)
            .boot()?;
        let mut host = Host {
            vm,
            _folder: folder,
        };
        // If a unit failed, the exit status is not 0.
        host.sh("systemctl is-system-running --wait || { journalctl --no-pager --priority=warning --lines=40; false; }")?;
        Ok(host)
    }
}

/// A host that runs.
#[derive(Debug)]
pub struct Host {
    vm: Vm,
    _folder: TempDir,
}

impl Host {
    /// Runs a line of shell as root, of which blanks are not told apart; it has to succeed.
    ///
    /// # Errors
    ///
    /// If it fails or hangs.
    pub fn sh(&mut self, line: &str) -> anyhow::Result<Vec<String>> {
        self.sh_within(line, STEP_TIMEOUT)
    }

    /// As [`sh`](Self::sh), with a limit of its own.
    ///
    /// # Errors
    ///
    /// If it fails or hangs.
    pub fn sh_within(&mut self, line: &str, limit: Duration) -> anyhow::Result<Vec<String>> {
        self.vm.command_within(&format!("shell {line}"), limit)
    }

    /// The machine.
    pub fn vm(&mut self) -> &mut Vm {
        &mut self.vm
    }
}

fn unpack(kept: &Path) -> anyhow::Result<()> {
    let root = kept.join("root");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let apt = PrivateApt::open_architecture(&kept.join("apt"), "arm64")?;
    apt.unpack_whole(&PACKAGES, &crate::apt::Suite::Release, &root)?;
    for unused in UNUSED {
        let folder = root.join(unused);
        fs::remove_dir_all(&folder)
            .with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let (_, version) = kernel_of(&root)?;
    run(Command::new("depmod").arg("-b").arg(&root).arg(&version))?;
    // What scripts of the packages would do.
    for (master, file) in [("passwd.master", "passwd"), ("group.master", "group")] {
        fs::copy(
            root.join("usr/share/base-passwd").join(master),
            root.join("etc").join(file),
        )?;
    }
    let run = root.join("var/run");
    fs::remove_dir(&run)?;
    symlink("/run", run)?;
    fs::write(root.join("etc/hostname"), "arm64-host\n")?;
    fs::write(root.join("etc/machine-id"), "")?;
    Ok(())
}

/// The kernel's image and its version.
fn kernel_of(root: &Path) -> anyhow::Result<(PathBuf, String)> {
    for entry in fs::read_dir(root.join("boot")).context("the packages have no /boot")? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(version) = name.and_then(|name| name.strip_prefix("vmlinuz-")) {
            let version = version.to_owned();
            return Ok((path, version));
        }
    }
    bail!("the packages have no kernel")
}

/// What mounts the disk.
fn initramfs_of(root: &Path, modules: &Path) -> anyhow::Result<Vec<u8>> {
    let mut archive = Archive::default();
    archive.copy(&root.join("usr/bin/busybox"), "/bin/busybox")?;
    archive.file("/init", 0o755, INIT.as_bytes())?;
    for folder in ["/proc", "/dev", "/disk"] {
        archive.file(&format!("{folder}/.keep"), 0o644, &[])?;
    }
    archive.modules(modules, &MODULES)?;
    archive.finish()
}
