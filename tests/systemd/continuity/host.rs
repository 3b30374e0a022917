// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What the host does to all services at once while it keeps state for VMs: nothing hangs, nothing is left behind, and
//! nobody complains.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{Host, SOON, Vm};

/// Less than systemd waits for a service before it kills it (`TimeoutStopSec=`), and far less than for the others.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// The first systemd with `systemctl soft-reboot`.
const SOFT_REBOOT: u32 = 254;

/// What is known of a host before its VM runs.
struct Before {
    /// How many descriptors systemd itself has.
    descriptors: usize,
}

/// All units of `vm`, services first.
fn units(vm: &Vm) -> Vec<String> {
    let sockets = vm
        .services
        .iter()
        .map(|service| service.replace(".service", ".socket"));
    let events = vm.services[1]
        .replace("vhost-user-input@", "vhost-user-events@")
        .replace(".service", ".socket");
    let services = vm.services.iter().cloned();
    services.chain(sockets).chain([events]).collect()
}

impl Host {
    fn descriptors_of_systemd(&self) -> anyhow::Result<usize> {
        let path = format!("/proc/{}/fd", self.0.pid());
        Ok(fs::read_dir(path)?.count())
    }

    /// A host with a VM that works, whose programs were replaced once.
    fn with_vm() -> anyhow::Result<(Self, Vm, Before)> {
        let host = Self::boot()?;
        // The slice of the units, and whatever else systemd opens once.
        let first = host.run_vm("vm0")?;
        first.end(&host)?;
        host.stop_all(&["vhost*"])?;
        let before = Before {
            descriptors: host.descriptors_of_systemd()?,
        };
        let mut vm = host.run_vm("vm1")?;
        vm.works()?;
        for service in vm.services.clone() {
            let pid = host.pid(&service)?;
            host.0.systemctl(&["restart", &service])?;
            host.wait_replaced(&service, &pid)?;
            let kept = host.0.property(&service, "NFileDescriptorStore")?;
            ensure!(kept == "4", "{service} keeps {kept}");
        }
        vm.works()?;
        ensure!(
            host.descriptors_of_systemd()? >= before.descriptors + 8,
            "systemd keeps nothing"
        );
        Ok((host, vm, before))
    }

    fn stop_all(&self, patterns: &[&str]) -> anyhow::Result<()> {
        let words = [&["stop"], patterns].concat();
        self.0.systemctl(&words).map(drop)
    }

    /// The connections of `vm` are closed; systemd has no more descriptors than before it, and no complaint of its units
    /// is in the journal.
    fn assert_nothing_is_left(&self, mut vm: Vm, before: &Before) -> anyhow::Result<()> {
        ensure!(vm.gpu.session.config(0, 16).is_err(), "the GPU goes on");
        let units = units(&vm);
        drop(vm);
        for service in &units[..2] {
            self.0
                .wait_property(service, "ActiveState", "inactive", SOON)?;
            ensure!(self.0.property(service, "NFileDescriptorStore")? == "0");
            ensure!(self.0.property(service, "Result")? == "success");
        }
        // systemd closes the connection of systemctl in its own time.
        let deadline = Instant::now() + SOON;
        loop {
            let now = self.descriptors_of_systemd()?;
            if now <= before.descriptors {
                break;
            }
            ensure!(
                Instant::now() < deadline,
                "{now} descriptors, {} before",
                before.descriptors
            );
            thread::sleep(Duration::from_millis(50));
        }
        let complaints = self.complaints(&units)?;
        ensure!(complaints.is_empty(), "{complaints}");
        Ok(())
    }

    /// Warnings and errors of these units, their own and systemd's on them.
    fn complaints(&self, units: &[String]) -> anyhow::Result<String> {
        let units = units.iter().flat_map(|unit| ["--unit", unit]);
        let words: Vec<_> = ["--priority=warning"].into_iter().chain(units).collect();
        self.0.journal(&words)
    }

    /// The next VM of the same units is served.
    fn serves(&self) -> anyhow::Result<()> {
        let mut vm = self.run_vm("vm1")?;
        vm.works()?;
        vm.end(self)
    }

    fn version(&self) -> anyhow::Result<u32> {
        let said = self.0.systemctl(&["--version"])?;
        let version = said.split_whitespace().nth(1).context("no version")?;
        let digits = version.split(|c: char| !c.is_ascii_digit()).next();
        Ok(digits.unwrap_or_default().parse()?)
    }
}

/// The journal of a host, which can be read after the host has gone.
struct Journal(File);

impl Journal {
    /// Opens it. `journalctl` then finds it by our descriptor.
    fn open(host: &Host) -> anyhow::Result<Self> {
        let folder = File::open(host.0.path("/run/log/journal"))?;
        Ok(Self(folder))
    }

    /// Each message with its priority, from or on our units.
    fn of_our_units(&self) -> anyhow::Result<Vec<(u8, String)>> {
        let folder = format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd());
        let output = Command::new("journalctl")
            .args(["--output=json", "--directory", &folder])
            .output()?;
        ensure!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let entries: Vec<serde_json::Value> = said
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()?;
        let text = |entry: &serde_json::Value, key: &str| {
            let text = entry.get(key).and_then(serde_json::Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let is_ours = |entry: &serde_json::Value| {
            let mut names = ["UNIT", "_SYSTEMD_UNIT", "SYSLOG_IDENTIFIER"].iter();
            names.any(|key| text(entry, key).starts_with("vhost"))
        };
        let ours = entries.iter().filter(|entry| is_ours(entry));
        ours.map(|entry| {
            let priority = text(entry, "PRIORITY").parse()?;
            Ok((priority, text(entry, "MESSAGE")))
        })
        .collect()
    }
}

#[test]
fn stop_and_isolate_leave_nothing_behind() -> anyhow::Result<()> {
    let (host, vm, before) = Host::with_vm()?;
    let slice = "system-vhost\\x2duser.slice";
    let mut next = Some(vm);
    for words in [
        &["stop", "vhost*"][..],
        // Sockets are not in it, and listen on.
        &["stop", slice],
        &["isolate", "harness.target"],
    ] {
        let mut vm = match next.take() {
            Some(vm) => vm,
            None => host.run_vm("vm1")?,
        };
        vm.works()?;
        let asked = Instant::now();
        host.0.systemctl(words)?;
        for service in &vm.services {
            host.0
                .wait_property(service, "ActiveState", "inactive", STOP_LIMIT)
                .with_context(|| format!("{words:?}"))?;
        }
        eprintln!("{words:?}: {:?}", asked.elapsed());
        host.stop_all(&["vhost*"])?;
        host.assert_nothing_is_left(vm, &before)
            .with_context(|| format!("{words:?}"))?;
    }
    host.serves()
}

/// systemd itself is replaced, again and again, with what it keeps.
#[test]
fn replaced_systemd_has_the_same_descriptors() -> anyhow::Result<()> {
    let (host, mut vm, before) = Host::with_vm()?;
    let services = vm.services.clone();
    let kept = host.descriptors_of_systemd()?;
    for round in 0..10 {
        host.0.systemctl(&["daemon-reexec"])?;
        for service in &services {
            let stored = host.0.property(service, "NFileDescriptorStore")?;
            ensure!(stored == "4", "{round}: {service} keeps {stored}");
        }
        let now = host.descriptors_of_systemd()?;
        // Connections to systemd come and go.
        ensure!(now <= kept + 4, "{round}: {now} descriptors, {kept} before");
        for service in &services {
            let pid = host.pid(service)?;
            host.0.systemctl(&["restart", service])?;
            host.wait_replaced(service, &pid)?;
        }
        vm.works().with_context(|| format!("{round}"))?;
    }
    host.stop_all(&["vhost*"])?;
    // systemd opens other files of its own when it starts again.
    let before = Before {
        descriptors: before.descriptors + 4,
    };
    host.assert_nothing_is_left(vm, &before)
}

#[test]
fn host_shuts_down_with_devices_in_use() -> anyhow::Result<()> {
    let (host, mut vm, _) = Host::with_vm()?;
    let journal = Journal::open(&host)?;
    let process = format!("/proc/{}", host.0.pid());
    let asked = Instant::now();
    // The answer may get lost as systemd ends.
    let _ = host
        .0
        .exec(["systemctl", "--no-block", "start", "poweroff.target"])?;
    while Path::new(&process).exists() {
        ensure!(asked.elapsed() < STOP_LIMIT, "the host does not shut down");
        thread::sleep(Duration::from_millis(20));
    }
    eprintln!("shut down in {:?}", asked.elapsed());
    ensure!(vm.gpu.session.config(0, 16).is_err(), "the GPU goes on");
    let said = journal.of_our_units()?;
    for service in &vm.services {
        let stopped = format!("{service}: Deactivated successfully.");
        ensure!(said.iter().any(|(_, text)| *text == stopped), "{said:?}");
    }
    let complaints: Vec<_> = said.iter().filter(|(priority, _)| *priority <= 4).collect();
    ensure!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}

/// `systemctl soft-reboot` ends all services, and with them VMs. What was kept ends too: no program goes on for a VM that
/// is gone.
#[test]
fn soft_reboot_ends_devices_and_the_next_vm_is_served() -> anyhow::Result<()> {
    let (host, mut vm, _) = Host::with_vm()?;
    if host.version()? < SOFT_REBOOT {
        let refused = host.0.exec(["systemctl", "soft-reboot"])?;
        ensure!(!refused.status.success(), "this systemd can do it");
        return Ok(());
    }
    let units = units(&vm);
    let count = || {
        let property = "--property=SoftRebootsCount";
        host.0.systemctl(&["show", "--value", property])
    };
    let _ = host.0.exec(["systemctl", "--no-block", "soft-reboot"])?;
    let asked = Instant::now();
    // While it reboots, nobody answers.
    while !count().is_ok_and(|count| count == "1") {
        ensure!(asked.elapsed() < STOP_LIMIT, "the host does not come back");
        thread::sleep(Duration::from_millis(100));
    }
    host.0.exec(["systemctl", "is-system-running", "--wait"])?;
    eprintln!("soft-reboot in {:?}", asked.elapsed());
    ensure!(vm.gpu.session.config(0, 16).is_err(), "the GPU goes on");
    drop(vm);
    for service in &units[..2] {
        ensure!(host.0.property(service, "ActiveState")? == "inactive");
        ensure!(host.0.property(service, "NFileDescriptorStore")? == "0");
    }
    let complaints = host.complaints(&units)?;
    ensure!(complaints.is_empty(), "{complaints}");
    host.serves()
}
