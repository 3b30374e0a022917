//! A guest with OpenGL: Mesa and a program that draws, as the host has them installed.

use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::artifacts::Artifacts;
use crate::initramfs::Archive;
use crate::paths;

/// Draws a turning cube on the screen, without a desktop (Debian package kmscube).
pub const CUBE: &str = "/usr/bin/kmscube";
/// Memory of a guest that has all of it in its initramfs, for [`crate::qemu::Builder::memory`].
pub const MEMORY: &str = "1G";

/// What is loaded by name, so that no program says that it needs it.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/dri/virtio_gpu_dri.so",
];
const FILES: [&str; 1] = ["/usr/share/glvnd/egl_vendor.d/50_mesa.json"];

/// Whether the host has what goes into such a guest.
///
/// # Errors
///
/// If it has not, with what is missing.
pub fn check() -> anyhow::Result<()> {
    for path in [CUBE].iter().chain(&LIBRARIES).chain(&FILES) {
        ensure!(
            Path::new(path).exists(),
            "{path} is missing: install kmscube, libegl-mesa0 and libgl1-mesa-dri"
        );
    }
    Ok(())
}

/// The same guest with Mesa's driver for virgl and [`CUBE`].
///
/// # Errors
///
/// If the host lacks them.
pub fn add_to(artifacts: &Artifacts) -> anyhow::Result<Artifacts> {
    check()?;
    let base = fs::read(&artifacts.initramfs).context("cannot read the initramfs")?;
    let mut hasher = DefaultHasher::new();
    base.hash(&mut hasher);
    for path in [CUBE].iter().chain(&LIBRARIES) {
        let data = fs::metadata(path)?;
        (data.len(), data.modified()?).hash(&mut hasher);
    }
    let name = format!("initramfs-gl-{:016x}", hasher.finish());
    let path = paths::build_dir().join(name);
    if !path.exists() {
        write(base, &path)?;
    }
    Ok(Artifacts {
        initramfs: path,
        ..artifacts.clone()
    })
}

/// The kernel unpacks one archive after the other.
fn write(mut bytes: Vec<u8>, path: &PathBuf) -> anyhow::Result<()> {
    let mut archive = Archive::default();
    for program in [CUBE].iter().chain(&LIBRARIES) {
        archive.program(Path::new(program), program)?;
    }
    for file in FILES {
        archive.copy(Path::new(file), file)?;
    }
    bytes.extend(archive.finish()?);
    let new = path.with_extension(std::process::id().to_string());
    fs::write(&new, bytes).with_context(|| format!("cannot write {}", new.display()))?;
    fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}
