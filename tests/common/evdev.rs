//! An evdev device of the host that there is not, played by umockdev.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use frontend::input::Event;
use frontend::{Command, DEFAULT_LIMIT, Deadline};
use tempfile::TempDir;

/// A mock of one evdev device, `/dev/input/event0` to programs of [`HostDevice::command`].
pub struct HostDevice {
    server: Child,
    orders: ChildStdin,
    reports: Receiver<String>,
    /// What it said and nobody has asked for.
    said: Vec<String>,
    root: PathBuf,
    _folder: TempDir,
}

impl HostDevice {
    /// A device of this description: lines of a word and what follows it, such as `name Keyboard`,
    /// `id BUS VENDOR PRODUCT VERSION`, `key 1-88`, `abs CODE MIN MAX FUZZ FLAT RES`, `rep`.
    pub fn new(description: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("device.evdev");
        std::fs::write(&file, description).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/harness/src/mock/server.py");
        let mut server = std::process::Command::new("/usr/bin/python3")
            .arg(script)
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, python3-gi and gir1.2-umockdev-1.0 are needed");
        let (send, reports) = channel();
        let output = BufReader::new(server.stdout.take().unwrap());
        // Ends with the server.
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let orders = server.stdin.take().unwrap();
        let mut device = Self {
            server,
            orders,
            reports,
            said: Vec::new(),
            root: PathBuf::new(),
            _folder: folder,
        };
        let ready = device.wait_said("ready", |line| line.starts_with("ready "));
        device.root = ready.trim_start_matches("ready ").into();
        device
    }

    /// A program that sees the device.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        Command::new(program)
            .env("LD_PRELOAD", "libumockdev-preload.so.0")
            .env("UMOCKDEV_DIR", &self.root)
    }

    /// Has the device send events, in one piece.
    pub fn send(&mut self, events: &[Event]) {
        let mut line = String::from("events 0");
        for event in events {
            line.push_str(&format!(" {} {} {}", event.kind, event.code, event.value));
        }
        writeln!(self.orders, "{line}").unwrap();
    }

    /// Waits until a program grabs the device, or lets it go.
    pub fn wait_grab(&mut self, grabbed: bool) {
        let wanted = format!("grab 0 {}", u8::from(grabbed));
        self.wait_said(&wanted, |line| line == wanted);
    }

    /// How often the device was grabbed since this was asked last, or since [`Self::wait_grab`].
    pub fn grabs(&mut self) -> usize {
        self.said.extend(self.reports.try_iter());
        let before = self.said.len();
        self.said.retain(|line| line != "grab 0 1");
        before - self.said.len()
    }

    /// Waits until a program sets an LED.
    pub fn wait_led(&mut self, code: u16, value: i32) {
        let wanted = format!("led 0 {code} {value}");
        self.wait_said(&wanted, |line| line == wanted);
    }

    /// Waits for a line, and forgets those before it.
    fn wait_said(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Deadline::after(DEFAULT_LIMIT);
        loop {
            if let Some(at) = self.said.iter().position(|line| wanted(line)) {
                return self.said.drain(..=at).next_back().unwrap_or_default();
            }
            let limit = deadline.left().max(Duration::from_millis(1));
            match self.reports.recv_timeout(limit) {
                Ok(line) => self.said.push(line),
                Err(e) => panic!("the mock device never said {what:?} ({e}): {:?}", self.said),
            }
        }
    }
}

impl Drop for HostDevice {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.root);
    }
}
