// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A guest with Vulkan: Mesa's driver for Venus, and programs that draw. The host renders by lavapipe.
//!
//! All of it is what the host has installed, and Debian 13 has too little of it: `make check-vulkan` runs the tests in a
//! root of Debian sid.

use std::path::Path;

use anyhow::{Context as _, bail};

use crate::qemu::Builder;
use crate::{opengl, paths};

/// Renders for one VM, over a socket (Debian package virgl-server).
pub const RENDER_SERVER: &str = "/usr/libexec/virgl_render_server";
/// Describes the Vulkan devices, and draws a turning cube (vulkan-tools).
pub const INFO: &str = "/usr/bin/vulkaninfo";
/// As [`INFO`].
pub const CUBE: &str = "/usr/bin/vkcube";
/// Shows one Wayland program on the whole screen.
const COMPOSITOR: &str = "/usr/bin/cage";
/// Opens the screen for it.
const SEATS: &str = "/usr/sbin/seatd";

const DRIVER: &str = "/usr/share/vulkan/icd.d/virtio_icd.json";
const HOST_DRIVER: &str = "/usr/share/vulkan/icd.d/lvp_icd.json";
/// What is loaded by name, so that no program says that it needs it.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libvulkan_virtio.so",
    "/usr/lib/x86_64-linux-gnu/libvulkan.so.1",
    "/usr/lib/x86_64-linux-gnu/libwayland-client.so.0",
    "/usr/lib/x86_64-linux-gnu/libxcb.so.1",
];
/// What OpenGL needs beside it: Mesa's EGL, its drivers, and how it finds its surfaces.
const OPENGL_LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/libEGL.so.1",
    "/usr/lib/x86_64-linux-gnu/libEGL_mesa.so.0",
    "/usr/lib/x86_64-linux-gnu/dri/virtio_gpu_dri.so",
    "/usr/lib/x86_64-linux-gnu/gbm/dri_gbm.so",
];
const OPENGL_VENDOR: &str = "/usr/share/glvnd/egl_vendor.d/50_mesa.json";
/// All of it lies in the guest's memory.
const MEMORY: &str = "1536M";
/// As [`MEMORY`], with OpenGL.
const OPENGL_MEMORY: &str = "2G";

/// What the host lacks for such a guest and its renderer.
#[must_use]
pub fn missing() -> Option<String> {
    let path = [
        RENDER_SERVER,
        opengl::CUBE,
        INFO,
        CUBE,
        COMPOSITOR,
        SEATS,
        DRIVER,
        HOST_DRIVER,
        OPENGL_VENDOR,
    ]
    .into_iter()
    .chain(LIBRARIES)
    .chain(OPENGL_LIBRARIES)
    .find(|path| !Path::new(path).exists())?;
    Some(format!(
        "{path} is missing: Vulkan is tested by make check-vulkan"
    ))
}

/// Adds Mesa's driver for Venus and the programs to a guest.
///
/// # Errors
///
/// If the host lacks them.
pub fn add_to(guest: Builder<'_>) -> anyhow::Result<Builder<'_>> {
    if let Some(reason) = missing() {
        bail!("{reason}");
    }
    let check = paths::program("vulkan-check").context("a program of the guest")?;
    let guest = LIBRARIES
        .iter()
        .fold(guest, |guest, library| guest.library(Path::new(library)));
    let guest = [INFO, CUBE, COMPOSITOR, SEATS]
        .iter()
        .fold(guest, |guest, program| guest.program(Path::new(program)));
    Ok(guest.program(&check).file(Path::new(DRIVER)).memory(MEMORY))
}

/// Adds Mesa's OpenGL and [`opengl::CUBE`] to a guest, which draws by virgl or, with the libraries of [`add_to`], by Vulkan.
///
/// # Errors
///
/// If the host lacks them.
pub fn add_opengl_to(guest: Builder<'_>) -> anyhow::Result<Builder<'_>> {
    if let Some(reason) = missing() {
        bail!("{reason}");
    }
    let check = paths::program("opengl-check").context("a program of the guest")?;
    let guest = OPENGL_LIBRARIES
        .iter()
        .fold(guest, |guest, library| guest.library(Path::new(library)));
    Ok(guest
        .program(&check)
        .program(Path::new(opengl::CUBE))
        .file(Path::new(OPENGL_VENDOR))
        .memory(OPENGL_MEMORY))
}

/// The agent's command that shows a Wayland program on the guest's screen, with its output in `/tmp/cage`. Needs
/// [`start_seats`] before.
#[must_use]
pub fn show(program: &str) -> String {
    format!(
        "spawn /tmp/cage /bin/env XDG_RUNTIME_DIR=/tmp LIBSEAT_BACKEND=seatd WLR_BACKENDS=drm WLR_RENDERER=pixman MESA_VK_WSI_DEBUG=sw \
         WLR_DRM_DEVICES=/dev/dri/card0 {COMPOSITOR} -- {program}"
    )
}

/// The agent's command that starts what [`show`] needs.
#[must_use]
pub fn start_seats() -> String {
    "spawn /tmp/seatd /bin/env SEATD_VTBOUND=0 /usr/bin/seatd".to_owned()
}
