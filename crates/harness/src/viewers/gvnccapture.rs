// SPDX-License-Identifier: Apache-2.0 OR MIT
//! gtk-vnc's gvnccapture(1), which saves one picture.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::Unpacked;
use super::relay::Relay;
use crate::image::Image;
use crate::run::run;

/// Where the ports of RFB begin: displays are counted from there.
const FIRST_PORT: u16 = 5900;

/// The screen behind the socket, as gvnccapture saves it.
///
/// # Errors
///
/// If it fails; it ends by itself if it gets no picture.
pub fn gvnccapture(viewers: &Unpacked, socket: &Path) -> anyhow::Result<Image> {
    let folder = tempfile::tempdir().context("cannot create a folder for a picture")?;
    let picture = folder.path().join("screen.png");
    // gvncviewer takes a path, gvnccapture does not.
    let relay = Relay::start(socket)?;
    let display = relay
        .address
        .port()
        .checked_sub(FIRST_PORT)
        .context("the kernel gave a port below those of displays")?;
    let mut command = viewers.command("usr/bin/gvnccapture");
    command
        .arg("--quiet")
        .arg(format!("127.0.0.1:{display}"))
        .arg(&picture)
        .env("HOME", folder.path());
    run(&mut command)?;
    Image::from_png(&fs::read(&picture).context("gvnccapture saved no picture")?)
}
