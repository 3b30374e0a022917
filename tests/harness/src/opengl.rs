//! A guest with OpenGL: Mesa and a program that draws, as the host has them installed.

use std::path::Path;

use anyhow::bail;

use crate::qemu::Builder;

/// Draws a turning cube on the screen, without a desktop (Debian package kmscube).
pub const CUBE: &str = "/usr/bin/kmscube";

/// What Mesa loads by name, so that no program says that it needs it.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/dri/virtio_gpu_dri.so",
];
const VENDOR: &str = "/usr/share/glvnd/egl_vendor.d/50_mesa.json";
/// All of it lies in the guest's memory.
const MEMORY: &str = "1G";

/// What the host lacks for such a guest.
#[must_use]
pub fn missing() -> Option<String> {
    let path = [CUBE, VENDOR]
        .into_iter()
        .chain(LIBRARIES)
        .find(|path| !Path::new(path).exists())?;
    Some(format!(
        "{path} is missing: install kmscube, libegl-mesa0 and libgl1-mesa-dri"
    ))
}

/// Adds Mesa's driver for virgl and [`CUBE`] to a guest.
///
/// # Errors
///
/// If the host lacks them.
pub fn add_to(guest: Builder<'_>) -> anyhow::Result<Builder<'_>> {
    if let Some(reason) = missing() {
        bail!("{reason}");
    }
    let guest = LIBRARIES
        .iter()
        .fold(guest, |guest, library| guest.library(Path::new(library)));
    Ok(guest
        .program(Path::new(CUBE))
        .file(Path::new(VENDOR))
        .memory(MEMORY))
}
