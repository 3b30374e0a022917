// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An X server without a screen: Xvfb.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use crate::guarded::Guarded;
use crate::image::Image;
use crate::run::read;
use crate::systemd::Sandbox;

/// Large enough for a window of 1920x1080, wherever its program places it.
const SCREEN: &str = "2048x1200x24";

/// A running X server of our own; dropping it ends it.
#[derive(Debug)]
pub struct XServer<'a> {
    display: String,
    /// Where it has its screen, by a path for us.
    folder: PathBuf,
    /// Where its clients run.
    sandbox: Option<&'a Sandbox>,
    server: Guarded,
    _temporary: Option<TempDir>,
}

impl XServer<'static> {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder for Xvfb")?;
        let command = Command::new("Xvfb");
        let path = folder.path().to_owned();
        Self::begin(None, command, &path, path.clone(), Some(folder))
    }
}

impl<'a> XServer<'a> {
    /// The same for programs in a private systemd, where it runs too.
    ///
    /// # Errors
    ///
    /// If it does not start.
    pub fn start_in(sandbox: &'a Sandbox) -> anyhow::Result<Self> {
        let inside = Path::new("/run/x-server");
        let folder = sandbox.path("/run/x-server");
        fs::create_dir(&folder).context("cannot create a folder for Xvfb")?;
        let command = sandbox.command(["Xvfb"]);
        Self::begin(Some(sandbox), command, inside, folder, None)
    }

    /// Starts it by a command, with its screen in a folder: by a path for it, and by one for us.
    fn begin(
        sandbox: Option<&'a Sandbox>,
        mut command: Command,
        its_folder: &Path,
        folder: PathBuf,
        temporary: Option<TempDir>,
    ) -> anyhow::Result<Self> {
        let log = File::create(folder.join("log")).context("cannot create Xvfb's log")?;
        command
            // It picks a number that is free. The pointer would be part of the picture.
            .args([
                "-displayfd",
                "1",
                "-nocursor",
                "-noreset",
                "-nolisten",
                "tcp",
            ])
            .args(["-screen", "0", SCREEN, "-fbdir"])
            .arg(its_folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut server = Guarded::spawn(&mut command)?;
        let output = server.child().stdout.take().context("Xvfb has no output")?;
        let mut number = String::new();
        // It ends, and so the line, if it cannot serve.
        BufReader::new(output)
            .read_line(&mut number)
            .context("Xvfb does not say its number")?;
        let log = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        ensure!(!number.trim().is_empty(), "Xvfb does not start: {}", log());
        Ok(Self {
            display: format!(":{}", number.trim()),
            folder,
            sandbox,
            server,
            _temporary: temporary,
        })
    }

    /// What `DISPLAY` is for its clients.
    #[must_use]
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// Runs xdotool(1) and returns what it says.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn xdotool(&self, words: &[&str]) -> anyhow::Result<String> {
        let mut command = match self.sandbox {
            Some(sandbox) => {
                sandbox.command(["env", &format!("DISPLAY={}", self.display), "xdotool"])
            }
            None => Command::new("xdotool"),
        };
        read(command.args(words).env("DISPLAY", &self.display))
    }

    /// The whole screen.
    ///
    /// # Errors
    ///
    /// If its format is unknown.
    pub fn screen(&self) -> anyhow::Result<Image> {
        let file = self.folder.join("Xvfb_screen0");
        let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        from_xwd(&bytes)
    }
}

/// Reads an X window dump of 32 bits a pixel, as `XWDFile.h` describes it.
fn from_xwd(bytes: &[u8]) -> anyhow::Result<Image> {
    let words = bytes.chunks_exact(4).filter_map(<[u8]>::first_chunk);
    let words: Vec<&[u8; 4]> = words.collect();
    let word = |index: usize| {
        let word = words.get(index).context("an X window dump cut short")?;
        anyhow::Ok(u32::from_be_bytes(**word))
    };
    let (header, width, height) = (word(0)?, word(4)?, word(5)?);
    let (order, bits, stride, colours) = (word(7)?, word(11)?, word(12)?, word(19)?);
    let masks = [word(14)?, word(15)?, word(16)?];
    ensure!(
        bits == 32 && order == 0 && masks == [0xff_00_00, 0xff_00, 0xff],
        "not 32 bits a pixel, the lowest blue: {bits}, {order}, {masks:x?}"
    );
    // A colour of the map has 12 bytes.
    let start = usize::try_from(u64::from(header) + 12 * u64::from(colours))?;
    let (row, stride) = (usize::try_from(width)?, usize::try_from(stride)? / 4);
    let pixels = words.get(start / 4..).context("no pixels")?;
    let rows = pixels.chunks_exact(stride.max(1)).take(height as usize);
    let pixels: Vec<u32> = rows
        .filter_map(|line| line.get(..row))
        .flatten()
        .map(|pixel| u32::from_le_bytes(**pixel) & 0xff_ff_ff)
        .collect();
    ensure!(
        pixels.len() == row * height as usize,
        "an X window dump cut short"
    );
    Ok(Image {
        width,
        height,
        pixels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_dump_is_read_row_by_row() {
        let mut words = [0_u32; 26];
        (words[0], words[4], words[5], words[11]) = (104, 1, 2, 32);
        // Rows are padded to two pixels, and the map has one colour.
        (words[12], words[19]) = (8, 1);
        (words[14], words[15], words[16]) = (0xff_00_00, 0xff_00, 0xff);
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        bytes.extend([0; 12]);
        for pixel in [0xff_01_02_03_u32, 0, 0x04_05_06, 0] {
            bytes.extend(pixel.to_le_bytes());
        }
        let image = from_xwd(&bytes).expect("a picture");
        assert_eq!(image.pixels, [0x01_02_03, 0x04_05_06]);
        assert!(from_xwd(&bytes[..bytes.len() - 8]).is_err());
    }
}
