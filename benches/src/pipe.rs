// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An input device that is a named pipe, and answers as evdev does by a preloaded library.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use nix::sys::stat::Mode;
use tempfile::TempDir;

/// The library, beside this program.
const LIBRARY: &str = "libbench_evdev.so";

/// A device that is played.
#[derive(Debug)]
pub(crate) struct PipeDevice {
    folder: TempDir,
    pipe: File,
    library: PathBuf,
}

impl PipeDevice {
    /// The device that `description` (of `harness::mock`) is of.
    ///
    /// # Errors
    /// If the library is not built, or there is no pipe to be had.
    pub(crate) fn start(description: &str) -> anyhow::Result<Self> {
        let library = std::env::current_exe()?.with_file_name(LIBRARY);
        ensure!(
            library.is_file(),
            "{} is missing: cargo build --release -p bench-evdev",
            library.display()
        );
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("description"), description)?;
        let path = folder.path().join("event0");
        nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
        // Open for both directions: it is there before and after the program.
        let pipe = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self {
            folder,
            pipe,
            library,
        })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> String {
        self.folder.path().join("event0").display().to_string()
    }

    /// What a program needs in its environment to take it for a device.
    pub(crate) fn environment(&self) -> [(&'static str, String); 2] {
        let description = self.folder.path().join("description");
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("BENCH_EVDEV", description.display().to_string()),
        ]
    }

    /// Sends a report: these events, and its end.
    ///
    /// # Errors
    /// As `write(2)`.
    pub(crate) fn report(&mut self, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity((events.len() + 1) * 24);
        for (kind, code, value) in events.iter().chain(&[(0, 0, 0)]) {
            // struct input_event of 64-bit machines. The time is never 0, as the kernel's.
            bytes.extend(1_u64.to_ne_bytes());
            bytes.extend([0; 8]);
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
        }
        self.pipe.write_all(&bytes).context("the pipe")
    }
}
