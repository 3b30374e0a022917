//! A guest with OpenGL: Mesa and a program that draws, as the host has them installed.

use std::path::Path;

use anyhow::ensure;

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

/// Adds Mesa's driver for virgl and [`CUBE`] to a guest.
///
/// # Errors
///
/// If the host lacks them.
pub fn add_to(guest: Builder<'_>) -> anyhow::Result<Builder<'_>> {
    for path in [CUBE, VENDOR].iter().chain(&LIBRARIES) {
        ensure!(
            Path::new(path).exists(),
            "{path} is missing: install kmscube, libegl-mesa0 and libgl1-mesa-dri"
        );
    }
    let guest = LIBRARIES
        .iter()
        .fold(guest, |guest, library| guest.library(Path::new(library)));
    Ok(guest
        .program(Path::new(CUBE))
        .file(Path::new(VENDOR))
        .memory(MEMORY))
}
