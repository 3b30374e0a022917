// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Mock input devices: evdev nodes played by umockdev.
//!
//! A device is described in the text form of [`guest::input`]; from it the mock answers
//! every evdev request. Programs under test find it at `/dev/input/eventN` when they run
//! with [`MockInput::environment`], and need not know.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use guest::input::Description;
use tempfile::TempDir;

use crate::run::run;
use crate::systemd::Sandbox;

const SERVER: &str = include_str!("server.py");
/// Debian's own: another Python in `PATH` lacks its modules.
const PYTHON: &str = "/usr/bin/python3";
const PRELOAD: &str = "libumockdev-preload.so.0";
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A keyboard with LEDs.
pub const KEYBOARD: &str = include_str!("../../devices/keyboard.evdev");
/// A mouse with a wheel.
pub const MOUSE: &str = include_str!("../../devices/mouse.evdev");
/// A pen tablet with absolute axes.
pub const TABLET: &str = include_str!("../../devices/tablet.evdev");
/// A touch screen for ten fingers.
pub const TOUCHSCREEN: &str = include_str!("../../devices/touchscreen.evdev");

/// Event types and codes that tests use, as in `linux/input-event-codes.h`.
pub mod codes {
    /// Marks the end of a report, among others.
    pub const EV_SYN: u16 = 0;
    /// Keys and buttons.
    pub const EV_KEY: u16 = 1;
    /// Relative movement.
    pub const EV_REL: u16 = 2;
    /// Absolute position.
    pub const EV_ABS: u16 = 3;
    /// Events that fit nowhere else.
    pub const EV_MSC: u16 = 4;
    /// Switches, such as that of a lid.
    pub const EV_SW: u16 = 5;
    /// LEDs.
    pub const EV_LED: u16 = 17;
    /// Sounds.
    pub const EV_SND: u16 = 18;
    /// Repetition of keys.
    pub const EV_REP: u16 = 20;
    /// The end of a report.
    pub const SYN_REPORT: u16 = 0;
    /// The kernel lost events: the reader has to ask for the state.
    pub const SYN_DROPPED: u16 = 3;
}

/// Why mock devices cannot run here; `None` if they can.
#[must_use]
pub fn missing() -> Option<String> {
    let import =
        "import gi; gi.require_version('UMockdev', '1.0'); from gi.repository import UMockdev";
    run(Command::new(PYTHON).args(["-c", import]))
        .err()
        .map(|_| {
            "mock devices need the packages umockdev, gir1.2-umockdev-1.0 and python3-gi".to_owned()
        })
}

/// What a device reports back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Notice {
    Led { device: usize, code: u16, lit: bool },
    Grab { device: usize, held: bool },
    Synced { device: usize },
}

/// A set of mock devices; dropping it removes them.
#[derive(Debug)]
pub struct MockInput {
    server: Child,
    commands: Option<ChildStdin>,
    notices: Receiver<Notice>,
    past: Vec<Notice>,
    root: PathBuf,
    devices: Vec<Description>,
    folder: Option<TempDir>,
}

impl MockInput {
    /// Plays devices on the host; the first one is `/dev/input/event0`.
    ///
    /// # Errors
    ///
    /// If a description is wrong or umockdev cannot run here.
    pub fn start(descriptions: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("cannot create a folder")?;
        let mut arguments = vec![PYTHON.to_owned(), "-c".to_owned(), SERVER.to_owned()];
        for (index, text) in descriptions.iter().enumerate() {
            let path = folder.path().join(index.to_string());
            fs::write(&path, text).context("cannot write a device description")?;
            arguments.push(path.display().to_string());
        }
        let mut command = Command::new(&arguments[0]);
        // umockdev leaves its own folder behind: let it lie in ours.
        command.args(&arguments[1..]).env("TMPDIR", folder.path());
        let mut mock = Self::run(command, descriptions)?;
        mock.folder = Some(folder);
        Ok(mock)
    }

    /// Plays devices inside a private systemd, for its units.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start).
    pub fn start_in(sandbox: &Sandbox, descriptions: &[&str]) -> anyhow::Result<Self> {
        // Not in /tmp, which units with PrivateTmp= do not share.
        let mut arguments = vec![
            "env".to_owned(),
            "TMPDIR=/run/harness".to_owned(),
            PYTHON.to_owned(),
            "/run/harness/server.py".to_owned(),
        ];
        sandbox.write("/run/harness/server.py", SERVER)?;
        for (index, text) in descriptions.iter().enumerate() {
            let path = format!("/run/harness/device{index}");
            sandbox.write(&path, text)?;
            arguments.push(path);
        }
        Self::run(sandbox.command(&arguments), descriptions)
    }

    fn run(mut command: Command, descriptions: &[&str]) -> anyhow::Result<Self> {
        let devices = descriptions
            .iter()
            .map(|text| text.parse())
            .collect::<Result<Vec<Description>, _>>()?;
        let mut server = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {PYTHON}"))?;
        let output = server.stdout.take().context("the mock has no output")?;
        let commands = server.stdin.take();
        let (ready, is_ready) = channel();
        let (sender, notices) = channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Whoever stopped to listen needs no notice.
                if let Some(root) = line.strip_prefix("ready ") {
                    let _ = ready.send(PathBuf::from(root));
                } else if let Some(notice) = read_notice(&line) {
                    let _ = sender.send(notice);
                }
            }
        });
        let mut mock = Self {
            server,
            commands,
            notices,
            past: Vec::new(),
            root: PathBuf::new(),
            devices,
            folder: None,
        };
        match is_ready.recv_timeout(START_TIMEOUT) {
            Ok(root) => mock.root = root,
            Err(_) => bail!(missing().unwrap_or_else(|| "the mock devices do not start".into())),
        }
        Ok(mock)
    }

    /// What a program has to have in its environment to see the devices.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("LD_PRELOAD", PRELOAD.to_owned()),
            ("UMOCKDEV_DIR", self.root.display().to_string()),
        ]
    }

    /// What a service has to have in its unit to see the devices: a drop-in.
    /// What stands for the device is a terminal, so that is what must be allowed.
    #[must_use]
    pub fn drop_in(&self) -> String {
        let mut text = "[Service]\nDeviceAllow=char-pts rw\n".to_owned();
        for (name, value) in self.environment() {
            text += &format!("Environment={name}={value}\n");
        }
        text
    }

    /// The device's path for programs with that environment.
    #[must_use]
    pub fn path(&self, device: usize) -> String {
        format!("/dev/input/event{device}")
    }

    /// What the device is.
    ///
    /// # Errors
    ///
    /// If there is no such device.
    pub fn description(&self, device: usize) -> anyhow::Result<&Description> {
        self.devices
            .get(device)
            .with_context(|| format!("there is no mock device {device}"))
    }

    /// Sends events of type, code and value, as one write of the kernel's.
    ///
    /// # Errors
    ///
    /// If there is no such device or the mock has ended.
    pub fn send(&mut self, device: usize, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        self.description(device)?;
        // The terminal behind the node takes that much in one piece.
        ensure!(events.len() <= 64, "at most 64 events at once");
        let mut line = format!("events {device}");
        for (kind, code, value) in events {
            line += &format!(" {kind} {code} {value}");
        }
        line.push('\n');
        let commands = self.commands.as_mut().context("the mock has ended")?;
        commands
            .write_all(line.as_bytes())
            .context("the mock has ended")
    }

    /// Waits until all that was sent has happened to the device.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), or if the mock hangs.
    pub fn sync(&mut self, device: usize) -> anyhow::Result<()> {
        self.description(device)?;
        let commands = self.commands.as_mut().context("the mock has ended")?;
        writeln!(commands, "sync {device}").context("the mock has ended")?;
        self.wait(Notice::Synced { device }, START_TIMEOUT)
    }

    /// Takes a device away: its node is gone, and who has it open is hung up on.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn unplug(&mut self, device: usize) -> anyhow::Result<()> {
        self.description(device)?;
        let commands = self.commands.as_mut().context("the mock has ended")?;
        writeln!(commands, "unplug {device}").context("the mock has ended")
    }

    /// Sends a report: the events and the mark of its end.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn report(&mut self, device: usize, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
        let end = (codes::EV_SYN, codes::SYN_REPORT, 0);
        self.send(device, &[events, &[end]].concat())
    }

    /// Presses and releases keys, one after the other.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    pub fn type_keys(&mut self, device: usize, keys: &[u16]) -> anyhow::Result<()> {
        for key in keys {
            self.report(device, &[(codes::EV_KEY, *key, 1)])?;
            self.report(device, &[(codes::EV_KEY, *key, 0)])?;
        }
        Ok(())
    }

    /// Waits until the program under test switches an LED on or off.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_led(
        &mut self,
        device: usize,
        code: u16,
        lit: bool,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        self.wait(Notice::Led { device, code, lit }, timeout)
    }

    /// Waits until the program under test grabs the device or lets it go.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_grab(
        &mut self,
        device: usize,
        held: bool,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        self.wait(Notice::Grab { device, held }, timeout)
    }

    /// Forgets what happened so far, so that a wait is for what comes.
    pub fn forget(&mut self) {
        while self.notices.try_recv().is_ok() {}
        self.past.clear();
    }

    /// Waits for a notice, also one that came already, and takes it.
    fn wait(&mut self, wanted: Notice, timeout: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(index) = self.past.iter().position(|notice| *notice == wanted) {
                self.past.remove(index);
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.notices.recv_timeout(left) {
                Ok(notice) => self.past.push(notice),
                Err(RecvTimeoutError::Timeout) => {
                    bail!("no {wanted:?} in {timeout:?}, but {:?}", self.past)
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the mock has ended"),
            }
        }
    }

    /// The folder that stands for `/` where `/dev` and `/sys` of the devices are, for
    /// the side on which the mock runs.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }
}

fn read_notice(line: &str) -> Option<Notice> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["led", device, code, value] => Some(Notice::Led {
            device: device.parse().ok()?,
            code: code.parse().ok()?,
            lit: *value != "0",
        }),
        ["grab", device, held] => Some(Notice::Grab {
            device: device.parse().ok()?,
            held: *held == "1",
        }),
        ["synced", device] => Some(Notice::Synced {
            device: device.parse().ok()?,
        }),
        _ => None,
    }
}

impl Drop for MockInput {
    fn drop(&mut self) {
        // It ends, and removes its folder, when there is nobody to obey.
        drop(self.commands.take());
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            if !matches!(self.server.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
