// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's root file system: a cpio archive written on the spot.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::compression;
use crate::run::read;

/// Where Debian's libraries lie, and where the loader looks for them first.
const LIBRARIES: &str = "/usr/lib/x86_64-linux-gnu";
const FIRST_LIBRARIES: &str = "/lib/x86_64-linux-gnu";

/// A cpio archive of the "newc" format, which the kernel unpacks.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Adds a file, and the folders above it.
    ///
    /// # Errors
    ///
    /// If it is larger than the format can say.
    pub fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o100_000 | mode & 0o7777, content)
    }

    /// Adds a symbolic link, and the folders above it.
    ///
    /// # Errors
    ///
    /// If the target is larger than the format can say.
    pub fn link(&mut self, path: &str, target: &str) -> anyhow::Result<()> {
        self.parents(path)?;
        self.entry(path, 0o120_777, target.as_bytes())
    }

    /// Copies a file of the host.
    ///
    /// # Errors
    ///
    /// If it cannot be read.
    pub fn copy(&mut self, from: &Path, to: &str) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.file(to, fs::metadata(from)?.permissions().mode(), &content)
    }

    /// Copies a program and the shared libraries it needs, these to the paths where
    /// its loader looks.
    ///
    /// # Errors
    ///
    /// If it cannot be read or a library is missing.
    pub fn program(&mut self, from: &Path, to: &str) -> anyhow::Result<()> {
        self.copy(from, to)?;
        for library in libraries(from, None)? {
            let name = library.to_str().context("a library's path is no text")?;
            self.copy(&library, name)?;
        }
        Ok(())
    }

    /// Copies the shared library `path` of packages that are unpacked below `root`, and those that
    /// it needs: theirs where they have them, else the host's.
    ///
    /// # Errors
    ///
    /// If it cannot be read or one is missing.
    pub fn unpacked_library(&mut self, root: &Path, path: &str) -> anyhow::Result<()> {
        let library = root.join(path.trim_start_matches('/'));
        let folder = root.join(LIBRARIES.trim_start_matches('/'));
        self.copy(&library, path)?;
        for needed in libraries(&library, Some(&folder))? {
            let name = needed.to_str().context("a library's path is no text")?;
            let name = match needed.strip_prefix(&folder) {
                // Where the loader looks first.
                Ok(name) => format!("{FIRST_LIBRARIES}/{}", name.display()),
                Err(_) => name.to_owned(),
            };
            self.copy(&needed, &name)?;
        }
        Ok(())
    }

    /// Copies the modules `names` of a kernel and those that they depend on to `/lib/modules`, with a list of their paths
    /// in the order to load them in, `/lib/modules/list`. `folder` is `lib/modules/VERSION` of the kernel.
    ///
    /// # Errors
    ///
    /// If one is missing.
    pub fn modules(&mut self, folder: &Path, names: &[&str]) -> anyhow::Result<()> {
        let mut list = String::new();
        for module in in_load_order(folder, names)? {
            let name = module
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let target = format!("/lib/modules/{}", compression::stem(name));
            let mut content =
                fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
            if compression::is_compressed(&content) {
                content = compression::decompress(&content)
                    .with_context(|| format!("cannot unpack {}", module.display()))?;
            }
            self.file(&target, 0o644, &content)?;
            list += &target;
            list.push('\n');
        }
        self.file("/lib/modules/list", 0o644, list.as_bytes())
    }

    /// The finished archive.
    ///
    /// # Errors
    ///
    /// None in practice: the closing entry is small.
    pub fn finish(mut self) -> anyhow::Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn parents(&mut self, path: &str) -> anyhow::Result<()> {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/') {
            self.entry(&path[..end], 0o040_755, &[])?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let path = path.trim_start_matches('/');
        if !self.names.insert(path.to_owned()) {
            return Ok(());
        }
        let size = u32::try_from(content.len()).context("too large for a cpio archive")?;
        let name_size = u32::try_from(path.len() + 1).context("too long for a cpio archive")?;
        let inode = u32::try_from(self.names.len())?;
        self.bytes.extend_from_slice(b"070701");
        // inode, mode, uid, gid, links, time, size, 2 x device, 2 x special device,
        // size of the name, checksum
        for field in [inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The shared libraries a program loads, its loader included; those in the folder `before` come
/// before the host's.
fn libraries(program: &Path, before: Option<&Path>) -> anyhow::Result<Vec<PathBuf>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program).env("LC_ALL", "C.UTF-8");
    if let Some(folder) = before {
        ldd.env("LD_LIBRARY_PATH", folder);
    }
    let list = read(&mut ldd)?;
    list.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [name, "=>", "not", "found"] => {
                    Some(Err(anyhow::anyhow!("{} needs {name}", program.display())))
                }
                [_, "=>", path, ..] | [path, _] if path.starts_with('/') => {
                    Some(Ok(PathBuf::from(path)))
                }
                _ => None,
            }
        })
        .collect()
}

/// What goes into the guest.
#[derive(Debug)]
pub struct Contents<'a> {
    /// The program of the guest, which becomes its init.
    pub init: &'a Path,
    /// A statically linked busybox.
    pub busybox: &'a Path,
    /// Further programs for `/usr/bin`.
    pub programs: &'a [PathBuf],
    /// The folder `lib/modules/VERSION` of the kernel.
    pub modules: &'a Path,
    /// Modules to load, without those they depend on.
    pub load: &'a [&'a str],
}

impl Contents<'_> {
    /// Makes the archive.
    ///
    /// # Errors
    ///
    /// If a part is missing.
    pub fn build(&self) -> anyhow::Result<Vec<u8>> {
        let mut archive = Archive::default();
        archive.program(self.init, "/init")?;
        archive.copy(self.busybox, "/bin/busybox")?;
        for applet in read(Command::new(self.busybox).arg("--list"))?.lines() {
            archive.link(&format!("/bin/{applet}"), "busybox")?;
        }
        for program in self.programs {
            let name = program.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{} has no name", program.display()))?;
            archive.program(program, &format!("/usr/bin/{name}"))?;
        }
        archive.modules(self.modules, self.load)?;
        archive.finish()
    }
}

/// The files of the modules named and of all they need, dependencies first. Modules
/// that are built into the kernel are left out.
fn in_load_order(modules: &Path, names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let read_list = |name: &str| {
        let path = modules.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (dependencies, built_in) = (read_list("modules.dep")?, read_list("modules.builtin")?);
    let mut order: Vec<&str> = Vec::new();
    for name in names {
        let found = dependencies
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(path, _)| module_name(path) == module_name(name));
        match found {
            // The line names what the module needs, the last one to be loaded first.
            Some((path, needed)) => {
                for path in needed.split_whitespace().rev().chain([path]) {
                    if !order.contains(&path) {
                        order.push(path);
                    }
                }
            }
            None if built_in
                .lines()
                .any(|path| module_name(path) == module_name(name)) => {}
            None => bail!("the kernel has no module {name}"),
        }
    }
    ensure!(
        !order.is_empty() || names.is_empty(),
        "no module is left to load"
    );
    Ok(order.into_iter().map(|path| modules.join(path)).collect())
}

/// The name of a module by its path; `-` and `_` are the same to the kernel.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::run;

    #[test]
    fn cpio_unpacks_our_archives() {
        let mut archive = Archive::default();
        archive.file("/a/b/file", 0o640, b"hello").expect("file");
        archive.link("/a/link", "b/file").expect("link");
        let bytes = archive.finish().expect("finish");

        let folder = tempfile::tempdir().expect("tempdir");
        let path = folder.path().join("archive");
        fs::write(&path, bytes).expect("write");
        run(Command::new("sh")
            .args(["-c", "cpio --extract --quiet < archive"])
            .current_dir(folder.path()))
        .expect("cpio");
        let file = folder.path().join("a/link");
        assert_eq!(fs::read(&file).expect("read"), b"hello");
        let mode = fs::metadata(&file).expect("stat").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn dependencies_are_loaded_first_and_once() {
        let folder = tempfile::tempdir().expect("tempdir");
        let dependencies = "k/gpu.ko: k/drm.ko k/bus.ko\nk/in-put.ko: k/bus.ko\nk/bus.ko:\n";
        fs::write(folder.path().join("modules.dep"), dependencies).expect("write");
        fs::write(folder.path().join("modules.builtin"), "kernel/evdev.ko\n").expect("write");
        let order = in_load_order(folder.path(), &["gpu", "in_put", "evdev"]).expect("order");
        let names: Vec<String> = order
            .iter()
            .map(|path| module_name(&path.to_string_lossy()))
            .collect();
        assert_eq!(names, ["bus", "drm", "gpu", "in_put"]);
        assert!(in_load_order(folder.path(), &["nothing"]).is_err());
    }
}
