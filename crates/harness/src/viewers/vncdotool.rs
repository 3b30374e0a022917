// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vncdotool, a client in Python from PyPI.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::Unpacked;
use crate::image::Image;
use crate::packages;
use crate::run::run;

/// The client and its socket. Each call is a connection of its own.
#[derive(Debug)]
pub struct Vncdotool<'a> {
    viewers: &'a Unpacked,
    modules: PathBuf,
    socket: PathBuf,
}

impl<'a> Vncdotool<'a> {
    /// A client of this socket.
    ///
    /// # Errors
    ///
    /// If `make peers` has not fetched it.
    pub fn new(viewers: &'a Unpacked, socket: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            viewers,
            modules: packages::vncdotool().context("vncdotool is not there: make peers")?,
            socket: socket.to_owned(),
        })
    }

    fn command(&self) -> anyhow::Result<Command> {
        let mut command = self.viewers.python(Some(&self.modules))?;
        command
            .args(["-m", "vncdotool.command", "--nocursor", "--timeout=90"])
            .arg("--server")
            .arg(&self.socket);
        Ok(command)
    }

    /// The screen.
    ///
    /// # Errors
    ///
    /// If it fails, or gets no picture.
    pub fn capture(&self) -> anyhow::Result<Image> {
        self.capture_after(&[])
    }

    /// The screen after these commands. A server that closes its socket first (QEMU) may forget what came last;
    /// one that has sent a picture has read all that was before.
    fn capture_after(&self, commands: &[&str]) -> anyhow::Result<Image> {
        let folder = tempfile::tempdir().context("cannot create a folder for a picture")?;
        let picture = folder.path().join("screen.png");
        run(self.command()?.args(commands).arg("capture").arg(&picture))?;
        Image::from_png(&fs::read(&picture).context("vncdotool saved no picture")?)
    }

    /// Types, by the names of keys.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn type_text(&self, text: &str) -> anyhow::Result<()> {
        self.capture_after(&["type", text]).map(drop)
    }

    /// Clicks at a pixel of the screen.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn click(&self, (x, y): (u32, u32)) -> anyhow::Result<()> {
        let (x, y) = (x.to_string(), y.to_string());
        self.capture_after(&["move", &x, &y, "click", "1"])
            .map(drop)
    }
}
