// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The installed units, under a real systemd, with the real programs.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::common::{guest_memory, ok};
use anyhow::{Context as _, ensure};
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions};
use frontend::input::{Input, InputOptions};
use frontend::{Deadline, Memory, Session};
use harness::mock::{KEYBOARD, MOUSE, MockInput};
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);

/// A private systemd with the units and programs installed.
struct Host(Sandbox);

impl Host {
    fn boot() -> anyhow::Result<Self> {
        let staging = staging::stage()?;
        Ok(Self(Sandbox::start(&[staging.path()])?))
    }

    fn start_gpu(&self, vm: &str) -> anyhow::Result<()> {
        let unit = format!("vhost-user-gpu@{vm}.socket");
        self.0.systemctl(&["start", &unit]).map(drop)
    }

    fn connect(&self, socket: &str) -> anyhow::Result<Session> {
        let path = self.0.path(socket);
        let stream = UnixStream::connect(&path)
            .with_context(|| format!("cannot connect to {}", path.display()))?;
        Ok(Session::new(stream))
    }

    /// Connects to a VM's GPU and has it do something.
    fn use_gpu(&self, vm: &str) -> anyhow::Result<(Gpu, DisplayThread)> {
        let session = self.connect(&format!("/run/vhost-user/gpu/{vm}.sock"))?;
        let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
        let mut gpu = Gpu::start(
            session,
            &guest_memory(),
            Some(socket),
            GpuOptions::default(),
        )?;
        ok(gpu.create_2d(1, Format::B8G8R8X8, 64, 64));
        Ok((gpu, display))
    }

    fn main_pid(&self, service: &str) -> anyhow::Result<String> {
        self.0.property(service, "MainPID")
    }

    /// Waits until the service ended well and its socket is armed again.
    fn wait_rearmed(&self, instance: &str) -> anyhow::Result<()> {
        let service = format!("{instance}.service");
        self.0
            .wait_property(&service, "ActiveState", "inactive", SOON)?;
        assert_eq!(self.0.property(&service, "Result")?, "success");
        let socket = format!("{instance}.socket");
        self.0.wait_property(&socket, "SubState", "listening", SOON)
    }

    fn nothing_failed(&self) -> anyhow::Result<()> {
        let failed = self
            .0
            .systemctl(&["list-units", "--failed", "--no-legend", "vhost-user*"])?;
        ensure!(failed.is_empty(), "{failed}");
        Ok(())
    }
}

/// What a drop-in has to say for an input instance on a mock device.
fn input_drop_in(mock: &MockInput, device: usize, user: &str) -> String {
    format!(
        "{}Environment=EVDEV_PATH={}\nUser={user}\n",
        mock.drop_in(),
        mock.path(device)
    )
}

#[test]
fn gpu_socket_serves_front_ends_that_come_and_go() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.start_gpu("vm1")?;
    let service = "vhost-user-gpu@vm1.service";
    assert_eq!(host.0.property(service, "ActiveState")?, "inactive");

    let mut seen = Vec::new();
    for _ in 0..3 {
        let (gpu, display) = host.use_gpu("vm1")?;
        assert_eq!(host.0.property(service, "ActiveState")?, "active");
        let status = host.0.property(service, "StatusText")?;
        assert!(status.contains("connected"), "{status}");
        let pid = host.main_pid(service)?;
        assert!(!seen.contains(&pid), "one process serves one front-end");
        seen.push(pid);
        drop((gpu, display));
        host.wait_rearmed("vhost-user-gpu@vm1")?;
    }
    host.nothing_failed()
}

#[test]
fn stop_ends_the_backend_and_leaves_nothing() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.start_gpu("vm1")?;
    let (_gpu, _display) = host.use_gpu("vm1")?;
    let service = "vhost-user-gpu@vm1.service";
    let pid = host.main_pid(service)?;
    let socket = host.0.path("/run/vhost-user/gpu/vm1.sock");
    assert!(socket.exists());

    host.0.systemctl(&["stop", "vhost-user-gpu@vm1.socket"])?;
    host.0
        .wait_property(service, "ActiveState", "inactive", SOON)?;
    assert_eq!(host.0.property(service, "Result")?, "success");
    assert!(!socket.exists());
    let alive = host.0.exec(["test", "-d", &format!("/proc/{pid}")])?;
    assert!(!alive.status.success(), "process {pid} is there still");
    host.nothing_failed()
}

#[test]
fn crashed_or_hung_backend_is_replaced_under_its_vm() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let service = "vhost-user-gpu@vm1.service";
    host.0.drop_in(service, "[Service]\nWatchdogSec=1s\n")?;
    host.start_gpu("vm1")?;

    let (mut gpu, display) = host.use_gpu("vm1")?;
    let pid = host.main_pid(service)?;
    host.0.systemctl(&["kill", "--signal=KILL", service])?;
    host.0.wait_property(service, "NRestarts", "1", SOON)?;
    ok(gpu.create_2d(2, Format::B8G8R8X8, 64, 64));
    assert_ne!(host.main_pid(service)?, pid);

    // It is alive for longer than the watchdog allows, and then it hangs.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.0.property(service, "NRestarts")?, "1");
    host.0.systemctl(&["kill", "--signal=STOP", service])?;
    host.0.wait_property(service, "NRestarts", "2", SOON)?;
    ok(gpu.create_2d(3, Format::B8G8R8X8, 64, 64));
    drop((gpu, display));
    host.wait_rearmed("vhost-user-gpu@vm1")
}

#[test]
fn vms_are_isolated() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut users = Vec::new();
    let mut held = Vec::new();
    for vm in ["vm1", "vm2"] {
        host.start_gpu(vm)?;
        held.push(host.use_gpu(vm)?);
        let pid = host.main_pid(&format!("vhost-user-gpu@{vm}.service"))?;
        let status = fs::read_to_string(host.0.path(&format!("/proc/{pid}/status")))?;
        let line = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default().trim().to_owned()
        };
        users.push(line("Uid:"));
        assert_eq!(line("CapEff:"), "0000000000000000");
        assert_eq!(line("NoNewPrivs:"), "1");
    }
    assert_ne!(users[0], users[1]);
    assert!(users.iter().all(|user| !user.starts_with('0')), "{users:?}");
    Ok(())
}

#[test]
fn input_device_is_the_one_of_its_drop_in() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut mock = MockInput::start_in(&host.0, &[KEYBOARD, MOUSE])?;
    for (device, name) in ["kbd", "mouse"].into_iter().enumerate() {
        let instance = format!("vhost-user-input@vm1:{name}");
        let drop_in = input_drop_in(&mock, device, &format!("vu-vm1-{name}"));
        host.0.drop_in(&format!("{instance}.service"), &drop_in)?;
        host.0
            .systemctl(&["start", &format!("{instance}.socket")])?;
        for _ in 0..2 {
            let session = host.connect(&format!("/run/vhost-user/input/vm1:{name}.sock"))?;
            let memory = Memory::with_size(1 << 20)?;
            let mut input = Input::start(session, &memory, InputOptions::default())?;
            assert_eq!(input.name()?, mock.description(device)?.name);
            mock.wait_grab(device, true, SOON)?;
            // Which systemd tells of a service that runs only.
            let watchdog = host
                .0
                .property(&format!("{instance}.service"), "WatchdogUSec")?;
            assert_eq!(watchdog, "30s");
            drop(input);
            mock.wait_grab(device, false, SOON)?;
            host.wait_rearmed(&instance)?;
        }
    }
    host.nothing_failed()
}

/// As docs/performance.md advises, with the directives and system calls that the unit and the program's sandbox allow.
#[test]
fn input_device_has_a_real_time_class_if_its_unit_says_so() -> anyhow::Result<()> {
    const SCHED_RR: &str = "2";
    let host = Host::boot()?;
    let mut mock = MockInput::start_in(&host.0, &[MOUSE])?;
    let instance = "vhost-user-input@vm1:mouse";
    let service = format!("{instance}.service");
    let drop_in = input_drop_in(&mock, 0, "vu-vm1-mouse");
    let class = "CPUSchedulingPolicy=rr\nCPUSchedulingPriority=1\n";
    host.0.drop_in(&service, &format!("{drop_in}{class}"))?;
    host.0
        .systemctl(&["start", &format!("{instance}.socket")])?;
    let session = host.connect("/run/vhost-user/input/vm1:mouse.sock")?;
    let memory = Memory::with_size(1 << 20)?;
    let mut input = Input::start(session, &memory, InputOptions::default())?;
    assert_eq!(input.name()?, mock.description(0)?.name);
    mock.wait_grab(0, true, SOON)?;
    let tasks = host
        .0
        .path(&format!("/proc/{}/task", host.main_pid(&service)?));
    for task in fs::read_dir(tasks)? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // `policy` is field 41 of proc_pid_stat(5), and the name in parentheses is 2.
        let (_, fields) = stat.rsplit_once(") ").context("a name")?;
        assert_eq!(fields.split(' ').nth(38), Some(SCHED_RR), "{stat}");
    }
    drop(input);
    host.wait_rearmed(instance)
}

#[test]
fn input_instance_without_a_device_says_what_to_do() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let service = "vhost-user-input@vm1:kbd.service";
    host.0
        .systemctl(&["start", "vhost-user-input@vm1:kbd.socket"])?;
    let mut session = host.connect("/run/vhost-user/input/vm1:kbd.sock")?;
    assert!(
        session
            .negotiate(Session::usual_protocol_features())
            .and_then(|_| session.config(0, 1).map(drop))
            .is_err()
    );
    host.0
        .wait_property(service, "ActiveState", "failed", SOON)?;
    let journal = host.0.journal(&["--unit", service, "--output=cat"])?;
    assert!(journal.contains("EVDEV_PATH"), "{journal}");
    assert!(journal.contains("drop-in"), "{journal}");
    Ok(())
}

#[test]
fn log_is_in_the_journal_with_its_fields() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.start_gpu("vm1")?;
    let used = host.use_gpu("vm1")?;
    // Of a process that has ended before journald looks, it does not know the unit.
    let ours = Deadline::default().until("its message in the journal", || {
        let log = host
            .0
            .journal(&["--unit=vhost-user-gpu@vm1.service", "--output=json"]);
        let log = log.unwrap_or_default();
        let entries = log.lines().map(serde_json::from_str::<serde_json::Value>);
        let mut entries = entries.filter_map(Result::ok);
        Ok(entries.find(|entry| entry["MESSAGE"] == "a front-end is connected"))
    })?;
    drop(used);
    host.wait_rearmed("vhost-user-gpu@vm1")?;
    assert_eq!(ours["SYSLOG_IDENTIFIER"], "vhost-user-gpu");
    assert_eq!(
        ours["PRIORITY"], "5",
        "notice, as journald's crate maps info"
    );
    assert_eq!(ours["TARGET"], "vhost_user_backends::backend::program");
    Ok(())
}

#[test]
fn installation_is_complete_and_leaves_no_trace() -> anyhow::Result<()> {
    let host = Host::boot()?;
    // Every unit file that is installed is one that systemd understands.
    // To systemd-analyze, a colon would separate a file from its alias.
    for unit in [
        "vhost-user-gpu@vm1.socket",
        "vhost-user-gpu@vm1.service",
        "vhost-user-input@kbd.socket",
        "vhost-user-input@kbd.service",
        "vhost-user-display@vm1.socket",
        "vhost-user-events@keyboard.socket",
        "vhost-vnc@vm1.socket",
        "vhost-vnc@vm1.service",
        "vhost-user-retry@vhost-user-gpu@vm1.socket.service",
        r"system-vhost\x2duser.slice",
    ] {
        let verified = host
            .0
            .exec(["systemd-analyze", "verify", "--man=no", unit])?;
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        ensure!(
            verified.status.success() && !said.contains("vhost"),
            "{said}"
        );
    }

    let folder = tempfile::tempdir()?;
    let programs = folder.path().join("target/release");
    fs::create_dir_all(&programs)?;
    for program in [
        "vhost-user-gpu",
        "vhost-user-input",
        "vhost-vnc",
        "vhostctl",
        "vhost-user-accept",
    ] {
        fs::copy(harness::paths::program(program)?, programs.join(program))?;
    }
    for prefix in ["/usr", "/usr/local", "/opt/vhost"] {
        let root = folder.path().join("root");
        let make = |target: &str| {
            Command::new("make")
                .env_remove("MAKEFLAGS")
                .env_remove("MAKELEVEL")
                .args(["--silent", "-f", "install.mk", target])
                .arg(format!("PREFIX={prefix}"))
                .arg(format!("DESTDIR={}", root.display()))
                .arg(format!(
                    "CARGO_TARGET={}",
                    folder.path().join("target").display()
                ))
                .current_dir(harness::paths::source_root())
                .status()
        };
        ensure!(make("install")?.success());
        let installed = files(&root)?;
        assert!(
            installed
                .iter()
                .any(|file| file.ends_with("40-vhost-user-gpu.json"))
        );
        for file in &installed {
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let binary = if name.ends_with(".json") {
                let descriptor: serde_json::Value = serde_json::from_slice(&fs::read(file)?)?;
                descriptor["binary"].as_str().map(str::to_owned)
            } else if name.ends_with(".service") {
                let unit = fs::read_to_string(file)?;
                let command = unit
                    .lines()
                    .find_map(|line| line.strip_prefix("ExecStart="));
                command.and_then(|line| Some(line.split_whitespace().next()?.to_owned()))
            } else if name == "vhost-user-gpu-virgl.conf" {
                // What its recipe links is where the recipe says.
                let text = fs::read_to_string(file)?;
                let link = text
                    .lines()
                    .find_map(|line| line.strip_prefix("#   ln -s "));
                link.map(|line| line.trim_end_matches(['\\', ' ']).to_owned())
            } else {
                continue;
            };
            let binary = binary.with_context(|| format!("{name} names no program"))?;
            // Units that run a program of the system: any backend's, until it is told its own, and the
            // one that waits.
            let of_the_system = ["vhost-user@.service", "vhost-user-retry@.service"];
            if of_the_system.contains(&name.as_str()) && binary == "/bin/sh" {
                continue;
            }
            let there = root.join(binary.trim_start_matches('/'));
            assert!(there.exists(), "{name} names {binary}");
        }
        ensure!(make("uninstall")?.success());
        assert_eq!(files(&root)?, Vec::<std::path::PathBuf>::new());
        // Nor a folder that not every system has.
        let prefix = root.join(prefix.trim_start_matches('/'));
        let left = folders(&root)?.into_iter().filter(|folder| {
            let usual = ["bin", "share", "share/man"].map(|usual| prefix.join(usual));
            let of_systemd = ["etc", "lib", "usr/lib", "usr/local/lib"].map(|lib| root.join(lib));
            !prefix.starts_with(folder) && !usual.contains(folder) && !of_systemd.contains(folder)
        });
        assert_eq!(left.collect::<Vec<_>>(), Vec::<std::path::PathBuf>::new());
        fs::remove_dir_all(&root)?;
    }
    Ok(())
}

/// All folders below `folder`.
fn folders(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(folders(&path)?);
            found.push(path);
        }
    }
    Ok(found)
}

fn files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}
