// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A private systemd, and the units of many VMs as `vhostctl add` writes them.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::Deadline;
use harness::staging::stage;
use harness::systemd::Sandbox;

use super::groups::{self, Pss};

/// What a VM has: unit, and the path of the socket. `@` stands for the VM.
pub(super) const DEVICES: [(&str, &str); 3] = [
    ("vhost-user-gpu@@.socket", "/run/vhost-user/gpu/@.sock"),
    (
        "vhost-user-input@@:keyboard.socket",
        "/run/vhost-user/input/@:keyboard.sock",
    ),
    (
        "vhost-user-input@@:tablet.socket",
        "/run/vhost-user/input/@:tablet.sock",
    ),
];
/// How they are set up. The last two are for five instances a VM, and are never started.
const SETTINGS: [(&str, &[&str]); 5] = [
    ("gpu", &[]),
    ("input", &["--virtual=keyboard"]),
    ("input", &["--virtual=tablet"]),
    ("input", &["--virtual=keyboard", "--name=keypad"]),
    ("input", &["--virtual=tablet", "--name=pen"]),
];
/// The VM that vhostctl sets up; the others have the same files.
const TEMPLATE: &str = "template";
const UNITS: &str = "/etc/systemd/system";
/// How many units one systemctl gets.
const AT_ONCE: usize = 150;
/// How long all programs may take to end.
const LEAVE: Duration = Duration::from_secs(120);

/// A host with VMs.
pub(super) struct Host {
    sandbox: Sandbox,
    files: Vec<(PathBuf, Content)>,
    count: usize,
}

/// What lies at a path.
enum Content {
    File(String),
    Link(PathBuf),
}

impl Host {
    /// Boots it, with no VM.
    ///
    /// # Errors
    /// If it cannot run here, or our programs are not built.
    pub(super) fn start() -> anyhow::Result<Self> {
        let staging = stage()?;
        let mut host = Self {
            sandbox: Sandbox::start(&[staging.path()])?,
            files: Vec::new(),
            count: 0,
        };
        for (kind, options) in SETTINGS {
            host.run(&[&["vhostctl", "add", kind, TEMPLATE], options].concat())?;
        }
        let root = host.sandbox.path(UNITS);
        let mut files = Vec::new();
        read(&root, &root, &mut files)?;
        host.files = files;
        host.run(&["vhostctl", "remove", TEMPLATE])?;
        Ok(host)
    }

    fn run(&self, words: &[&str]) -> anyhow::Result<()> {
        let output = self.sandbox.exec(words)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", words.join(" "));
        Ok(())
    }

    /// Runs a script of bash inside, and returns what it wrote to stderr.
    ///
    /// # Errors
    /// If it fails.
    pub(super) fn script(&self, script: &str) -> anyhow::Result<String> {
        let output = self.sandbox.exec(["bash", "-c", script])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{script}: {said}");
        Ok(said)
    }

    /// Has as many VMs, whose sockets listen.
    ///
    /// # Errors
    /// If systemd refuses.
    pub(super) fn configure(&mut self, count: usize) -> anyhow::Result<()> {
        let root = self.sandbox.path(UNITS);
        let new: Vec<String> = (self.count + 1..=count).map(vm).collect();
        for vm in &new {
            for (path, content) in &self.files {
                let name = |path: &Path| path.to_string_lossy().replace(TEMPLATE, vm);
                let path = root.join(name(path));
                fs::create_dir_all(path.parent().context("a path without a folder")?)?;
                match content {
                    Content::File(text) => fs::write(path, text.replace(TEMPLATE, vm))?,
                    Content::Link(to) => symlink(name(to), path)?,
                }
            }
        }
        self.sandbox.systemctl(&["daemon-reload"])?;
        let units = |vm: &String| DEVICES.map(|(unit, _)| of_vm(unit, vm));
        let units: Vec<String> = new.iter().flat_map(units).collect();
        for units in units.chunks(AT_ONCE) {
            let units = units.iter().map(String::as_str);
            let words: Vec<&str> = std::iter::once("start").chain(units).collect();
            self.sandbox.systemctl(&words)?;
        }
        self.count = self.count.max(count);
        Ok(())
    }

    /// Connects to the devices of a VM, the first of which has number 1.
    ///
    /// # Errors
    /// If a socket does not listen.
    pub(super) fn connect(&self, number: usize) -> anyhow::Result<[UnixStream; DEVICES.len()]> {
        let connect = |(_, path)| {
            let path = self.sandbox.path(&of_vm(path, &vm(number)));
            UnixStream::connect(&path).with_context(|| path.display().to_string())
        };
        let [gpu, keyboard, tablet] = DEVICES.map(connect);
        Ok([gpu?, keyboard?, tablet?])
    }

    /// The processes of the backends.
    ///
    /// # Errors
    /// If they cannot be found.
    pub(super) fn backends(&self) -> anyhow::Result<Vec<u32>> {
        self.services()
            .map_or(Ok(Vec::new()), |group| groups::processes(&group))
    }

    /// Waits until no backend runs.
    ///
    /// # Errors
    /// If one does not end.
    pub(super) fn wait_left(&self) -> anyhow::Result<()> {
        let deadline = Deadline::after(LEAVE);
        while !self.backends()?.is_empty() {
            if deadline.passed() {
                return Err(deadline.missed("the backends to end").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// The processor time of PID 1, of the services and of all else in here.
    ///
    /// # Errors
    /// If the kernel does not tell it.
    pub(super) fn times(&self) -> anyhow::Result<[Duration; 3]> {
        let root = self.sandbox.cgroup();
        let manager = groups::time(&self.init()?)?;
        let services = self.services().map(|group| groups::time(&group));
        let services = services.transpose()?.unwrap_or_default();
        let all = groups::time(root)?;
        Ok([
            manager,
            services,
            all.saturating_sub(manager).saturating_sub(services),
        ])
    }

    /// The processor time of systemd and of the bus.
    ///
    /// # Errors
    /// If the kernel does not tell it.
    pub(super) fn manager_time(&self) -> anyhow::Result<Duration> {
        let bus = self.group("dbus.service")?;
        Ok(groups::time(&self.init()?)? + groups::time(&bus)?)
    }

    /// The memory of PID 1 in KiB.
    ///
    /// # Errors
    /// If the kernel does not tell it.
    pub(super) fn manager_memory(&self) -> anyhow::Result<u64> {
        Ok(Pss::of(&[self.sandbox.pid()])?.all())
    }

    fn init(&self) -> anyhow::Result<PathBuf> {
        self.group("init.scope")
    }

    /// The group of the backends; none before the first has started.
    fn services(&self) -> Option<PathBuf> {
        groups::find(self.sandbox.cgroup(), "system-vhost\\x2duser.slice")
    }

    fn group(&self, name: &str) -> anyhow::Result<PathBuf> {
        groups::find(self.sandbox.cgroup(), name)
            .with_context(|| format!("there is no control group {name}"))
    }
}

fn vm(number: usize) -> String {
    format!("vm{number}")
}

/// The unit or path of a VM: the last `@` of a unit, the only one of a path.
fn of_vm(pattern: &str, vm: &str) -> String {
    match pattern.split_once("@@") {
        Some((before, after)) => format!("{before}@{vm}{after}"),
        None => pattern.replace('@', vm),
    }
}

/// All files below `folder` that are of the template.
fn read(folder: &Path, root: &Path, files: &mut Vec<(PathBuf, Content)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            read(&path, root, files)?;
            continue;
        }
        let name = path.strip_prefix(root)?.to_owned();
        if !name.to_string_lossy().contains(TEMPLATE) {
            continue;
        }
        let content = match entry.file_type()?.is_symlink() {
            true => Content::Link(fs::read_link(&path)?),
            false => Content::File(fs::read_to_string(&path)?),
        };
        files.push((name, content));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_paths_are_of_a_vm() {
        let [_, (unit, path), _] = DEVICES;
        assert_eq!(of_vm(unit, "vm7"), "vhost-user-input@vm7:keyboard.socket");
        assert_eq!(
            of_vm(path, "vm7"),
            "/run/vhost-user/input/vm7:keyboard.sock"
        );
    }
}
