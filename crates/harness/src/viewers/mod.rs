// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers of a console that other projects made: TigerVNC, gtk-vnc, vncdotool, and noVNC in Chromium.
//!
//! Each is given a Unix socket on which somebody speaks RFB, and does what a person would have it do: show the
//! screen, type, click. TigerVNC, its X server and xdotool are installed; the others are unpacked into the
//! build folder ([`Unpacked`]), as they are large or would bring a desktop along. [`RfbViewer`] is our own, and
//! [`Tour`] tries them all.

mod browser;
mod gvnccapture;
mod novnc;
mod relay;
mod rfb_viewer;
mod tigervnc;
mod tour;
mod vncdotool;
mod x_server;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::image::Image;
use crate::packages;
use crate::run::is_installed;

pub use self::gvnccapture::gvnccapture;
pub use self::novnc::NoVnc;
pub use self::rfb_viewer::RfbViewer;
pub use self::tigervnc::{Encoding, TigerVnc};
pub use self::tour::{TEXT, Tour};
pub use self::vncdotool::Vncdotool;
pub use self::x_server::XServer;

/// Debian's interpreter, which knows where Debian's modules are.
const PYTHON: &str = "/usr/bin/python3";

/// The viewers that are not installed, in a folder of the build.
#[derive(Debug, Clone)]
pub struct Unpacked {
    root: PathBuf,
}

impl Unpacked {
    /// Fetches them on first use.
    ///
    /// # Errors
    ///
    /// If one cannot be fetched.
    pub fn obtain() -> anyhow::Result<Self> {
        let root = packages::viewers()?;
        Ok(Self { root })
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A program of theirs, at this path in the packages, with the libraries that came along.
    fn command(&self, path: &str) -> Command {
        self.with_libraries(Command::new(self.path(path)))
    }

    /// Debian's Python with the modules that came along and, before them, those below `modules`.
    fn python(&self, modules: Option<&Path>) -> anyhow::Result<Command> {
        let own = self.path("usr/lib/python3/dist-packages");
        let folders = modules.into_iter().chain([own.as_path()]);
        let path = std::env::join_paths(folders).context("a folder's name has a colon in it")?;
        let mut command = self.with_libraries(Command::new(PYTHON));
        command.env("PYTHONPATH", path);
        Ok(command)
    }

    fn with_libraries(&self, mut command: Command) -> Command {
        let libraries = self.path("usr/lib/x86_64-linux-gnu");
        let pulse = libraries.join("pulseaudio");
        let path = format!("{}:{}", libraries.display(), pulse.display());
        command.env("LD_LIBRARY_PATH", path);
        command
    }
}

/// What the viewers need and this machine does not have.
#[must_use]
pub fn missing() -> Option<String> {
    let programs = [
        ("Xvfb", "xvfb"),
        ("xdotool", "xdotool"),
        (tigervnc::PROGRAM, "tigervnc-viewer"),
        (PYTHON.trim_start_matches("/usr/bin/"), "python3"),
    ];
    let lacking: Vec<&str> = programs
        .into_iter()
        .filter(|(program, _)| !is_installed(program))
        .map(|(_, package)| package)
        .collect();
    if !lacking.is_empty() {
        return Some(format!(
            "viewers need the packages {}",
            lacking.join(" and ")
        ));
    }
    packages::vncdotool()
        .is_none()
        .then(|| "vncdotool is not there: make peers".to_owned())
}

/// Looks at `picture` again and again until it is there and is `expected`.
fn wait_picture(
    expected: &Image,
    timeout: Duration,
    mut picture: impl FnMut() -> anyhow::Result<Image>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let problem = match picture().map(|picture| picture.difference(expected)) {
            Ok(None) => return Ok(()),
            Ok(Some(difference)) => anyhow::anyhow!("{difference}"),
            Err(error) => error,
        };
        if Instant::now() > deadline {
            return Err(problem);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
