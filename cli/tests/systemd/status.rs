// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `status`, `log` and `-H` under a real systemd, with the real backends.

use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::gpu::{DisplayOptions, DisplayThread, Format, Gpu, GpuOptions, Rect};
use frontend::{Memory, Session};
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::Value;

use crate::common::follower::Follower;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
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
        text.starts_with("● vm1:gpu - vhost-user GPU of Virtual Machine vm1\n"),
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
    sandbox.drop_in(GPU_SERVICE, "[Service]\nNice=1\n")?;
    sandbox.drop_in(GPU, "[Socket]\nBacklog=7\n")?;
    let ascii = sandbox.exec(["env", "LC_ALL=C", "COLUMNS=60", "vhostctl", "status", "vm1"])?;
    let ascii = String::from_utf8(ascii.stdout)?;
    assert!(ascii.is_ascii(), "{ascii}");
    assert!(ascii.starts_with("* vm1:gpu"), "{ascii}");
    for part in ["Drop-In: |-/", "`-/", "..."] {
        assert!(ascii.contains(part), "{part}: {ascii}");
    }
    sandbox.systemctl(&["stop", GPU])?;
    let stopped = vhostctl(&sandbox, &["status", "vm1"])?;
    assert_eq!(stopped.status.code(), Some(3), "{}", stderr(&stopped));
    let text = String::from_utf8(stopped.stdout)?;
    assert!(text.starts_with("○ vm1:gpu"), "{text}");
    assert!(text.contains("the front-end disconnected"), "{text}");
    Ok(())
}

#[test]
fn failed_backend_shows_why() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let units = ["socket", "service"].map(|half| format!("vhost-user-input@vm1:kbd.{half}"));
    // journald may fail to attribute what the missing program's process logs: it is gone at once.
    let program = "[Service]\nExecStartPre=/bin/echo about to run\nExecStart=\n\
                   ExecStart=/usr/bin/not-there --fd=3\n";
    sandbox.drop_in(&units[1], program)?;
    sandbox.systemctl(&["start", &units[0]])?;
    let _front_end = UnixStream::connect(sandbox.path("/run/vhost-user/input/vm1:kbd.sock"))?;
    sandbox.wait_property(&units[0], "ActiveState", "failed", SOON)?;
    // systemd logs up to ten more lines by then.
    let status = vhostctl(&sandbox, &["status", "vm1:kbd", "--lines=20"])?;
    assert_eq!(status.status.code(), Some(3));
    let text = String::from_utf8(status.stdout)?;
    assert!(text.starts_with("× vm1:kbd - "), "{text}");
    assert!(
        field(&text, "Active").is_some_and(|text| text.starts_with("failed (Result: ")),
        "{text}"
    );
    assert!(text.contains("about to run"), "{text}");
    assert!(text.contains("status=203/EXEC"), "{text}");
    assert!(text.contains("harness.conf"), "{text}");
    Ok(())
}

/// Whatever the program says besides, its status tells whether a front-end is connected.
#[test]
fn front_end_is_connected_while_a_screen_is_shown() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    sandbox.systemctl(&["start", GPU])?;
    let session = Session::new(UnixStream::connect(
        sandbox.path("/run/vhost-user/gpu/vm1.sock"),
    )?);
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    let memory = Memory::with_size(16 << 20)?;
    let mut gpu = Gpu::start(session, &memory, Some(socket), GpuOptions::default())?;
    gpu.create_2d(1, Format::B8G8R8X8, 64, 48)?;
    gpu.set_scanout(0, 1, Rect::sized(64, 48))?;
    sandbox.wait_property(
        GPU_SERVICE,
        "StatusText",
        "a front-end is connected: 64x48",
        SOON,
    )?;
    let text = stdout(&sandbox, &["status", "vm1"])?;
    assert_eq!(field(&text, "Front-end"), Some("connected"), "{text}");
    assert_eq!(json(&sandbox, &["status", "vm1"])?[0]["front_end"], true);
    drop((gpu, display));
    Ok(())
}

#[test]
fn second_front_end_is_shown_while_it_waits() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    sandbox.systemctl(&["start", GPU])?;
    let first = connect(&sandbox)?;
    // Another user's, whom the service, in a user namespace of its own, does not know.
    let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); \
                  s.connect('/run/vhost-user/gpu/vm1.sock'); sys.stdin.read()";
    let user = ["setpriv", "--reuid=1234", "--regid=kvm", "--clear-groups"];
    let mut second = sandbox
        .command([&user[..], &["/usr/bin/python3", "-c", script]].concat())
        .stdin(Stdio::piped())
        .spawn()?;
    let deadline = Instant::now() + SOON;
    let waits = loop {
        let status = json(&sandbox, &["status", "vm1"])?;
        let waits = status[0]["front_end_waits"].clone();
        if !waits.is_null() || Instant::now() > deadline {
            break waits;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let pid = waits["pid"].as_u64().context("nobody waits")?;
    let text = stdout(&sandbox, &["status", "vm1"])?;
    assert_eq!(
        field(&text, "Front-end"),
        Some(format!("connected; another waits: pid {pid} (python3), uid 1234").as_str()),
        "{text}"
    );
    // It has nothing to read any more, and ends.
    drop(second.stdin.take());
    second.wait()?;
    let gone = || -> anyhow::Result<bool> {
        Ok(json(&sandbox, &["status", "vm1"])?[0]["front_end_waits"].is_null())
    };
    while !gone()? {
        ensure!(Instant::now() < deadline + SOON, "it is shown on");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(first);
    Ok(())
}

#[test]
fn missing_device_is_reported() -> anyhow::Result<()> {
    const DEVICE: &str = "/dev/input/by-id/usb-Away-event-kbd";
    let sandbox = sandbox()?;
    let service = "vhost-user-input@vm1:kbd.service";
    sandbox.drop_in(
        service,
        &format!("[Service]\nEnvironment=EVDEV_PATH={DEVICE}\n"),
    )?;
    let state = || -> anyhow::Result<Value> { Ok(json(&sandbox, &["list"])?[0]["state"].clone()) };
    assert_eq!(state()?, "inactive");
    sandbox.systemctl(&["start", "vhost-user-input@vm1:kbd.socket"])?;
    let list = stdout(&sandbox, &["list"])?;
    assert!(list.contains(" no-device "), "{list}");
    // systemd logs up to ten more lines by then.
    let status = vhostctl(&sandbox, &["status", "vm1:kbd", "--lines=20"])?;
    assert_eq!(status.status.code(), Some(3));
    let text = String::from_utf8(status.stdout)?;
    assert_eq!(
        field(&text, "Device"),
        Some(format!("{DEVICE} (missing)").as_str()),
        "{text}"
    );
    assert!(
        field(&text, "Active").is_some_and(|text| text.starts_with("no-device since ")),
        "{text}"
    );
    // It is plugged in.
    sandbox.write(DEVICE, "")?;
    assert_eq!(state()?, "listening");
    let text = stdout(&sandbox, &["status", "vm1:kbd"])?;
    assert_eq!(field(&text, "Device"), Some(DEVICE), "{text}");
    Ok(())
}

/// systemd does not notice it.
#[test]
fn removed_socket_is_reported_and_created_again() -> anyhow::Result<()> {
    const PATH: &str = "/run/vhost-user/gpu/vm1.sock";
    let sandbox = sandbox()?;
    let state = || -> anyhow::Result<Value> { Ok(json(&sandbox, &["list"])?[0]["state"].clone()) };
    for repair in [&["restart", "vm1"][..], &["add", "gpu", "vm1"]] {
        sandbox.systemctl(&["start", GPU])?;
        assert_eq!(state()?, "listening");
        std::fs::remove_file(sandbox.path(PATH))?;
        assert_eq!(state()?, "no-socket");
        let status = vhostctl(&sandbox, &["status", "vm1", "--lines=0"])?;
        assert_eq!(status.status.code(), Some(3));
        let text = String::from_utf8(status.stdout)?;
        let socket = field(&text, "Socket").context("no Socket")?;
        assert_eq!(
            socket,
            format!("{PATH} (is gone; 'vhostctl restart vm1:gpu' creates it again)")
        );
        let said = vhostctl(&sandbox, repair)?;
        assert!(said.status.success(), "{said:?}");
        assert_eq!(state()?, "listening", "{repair:?}: {said:?}");
    }
    drop(connect(&sandbox)?);
    Ok(())
}

/// What podman's generator makes of a quadlet: its unit does not say which network the container has.
#[test]
fn container_tells_no_network() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let service = |program: &str| {
        format!("[Service]\nType=notify\nExecStart={program} run --name=vm1 --network=none image\n")
    };
    for (program, network) in [
        ("/usr/bin/podman", Value::Null),
        ("/usr/bin/other", Value::Bool(true)),
    ] {
        sandbox.write(
            "/etc/systemd/system/vhost-user-gpu@vm1.service",
            &service(program),
        )?;
        sandbox.systemctl(&["daemon-reload"])?;
        assert_eq!(json(&sandbox, &["status"])?[0]["network"], network);
        let text = stdout(&sandbox, &["status"])?;
        let shown = (network == true).then_some("the host's");
        assert_eq!(field(&text, "Network"), shown, "{text}");
    }
    Ok(())
}

#[test]
fn log_is_that_of_the_selected_backends() -> anyhow::Result<()> {
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
    let unknown = vhostctl(&sandbox, &["log", "vm1", "vm9"])?;
    assert_eq!(unknown.status.code(), Some(5));
    assert!(
        stderr(&unknown).contains("No such backend: vm9."),
        "{unknown:?}"
    );
    assert_eq!(String::from_utf8(unknown.stdout)?, "");

    let mut follower = Follower::start(&sandbox, &["log", "vm1", "-f", "-n", "0"])?;
    // It has no way to say that it listens, so something happens until it does.
    let deadline = Instant::now() + SOON;
    while follower.try_line("the front-end disconnected").is_none() {
        ensure!(Instant::now() < deadline, "nothing is followed");
        drop(connect(&sandbox)?);
        sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;
    }
    Ok(())
}

#[test]
fn status_of_many_has_the_log_of_each() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    // One that logged much, several that logged little, and one that logged nothing.
    let units = (1..20).map(|n| format!("vhost-user-gpu@vm{n}.socket"));
    let units: Vec<String> = units.collect();
    let start: Vec<&str> = units.iter().map(String::as_str).collect();
    sandbox.systemctl(&[&["start"], &start[..]].concat())?;
    for _ in 0..8 {
        drop(connect(&sandbox)?);
        sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;
    }
    sandbox.write(
        "/etc/systemd/system/vhost-user-gpu@vm99.socket.d/x.conf",
        "",
    )?;
    sandbox.exec(["journalctl", "--sync"])?;

    let all = json(&sandbox, &["status", "-n", "4"])?;
    let all = all.as_array().context("no list")?;
    assert_eq!(all.len(), 20);
    for backend in all {
        let vm = backend["vm"].as_str().context("no VM")?;
        let log = &backend["log"];
        let lines = log.as_array().context("no log")?.len();
        if vm == "vm99" {
            assert_eq!(lines, 0);
            continue;
        }
        let alone = json(&sandbox, &["status", vm, "-n", "4"])?;
        assert_eq!(*log, alone[0]["log"], "{vm}");
        match vm {
            "vm1" => assert_eq!(lines, 4),
            _ => assert!((1..=4).contains(&lines), "{vm}: {log}"),
        }
    }
    Ok(())
}

#[test]
fn host_option_asks_over_ssh() -> anyhow::Result<()> {
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
    let there = vhostctl(&sandbox, &["status", "vm1", "--host=web"])?;
    let text = String::from_utf8_lossy(&there.stdout);
    assert!(text.contains("listening since"), "{text}");
    assert_eq!(
        stderr(&there),
        "The log is not shown with --host. Read it on web: ssh web vhostctl log vm1\n"
    );
    let there = vhostctl(&sandbox, &["status", "vm1", "--host=web", "-n0"])?;
    assert_eq!(stderr(&there), "");

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
