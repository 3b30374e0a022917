// SPDX-License-Identifier: Apache-2.0 OR MIT
//! TigerVNC's viewer in a window of an X server.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use super::x_server::XServer;
use crate::guarded::Guarded;
use crate::image::Image;

pub(super) const PROGRAM: &str = "xtigervncviewer";

/// How it asks for pixels. All are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As they are.
    Raw,
    /// Runs and palettes, compressed.
    Zrle,
    /// As ZRLE, by other means; without JPEG.
    Tight,
}

impl Encoding {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Raw, Self::Zrle, Self::Tight];

    fn name(self) -> &'static str {
        match self {
            Self::Raw => "Raw",
            Self::Zrle => "ZRLE",
            Self::Tight => "Tight",
        }
    }
}

/// Where a window is on the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Area {
    x: u32,
    y: u32,
    width: u32,
    height: u32,
}

/// A running viewer; dropping it ends it.
#[derive(Debug)]
pub struct TigerVnc<'a> {
    server: &'a XServer<'a>,
    viewer: Guarded,
    /// The window's number, for xdotool.
    window: String,
    home: TempDir,
}

impl<'a> TigerVnc<'a> {
    /// Starts it on a socket and waits for its window.
    ///
    /// # Errors
    ///
    /// If it shows none within `timeout`; the message has what it said.
    pub fn start(
        server: &'a XServer<'a>,
        socket: &Path,
        encoding: Encoding,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut command = command(server, encoding);
        command.arg("-RemoteResize=0").arg(socket);
        Self::start_by(server, command, timeout)
    }

    /// As [`TigerVnc::start`], with a window whose size the guest's screen is to follow.
    ///
    /// # Errors
    ///
    /// As [`TigerVnc::start`].
    pub fn start_resizing(
        server: &'a XServer<'a>,
        socket: &Path,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let mut command = command(server, Encoding::Raw);
        command.arg("-RemoteResize=1").arg(socket);
        Self::start_by(server, command, timeout)
    }

    /// Starts it by a command that opens exactly one window with a guest's screen on the server.
    ///
    /// # Errors
    ///
    /// If it shows none within `timeout`; the message has what it said.
    pub fn start_by(
        server: &'a XServer<'a>,
        mut command: Command,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let home = tempfile::tempdir().context("cannot create a folder for the viewer")?;
        let log = File::create(home.path().join("log")).context("cannot create a log")?;
        command
            .env("HOME", home.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let viewer = Guarded::spawn(&mut command)?;
        let mut this = Self {
            server,
            viewer,
            window: String::new(),
            home,
        };
        this.window = this.find_window(timeout)?;
        Ok(this)
    }

    fn find_window(&mut self, timeout: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + timeout;
        loop {
            // It fails as long as there is none.
            let words = ["search", "--onlyvisible", "--name", " - TigerVNC$"];
            let windows = self.server.xdotool(&words).unwrap_or_default();
            if let Some(window) = windows.lines().next() {
                return Ok(window.to_owned());
            }
            if let Some(status) = self.viewer.try_wait()? {
                bail!("TigerVNC ended: {status}: {}", self.said());
            }
            if Instant::now() > deadline {
                bail!("TigerVNC shows no window: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Gives the window another size.
    ///
    /// # Errors
    ///
    /// If xdotool fails.
    pub fn resize(&self, (width, height): (u32, u32)) -> anyhow::Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        let words = ["windowsize", &self.window, &width, &height];
        self.server.xdotool(&words)?;
        Ok(())
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    fn area(&self) -> anyhow::Result<Area> {
        let words = ["getwindowgeometry", "--shell", &self.window];
        let text = self.server.xdotool(&words)?;
        let number = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            let value = value.with_context(|| format!("no {name}: {text}"))?;
            value.parse().with_context(|| format!("{name}: {text}"))
        };
        Ok(Area {
            x: number("X")?,
            y: number("Y")?,
            width: number("WIDTH")?,
            height: number("HEIGHT")?,
        })
    }

    /// What the window shows.
    ///
    /// # Errors
    ///
    /// If the window has gone.
    pub fn picture(&self) -> anyhow::Result<Image> {
        let Area {
            x,
            y,
            width,
            height,
        } = self.area()?;
        Ok(self.server.screen()?.crop(x, y, width, height))
    }

    /// Waits until the window shows `expected`, as large as it is.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_picture(&self, expected: &Image, timeout: Duration) -> anyhow::Result<()> {
        super::wait_picture(expected, timeout, || self.picture())
            .with_context(|| format!("TigerVNC: {}", self.said()))
    }

    /// Types on the X server's keyboard, in the window.
    ///
    /// # Errors
    ///
    /// If xdotool fails.
    pub fn type_text(&self, text: &str) -> anyhow::Result<()> {
        self.server
            .xdotool(&["windowfocus", "--sync", &self.window])?;
        self.server
            .xdotool(&["type", "--delay", "20", "--", text])?;
        Ok(())
    }

    /// Presses a key of the X server's keyboard and holds it.
    ///
    /// # Errors
    ///
    /// If xdotool fails.
    pub fn press(&self, key: &str) -> anyhow::Result<()> {
        self.server
            .xdotool(&["windowfocus", "--sync", &self.window])?;
        self.server.xdotool(&["keydown", key])?;
        Ok(())
    }

    /// Clicks with the X server's pointer, at a pixel of the guest's screen.
    ///
    /// # Errors
    ///
    /// If xdotool fails.
    pub fn click(&self, (x, y): (u32, u32)) -> anyhow::Result<()> {
        let (x, y) = (x.to_string(), y.to_string());
        let words = ["mousemove", "--sync", "--window", &self.window, &x, &y];
        self.server.xdotool(&words)?;
        self.server.xdotool(&["click", "1"])?;
        Ok(())
    }

    /// Sends its process a signal.
    ///
    /// # Errors
    ///
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.viewer.signal(signal)
    }
}

/// It shows one pixel for one, all colours, exactly.
fn command(server: &XServer<'_>, encoding: Encoding) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args(["-display", server.display(), "-SecurityTypes=None"])
        .args(["-AutoSelect=0", "-FullColor=1", "-NoJPEG=1"])
        // Other viewers may stay.
        .args(["-Shared=1", "-AlertOnFatalError=0"])
        // Nothing may lie over the screen: no note about the menu key, no graph as more log brings it.
        .args(["-MenuKey=", "-ReconnectOnError=0", "-Log=*:stderr:30"])
        .arg(format!("-PreferredEncoding={}", encoding.name()));
    command
}
