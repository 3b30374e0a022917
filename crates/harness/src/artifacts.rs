// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What it takes to boot a guest: QEMU, a kernel, an initramfs, an accelerator.
//!
//! All of it is fetched or made on first use and kept in the build folder.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::fs::{Access, FlockOperation, access, flock};

use crate::apt::{PrivateApt, Suite};
use crate::board::Board;
use crate::initramfs::Contents;
use crate::qemu::Vm;
use crate::run::{installed, read};
use crate::{kernel, packages, paths};

/// The first QEMU whose vhost-user devices work without KVM, as far as we know.
const FIRST_QEMU: (u32, u32) = (10, 0);
const PROGRAM: &str = "qemu-system-x86_64";
/// Where a package's libraries are.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// What QEMU needs to run a guest from a kernel file.
const QEMU_PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
const KERNEL_PACKAGE: &str = "linux-image-amd64";
/// The first of Debian's kernels with /dev/udmabuf.
const UDMABUF: (u32, u32) = (6, 12);
/// Modules of the guest; the rest of Debian's kernel is built in or not needed.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio-gpu",
    "virtio_input",
    "virtiofs",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "evdev",
    "uinput",
];
/// Those of one that plays a host with a render node.
const RENDER_MODULES: [&str; 2] = ["virtio_pci", "vgem"];
/// How long an ordinary guest may take on an accelerator that deserves the name.
const PROBE_TIMEOUT: Duration = Duration::from_secs(8);

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself.
    Kvm,
    /// QEMU's emulator.
    Tcg,
}

impl Accelerator {
    /// QEMU's name for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Which of Debian's kernels a guest runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kernel {
    /// The release's own.
    Release,
    /// One that has /dev/udmabuf, with a render node.
    Rendering,
}

impl Kernel {
    /// The folder of the build that it lies in.
    fn folder(self) -> &'static str {
        match self {
            Self::Release => "guest",
            Self::Rendering => "guest-rendering",
        }
    }

    fn modules(self) -> &'static [&'static str] {
        match self {
            Self::Release => &MODULES,
            Self::Rendering => &RENDER_MODULES,
        }
    }
}

/// A QEMU that can serve our devices.
#[derive(Debug, Clone)]
pub struct Qemu {
    /// The program.
    pub program: PathBuf,
    /// The root of its package if it was unpacked and not installed.
    pub root: Option<PathBuf>,
    /// The C library's loader in that root, if QEMU needs another one than the host's.
    loader: Option<PathBuf>,
    /// Major and minor version.
    pub version: (u32, u32),
}

impl Qemu {
    /// The program with its environment, as a shell script: for any user, and for libvirt, which passes no
    /// environment on.
    #[must_use]
    pub fn script(&self) -> String {
        let command = self.command();
        let quoted = |word: &OsStr| format!("'{}'", word.to_string_lossy());
        let mut script = "#!/bin/sh\n".to_owned();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                script += &format!("export {}={}\n", name.to_string_lossy(), quoted(value));
            }
        }
        script += &format!("exec {}", quoted(command.get_program()));
        for argument in command.get_args() {
            script += &format!(" {}", quoted(argument));
        }
        script + " \"$@\"\n"
    }

    /// The program with its environment.
    #[must_use]
    pub fn command(&self) -> Command {
        // Its modules and data it finds by the bundle.
        match (&self.root, &self.loader) {
            (Some(root), Some(loader)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(root.join(LIBRARIES));
                command.arg(&self.program);
                command
            }
            (Some(root), None) => {
                let mut command = Command::new(&self.program);
                command.env("LD_LIBRARY_PATH", root.join(LIBRARIES));
                command
            }
            (None, _) => Command::new(&self.program),
        }
    }

    /// The newest QEMU of a Debian release, unpacked with all it needs: it serves, and has devices that older
    /// ones lack.
    ///
    /// # Errors
    ///
    /// If it cannot be fetched.
    pub fn newest() -> anyhow::Result<Self> {
        let root = packages::newest_qemu()?;
        let loader = root.join(LIBRARIES).join("ld-linux-x86-64.so.2");
        // To the program, its own file seems to be the loader's.
        bundle(&root.join(LIBRARIES), "../../..")?;
        Self::with_loader(root.join("usr/bin").join(PROGRAM), Some(root), Some(loader))
    }

    pub(crate) fn at(program: PathBuf, root: Option<PathBuf>) -> anyhow::Result<Self> {
        if let Some(root) = &root {
            bundle(&root.join("usr/bin"), "../..")?;
        }
        Self::with_loader(program, root, None)
    }

    fn with_loader(
        program: PathBuf,
        root: Option<PathBuf>,
        loader: Option<PathBuf>,
    ) -> anyhow::Result<Self> {
        // A script of the same name would otherwise run itself.
        ensure!(
            program.is_absolute(),
            "{} is no whole path",
            program.display()
        );
        let mut qemu = Self {
            program,
            root,
            loader,
            version: (0, 0),
        };
        let text = read(qemu.command().arg("--version"))?;
        qemu.version =
            version(&text).with_context(|| format!("{PROGRAM} has no version: {text}"))?;
        Ok(qemu)
    }

    fn serves(&self) -> bool {
        self.version >= FIRST_QEMU
    }
}

/// Has the QEMU that seems to lie in `folder` look for its modules and data in the root that it was unpacked in,
/// and nowhere else: it would load modules of another version that is installed, and abort.
fn bundle(folder: &Path, root: &str) -> anyhow::Result<()> {
    let link = folder.join("qemu-bundle");
    match symlink(root, &link) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot create {}", link.display()))
        }
        _ => Ok(()),
    }
}

/// Reads `QEMU emulator version 10.0.2 (...)`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (_, number) = text.split_once("version ")?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

/// Everything needed to boot the test guest.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The QEMU to run.
    pub qemu: Qemu,
    /// The kernel as an ELF file with a PVH note.
    pub kernel: PathBuf,
    /// Its version.
    pub kernel_version: String,
    /// The root file system.
    pub initramfs: PathBuf,
    /// KVM if it runs an ordinary guest here.
    pub accelerator: Accelerator,
    /// What it emulates.
    pub board: Board,
}

impl Artifacts {
    /// Finds, fetches or makes them; `progress` is told what takes a while.
    ///
    /// # Errors
    ///
    /// If something cannot be fetched or made.
    pub fn obtain(progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        Self::obtain_with(Kernel::Release, progress)
    }

    /// As [`obtain`](Self::obtain), with the newest QEMU.
    ///
    /// # Errors
    ///
    /// If something cannot be fetched or made.
    pub fn obtain_newest(progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        let artifacts = Self::obtain(progress)?;
        let qemu = Qemu::newest()?;
        Ok(Self { qemu, ..artifacts })
    }

    /// As [`obtain`](Self::obtain), for a guest that plays a host with a render node (vgem) whose
    /// buffers can be passed on.
    ///
    /// # Errors
    ///
    /// If something cannot be fetched or made.
    pub fn obtain_rendering(progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        Self::obtain_with(Kernel::Rendering, progress)
    }

    fn obtain_with(of: Kernel, progress: &mut dyn FnMut(&str)) -> anyhow::Result<Self> {
        ensure!(
            cfg!(target_arch = "x86_64"),
            "the test guest is an x86-64 one"
        );
        let build = paths::build_dir();
        fs::create_dir_all(&build).with_context(|| format!("cannot create {}", build.display()))?;
        // Tests run side by side: one fetches, the others wait.
        let lock = File::create(build.join("lock")).context("cannot create a lock file")?;
        flock(&lock, FlockOperation::LockExclusive).context("cannot lock the build folder")?;

        let mut apt = LazyApt {
            dir: build.join("apt"),
            apt: None,
        };
        let qemu = obtain_qemu(&build, &mut apt, progress)?;
        let guest = build.join(of.folder());
        if !guest.join("complete").exists() {
            progress("fetching Debian's kernel, busybox and evtest");
            fetch_guest(&guest, of, apt.get()?)?;
        }
        let kernel_version = fs::read_to_string(guest.join("complete"))
            .context("cannot read the kernel's version")?;
        let initramfs = build_initramfs(&build, &guest, of, &kernel_version)?;
        let mut artifacts = Self {
            qemu,
            kernel: guest.join("vmlinux"),
            kernel_version,
            initramfs,
            accelerator: Accelerator::Tcg,
            board: Board::Q35,
        };
        artifacts.accelerator = artifacts.probe_accelerator(&build, progress)?;
        Ok(artifacts)
    }

    /// Whether KVM runs an ordinary guest can only be seen by running one. The answer
    /// is kept until the next boot of the host.
    fn probe_accelerator(
        &self,
        build: &Path,
        progress: &mut dyn FnMut(&str),
    ) -> anyhow::Result<Accelerator> {
        // The answer may be another user's.
        if access("/dev/kvm", Access::READ_OK | Access::WRITE_OK).is_err() {
            return Ok(Accelerator::Tcg);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let key = format!("{} {:?}", boot_id.trim(), self.qemu.version);
        let answer = build.join("accelerator");
        let known = fs::read_to_string(&answer).unwrap_or_default();
        let accelerator = match known.strip_prefix(&key).map(str::trim) {
            Some("kvm") => Accelerator::Kvm,
            Some("tcg") => Accelerator::Tcg,
            _ => {
                progress("probing whether KVM runs an ordinary guest");
                let with_kvm = Self {
                    accelerator: Accelerator::Kvm,
                    ..self.clone()
                };
                match Vm::builder(&with_kvm).boot_timeout(PROBE_TIMEOUT).boot() {
                    Ok(_) => Accelerator::Kvm,
                    Err(_) => Accelerator::Tcg,
                }
            }
        };
        replace(&answer, format!("{key} {}", accelerator.name()).as_bytes())?;
        Ok(accelerator)
    }
}

/// A private apt that fetches its lists only if something is missing.
struct LazyApt {
    dir: PathBuf,
    apt: Option<PrivateApt>,
}

impl LazyApt {
    fn get(&mut self) -> anyhow::Result<&PrivateApt> {
        if self.apt.is_none() {
            self.apt = Some(PrivateApt::open(&self.dir)?);
        }
        self.apt.as_ref().context("no package lists")
    }
}

/// The system's QEMU if it can serve, else the release's or the backports'.
fn obtain_qemu(
    build: &Path,
    apt: &mut LazyApt,
    progress: &mut dyn FnMut(&str),
) -> anyhow::Result<Qemu> {
    if let Some(program) = installed(PROGRAM) {
        let system = Qemu::at(program, None)?;
        if system.serves() {
            return Ok(system);
        }
    }
    let root = build.join("qemu");
    let program = root.join("usr/bin").join(PROGRAM);
    // What it needs of the host may have gone since it was unpacked.
    let unpacked = Qemu::at(program.clone(), Some(root.clone()));
    if let Some(qemu) = unpacked.ok().filter(Qemu::serves) {
        return Ok(qemu);
    }
    progress("fetching QEMU");
    let fresh = build.join("qemu.new");
    remove_tree(&fresh)?;
    remove_tree(&root)?;
    let apt = apt.get()?;
    let suite = apt.suite_with(QEMU_PACKAGES[0], FIRST_QEMU)?;
    apt.unpack_with_dependencies(&QEMU_PACKAGES, &suite, &fresh)?;
    fs::rename(&fresh, &root).context("cannot put QEMU in place")?;
    let qemu = Qemu::at(program, Some(root))?;
    if !qemu.serves() {
        bail!(
            "Debian's QEMU {:?} is too old: {FIRST_QEMU:?} is needed",
            qemu.version
        );
    }
    Ok(qemu)
}

/// Kernel, modules, busybox and evtest, unpacked into `guest`.
fn fetch_guest(guest: &Path, of: Kernel, apt: &PrivateApt) -> anyhow::Result<()> {
    remove_tree(guest)?;
    let suite = match of {
        Kernel::Release => Suite::Release,
        Kernel::Rendering => apt.suite_with(KERNEL_PACKAGE, UDMABUF)?,
    };
    let dependencies = apt.dependencies(&suite.package(KERNEL_PACKAGE))?;
    let image = dependencies
        .iter()
        .find(|name| name.starts_with("linux-image-"))
        .context("linux-image-amd64 depends on no kernel")?;
    let version = image.trim_start_matches("linux-image-");
    // Newer releases have the kernel and its modules in packages of their own.
    let parts = apt.dependencies(&suite.package(image))?;
    let parts = parts.iter().filter(|name| name.ends_with(version));
    let parts: BTreeSet<String> = parts
        .chain([image])
        .map(|name| suite.package(name))
        .chain(["busybox-static".to_owned(), "evtest".to_owned()])
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    apt.unpack(&parts, guest)?;
    let depmod = ["/usr/sbin/depmod", "/sbin/depmod"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    if !modules_dir(guest, version).join("modules.dep").exists() {
        let depmod = depmod.context("depmod is missing: install the package kmod")?;
        crate::run::run(Command::new(depmod).arg("-b").arg(guest).arg(version))?;
    }
    let images = [
        guest.join(format!("boot/vmlinuz-{version}")),
        modules_dir(guest, version).join("vmlinuz"),
    ];
    let bz_image = images.iter().find(|path| path.exists());
    let bz_image = bz_image.with_context(|| format!("{image} has no kernel in it"))?;
    kernel::extract_elf(bz_image, &guest.join("vmlinux"))?;
    fs::write(guest.join("complete"), version).context("cannot mark the guest as complete")
}

fn modules_dir(guest: &Path, version: &str) -> PathBuf {
    guest.join("lib/modules").join(version)
}

/// The initramfs with the guest program as it is now.
fn build_initramfs(
    build: &Path,
    guest: &Path,
    of: Kernel,
    version: &str,
) -> anyhow::Result<PathBuf> {
    let init = paths::program("guest")?;
    let mut hasher = DefaultHasher::new();
    (
        version,
        of.modules(),
        fs::read(&init).context("cannot read the guest program")?,
    )
        .hash(&mut hasher);
    // Programs of different profiles may be in use at once.
    let path = build.join(format!("initramfs-{:016x}", hasher.finish()));
    if path.exists() {
        return Ok(path);
    }
    for entry in fs::read_dir(build)?.flatten() {
        let name = entry.file_name();
        let old = entry
            .metadata()
            .and_then(|data| data.modified())
            .is_ok_and(|time| {
                time.elapsed()
                    .is_ok_and(|age| age > Duration::from_secs(24 * 3600))
            });
        if old && name.to_string_lossy().starts_with("initramfs-") {
            fs::remove_file(entry.path())?;
        }
    }
    let programs = [guest.join("usr/bin/evtest")];
    let contents = Contents {
        init: &init,
        busybox: &guest.join("bin/busybox"),
        programs: &programs,
        modules: &modules_dir(guest, version),
        load: of.modules(),
    };
    replace(
        &path,
        &contents.build().context("cannot make the initramfs")?,
    )?;
    Ok(path)
}

/// Writes a file so that nobody sees half of it.
fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

fn remove_tree(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2~bpo12+1)\nCopyright";
        assert_eq!(version(debian), Some((10, 0)));
        assert_eq!(version("QEMU emulator version 7.2.22"), Some((7, 2)));
        assert_eq!(version("something else"), None);
    }
}
