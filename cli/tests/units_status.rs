//! `status`, `log`, `monitor` and `-H` under a real systemd, with the real backends.

mod common;

use std::io::{BufRead as _, BufReader};
use std::os::unix::net::UnixStream;
use std::process::{Child, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::Session;
use harness::staging::stage;
use harness::systemd::Sandbox;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use common::stderr;

const SOON: Duration = Duration::from_secs(20);
const GPU: &str = "vhost-user-gpu@vm1.socket";
const GPU_SERVICE: &str = "vhost-user-gpu@vm1.service";

/// A systemd with the product installed.
fn sandbox() -> anyhow::Result<Sandbox> {
    let staging = stage()?;
    Sandbox::start(&[staging.path()])
}

fn vhostctl(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Output> {
    sandbox.exec([&["vhostctl"], arguments].concat())
}

/// What it writes; it has to succeed and complain about nothing.
fn stdout(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let output = vhostctl(sandbox, arguments)?;
    ensure!(
        output.status.success() && output.stderr.is_empty(),
        "{arguments:?}: {}: {}",
        output.status,
        stderr(&output)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn json(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Value> {
    let text = stdout(sandbox, &[arguments, &["--json=short"]].concat())?;
    serde_json::from_str(&text).with_context(|| text.clone())
}

/// Connects a front-end to the socket of vm1's GPU and begins to talk.
fn connect(sandbox: &Sandbox) -> anyhow::Result<Session> {
    let socket = UnixStream::connect(sandbox.path("/run/vhost-user/gpu/vm1.sock"))?;
    let mut session = Session::new(socket);
    session.negotiate(Session::usual_protocol_features())?;
    Ok(session)
}

/// A line of a status, by its label.
fn field<'a>(text: &'a str, label: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix(label)?.strip_prefix(": "))
}

#[test]
fn status_follows_a_backend_from_its_socket_to_its_end() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let none = vhostctl(&sandbox, &["status", "vm1"])?;
    assert_eq!(none.status.code(), Some(4));
    assert!(stderr(&none).contains("vm1"), "{}", stderr(&none));
    assert_eq!(stdout(&sandbox, &["status"])?, "No backends.\n");

    sandbox.systemctl(&["enable", "--now", GPU])?;
    let text = stdout(&sandbox, &["status", "vm1"])?;
    assert!(
        text.starts_with("● vm1 - vhost-user GPU of Virtual Machine vm1\n"),
        "{text}"
    );
    let loaded = field(&text, "Loaded").context("no Loaded")?;
    assert!(
        loaded.ends_with("/vhost-user-gpu@.socket; enabled)"),
        "{text}"
    );
    assert!(
        field(&text, "Active").is_some_and(|text| text.starts_with("listening since ")),
        "{text}"
    );
    assert_eq!(
        field(&text, "Socket"),
        Some("/run/vhost-user/gpu/vm1.sock"),
        "{text}"
    );
    assert_eq!(field(&text, "Front-end"), Some("not connected"), "{text}");
    assert_eq!(field(&text, "Main PID"), None, "{text}");

    let session = connect(&sandbox)?;
    sandbox.wait_property(GPU_SERVICE, "StatusText", "a front-end is connected", SOON)?;
    let text = stdout(&sandbox, &["status", "vm1", "-n", "20"])?;
    assert!(
        field(&text, "Active").is_some_and(|text| text.starts_with("running since ")),
        "{text}"
    );
    assert_eq!(field(&text, "Front-end"), Some("connected"), "{text}");
    let pid = sandbox.property(GPU_SERVICE, "MainPID")?;
    assert_eq!(
        field(&text, "Main PID"),
        Some(format!("{pid} (vhost-user-gpu)").as_str()),
        "{text}"
    );
    assert!(
        field(&text, "CGroup").is_some_and(|group| group.ends_with(GPU_SERVICE)),
        "{text}"
    );
    assert!(
        text.contains(&format!("vhost-user-gpu[{pid}]: a front-end is connected")),
        "{text}"
    );
    let all = json(&sandbox, &["status", "vm1"])?;
    let gpu = &all[0];
    assert_eq!(gpu["state"], "running");
    assert_eq!(gpu["front_end"], true);
    assert_eq!(gpu["pid"].to_string(), pid);
    assert_eq!(gpu["enabled"], "enabled");
    assert!(
        gpu["cpu_nsec"].as_u64().is_some_and(|time| time > 0),
        "{gpu}"
    );
    assert!(
        gpu["log"].as_array().is_some_and(|log| {
            log.iter()
                .any(|line| line["message"] == "a front-end is connected")
        }),
        "{gpu}"
    );

    drop(session);
    sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;
    sandbox.systemctl(&["stop", GPU])?;
    let stopped = vhostctl(&sandbox, &["status", "vm1"])?;
    assert_eq!(stopped.status.code(), Some(3), "{}", stderr(&stopped));
    let text = String::from_utf8(stopped.stdout)?;
    assert!(text.starts_with("○ vm1"), "{text}");
    assert!(text.contains("the front-end left"), "{text}");
    Ok(())
}

#[test]
fn a_failed_backend_shows_why() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let units = ["socket", "service"].map(|half| format!("vhost-user-input@vm1:kbd.{half}"));
    // One with a drop-in that says everything but the device.
    sandbox.drop_in(&units[1], "[Service]\nEnvironment=OPTIONS=--no-grab\n")?;
    sandbox.systemctl(&["start", &units[0]])?;
    let _front_end = UnixStream::connect(sandbox.path("/run/vhost-user/input/vm1:kbd.sock"))?;
    sandbox.wait_property(&units[0], "ActiveState", "failed", SOON)?;
    let status = vhostctl(&sandbox, &["status", "vm1:kbd"])?;
    assert_eq!(status.status.code(), Some(3));
    let text = String::from_utf8(status.stdout)?;
    assert!(text.starts_with("× vm1:kbd - "), "{text}");
    assert!(
        field(&text, "Active").is_some_and(|text| text.starts_with("failed (Result: ")),
        "{text}"
    );
    assert!(text.contains("No device: set EVDEV_PATH="), "{text}");
    assert!(text.contains("harness.conf"), "{text}");
    Ok(())
}

#[test]
fn the_log_is_that_of_the_chosen() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    sandbox.systemctl(&["start", GPU, "vhost-user-gpu@vm2.socket"])?;
    drop(connect(&sandbox)?);
    sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;

    let text = stdout(&sandbox, &["log", "vm1"])?;
    assert!(text.contains("a front-end is connected"), "{text}");
    assert!(!text.contains("vm2"), "{text}");
    assert!(stdout(&sandbox, &["log"])?.contains("vm2"));
    let two = stdout(&sandbox, &["log", "vm1", "-n", "2", "-j"])?;
    assert_eq!(two.lines().count(), 2, "{two}");
    for line in two.lines() {
        let entry: Value = serde_json::from_str(line)?;
        assert!(entry["MESSAGE"].is_string(), "{entry}");
    }
    assert_eq!(stdout(&sandbox, &["log", "vm9", "-q"])?, "");

    let mut follower = Follower::start(&sandbox, &["log", "vm1", "-f", "-n", "0"])?;
    // It has no way to say that it listens, so something happens until it does.
    let deadline = Instant::now() + SOON;
    while follower.try_line("the front-end left").is_none() {
        ensure!(Instant::now() < deadline, "nothing is followed");
        drop(connect(&sandbox)?);
        sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;
    }
    Ok(())
}

#[test]
fn units_are_monitored() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let mut monitor = Follower::start(&sandbox, &["monitor", "--units", "-j"])?;
    monitor.wait_ready()?;
    sandbox.systemctl(&["start", GPU])?;
    let line = monitor.line(GPU)?;
    let event: Value = serde_json::from_str(&line)?;
    assert_eq!(event["event"], "unit");
    assert_eq!(event["vm"], "vm1");
    assert_eq!(event["type"], "gpu");
    assert!(event["time"].is_string());
    monitor.line(r#""sub_state":"listening","state":"listening""#)?;
    let session = connect(&sandbox)?;
    monitor.line(r#""unit":"vhost-user-gpu@vm1.service","vm":"vm1","name":null,"type":"gpu","active_state":"active","sub_state":"running","state":"running""#)?;
    drop(session);
    monitor.line(r#""active_state":"inactive""#)?;
    sandbox.systemctl(&["stop", GPU])?;
    monitor.line(r#""state":"inactive""#)?;
    monitor.end()
}

#[test]
fn the_monitor_ends_with_its_bus() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let mut monitor = Follower::start(&sandbox, &["monitor", "--units"])?;
    monitor.wait_ready()?;
    sandbox.systemctl(&["start", GPU])?;
    let line = monitor.line("listening")?;
    assert!(line.contains(" active "), "{line}");
    assert!(line.contains(GPU), "{line}");
    sandbox.systemctl(&["stop", "dbus.socket", "dbus.service"])?;
    let status = monitor.wait()?;
    assert_eq!(status, Some(1));
    Ok(())
}

#[test]
fn another_host_is_asked_over_ssh() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    sandbox.systemctl(&["start", GPU])?;
    let ssh = "#!/bin/sh\necho \"$@\" >/run/ssh\nshift $(($# - 1))\nexec \"$1\"\n";
    sandbox.write("/usr/local/bin/ssh", ssh)?;
    sandbox.exec(["chmod", "755", "/usr/local/bin/ssh"])?;
    let here = stdout(&sandbox, &["list", "--json=short"])?;
    let there = stdout(&sandbox, &["-H", "root@web:2222", "list", "--json=short"])?;
    assert_eq!(here, there);
    assert_eq!(
        std::fs::read_to_string(sandbox.path("/run/ssh"))?,
        "-xT -p 2222 -- root@web systemd-stdio-bridge\n"
    );
    let text = stdout(&sandbox, &["status", "vm1", "--host=web"])?;
    assert!(text.contains("listening since"), "{text}");

    let refused = vhostctl(&sandbox, &["-H", "web", "list-devices"])?;
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("ssh web vhostctl list-devices"),
        "{}",
        stderr(&refused)
    );
    sandbox.write("/usr/local/bin/ssh", "#!/bin/sh\nexit 255\n")?;
    let unreachable = vhostctl(&sandbox, &["-H", "web"])?;
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(
        stderr(&unreachable).starts_with("The system bus of web cannot be reached: "),
        "{}",
        stderr(&unreachable)
    );
    Ok(())
}

#[test]
fn many_backends_are_listed_in_little_time() -> anyhow::Result<()> {
    const COUNT: usize = 200;
    let sandbox = sandbox()?;
    let units: Vec<_> = (0..COUNT)
        .map(|number| format!("vhost-user-gpu@vm{number}.socket"))
        .collect();
    let units: Vec<_> = units.iter().map(String::as_str).collect();
    sandbox.systemctl(&[&["start"], units.as_slice()].concat())?;
    let all = json(&sandbox, &["list"])?;
    assert_eq!(all.as_array().map(Vec::len), Some(COUNT));
    assert!(
        all.as_array()
            .is_some_and(|all| all.iter().all(|gpu| gpu["state"] == "listening"))
    );
    let script = "TIMEFORMAT='%U %S'; time vhostctl list >/dev/null";
    let text = stderr(&sandbox.exec(["bash", "-c", script])?);
    let times: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    let times = times.with_context(|| text.clone())?;
    ensure!(times.len() == 2, "{text}");
    let seconds: f64 = times.iter().sum();
    println!("{COUNT} backends: {seconds} s");
    // A release build takes a tenth of what this one may.
    assert!(seconds < 1.0, "{COUNT} backends took {seconds} s");
    Ok(())
}

/// A verb that does not end by itself; killed when dropped.
struct Follower {
    child: Child,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Follower {
    fn start(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut child = sandbox
            .command([&["vhostctl"], arguments].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let lines = lines(child.stdout.take().context("no stdout")?);
        let complaints = lines_of(&mut child)?;
        Ok(Self {
            child,
            lines,
            complaints,
        })
    }

    /// Waits until it says that it watches.
    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let line = self.complaints.recv_timeout(SOON)?;
        ensure!(line.starts_with("Watching "), "{line}");
        Ok(())
    }

    /// The next line that has this in it.
    fn line(&mut self, text: &str) -> anyhow::Result<String> {
        let deadline = Instant::now() + SOON;
        let mut others = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(line),
                Ok(line) => others.push(line),
                Err(_) => anyhow::bail!("no line with {text:?}, but {others:#?}"),
            }
        }
    }

    /// The same of the lines that are there.
    fn try_line(&mut self, text: &str) -> Option<String> {
        thread::sleep(Duration::from_millis(200));
        self.lines.try_iter().find(|line| line.contains(text))
    }

    /// Ends it by SIGTERM, which has to be a success.
    fn end(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let status = self.wait()?;
        ensure!(status == Some(0), "ended with {status:?}");
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        // What was started enters the sandbox and leaves the program to its child.
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let child = children.trim().parse().ok().and_then(Pid::from_raw);
        Ok(kill_process(child.context("no child")?, signal)?)
    }

    fn wait(&mut self) -> anyhow::Result<Option<i32>> {
        let deadline = Instant::now() + SOON;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            ensure!(Instant::now() < deadline, "it does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    Ok(lines(child.stderr.take().context("no stderr")?))
}

fn lines(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
