// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest with OpenGL: Mesa and a program that draws, as the host has them installed.

use std::path::Path;

use anyhow::bail;

use crate::packages;
use crate::qemu::Builder;

/// Draws a turning cube on the screen, without a desktop (Debian package kmscube).
pub const CUBE: &str = "/usr/bin/kmscube";

/// What Mesa loads by name, so that no program says that it needs it.
const LIBRARIES: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/dri/virtio_gpu_dri.so",
];
const VENDOR: &str = "/usr/share/glvnd/egl_vendor.d/50_mesa.json";
/// What vhost-user-gpu loads by name: its own libraries, as the host has them installed.
const RENDERER_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libvirglrenderer.so.1",
    "/usr/lib/x86_64-linux-gnu/libEGL.so.1",
    "/usr/lib/x86_64-linux-gnu/libGL.so.1",
];
const INSTALLED_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/libgbm.so.1",
    "/usr/lib/x86_64-linux-gnu/dri/kms_swrast_dri.so",
];
/// What libgbm loads by name, where it is a library of its own.
const GBM_BACKEND: &str = "/usr/lib/x86_64-linux-gnu/gbm/dri_gbm.so";
/// A Mesa whose llvmpipe passes its textures on as dmabufs by /dev/udmabuf.
const PASSING_MESA: (u32, u32) = (24, 2);
const NEWER_MESA: [&str; 7] = [
    "libegl-mesa0",
    "libdrm2",
    "libdrm-amdgpu1",
    "libdrm-intel1",
    "libgbm1",
    "libgl1-mesa-dri",
    "mesa-libgallium",
];
const NEWER_LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/libgbm.so.1",
    GBM_BACKEND,
    "/usr/lib/x86_64-linux-gnu/dri/kms_swrast_dri.so",
];
/// All of it lies in the guest's memory.
const MEMORY: &str = "1G";

fn gbm_backend() -> Option<&'static str> {
    Path::new(GBM_BACKEND).exists().then_some(GBM_BACKEND)
}

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
        .into_iter()
        .chain(gbm_backend())
        .fold(guest, |guest, library| guest.library(Path::new(library)));
    Ok(guest
        .program(Path::new(CUBE))
        .file(Path::new(VENDOR))
        .memory(MEMORY))
}

/// Which Mesa vhost-user-gpu renders with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mesa {
    /// The host's.
    Installed,
    /// One whose software passes its textures on.
    Newer,
}

/// What the host lacks for a guest that renders as a host does.
#[must_use]
pub fn renderer_missing() -> Option<String> {
    let path = RENDERER_LIBRARIES
        .into_iter()
        .chain(INSTALLED_LIBRARIES)
        .chain([VENDOR])
        .find(|path| !Path::new(path).exists())?;
    Some(format!(
        "{path} is missing: install libvirglrenderer1, libegl1, libegl-mesa0, libgl1 and libgl1-mesa-dri"
    ))
}

/// Adds what vhost-user-gpu renders with to a guest that plays the host.
///
/// # Errors
///
/// If the host lacks it, or a newer Mesa cannot be fetched.
pub fn add_renderer_to(guest: Builder<'_>, mesa: Mesa) -> anyhow::Result<Builder<'_>> {
    if let Some(reason) = renderer_missing() {
        bail!("{reason}");
    }
    let guest = match mesa {
        Mesa::Installed => INSTALLED_LIBRARIES
            .into_iter()
            .chain(gbm_backend())
            .fold(guest, |guest, path| guest.library(Path::new(path))),
        Mesa::Newer => {
            let mesa = packages::unpacked_with("newer-mesa", &NEWER_MESA, PASSING_MESA)?;
            NEWER_LIBRARIES
                .iter()
                .fold(guest, |guest, path| guest.unpacked_library(&mesa, path))
        }
    };
    Ok(RENDERER_LIBRARIES
        .iter()
        .fold(guest, |guest, library| guest.library(Path::new(library)))
        .file(Path::new(VENDOR))
        .memory("1536M"))
}
