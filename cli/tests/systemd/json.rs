// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The members that docs/json.md lists are those of the outputs.

use std::collections::BTreeSet;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::gpu::{Format, Gpu, GpuOptions, Rect, ResponseKind};
use frontend::{Memory, Session};
use harness::mock::KEYBOARD;
use serde_json::Value;

use crate::common::follower::Follower;
use crate::common::host::Host;
use crate::common::json_members::Members;

const GPU: &str = "/run/vhost-user/gpu/vm1.sock";

const SOON: Duration = Duration::from_secs(60);

fn objects(host: &Host, arguments: &[&str]) -> anyhow::Result<Vec<Value>> {
    let text = host.ok(&[arguments, &["--json=short"]].concat())?;
    let parsed = serde_json::from_str(&text).with_context(|| text.clone())?;
    let Value::Array(objects) = parsed else {
        anyhow::bail!("{arguments:?}: no list: {text}");
    };
    ensure!(!objects.is_empty(), "{arguments:?}: {text}");
    Ok(objects)
}

fn check(host: &Host, arguments: &[&str], headings: &[&str]) -> anyhow::Result<Vec<Value>> {
    let members = Members::under(headings)?;
    let objects = objects(host, arguments)?;
    for object in &objects {
        let checked = members.check(object);
        checked.with_context(|| format!("{arguments:?}"))?;
    }
    Ok(objects)
}

/// A machine with a VM that has a console and a keyboard of the host, and that runs while another VMM waits.
#[test]
fn members_are_those_of_the_outputs() -> anyhow::Result<()> {
    const LIST: &str = "`vhostctl list`";
    const STATUS: [&str; 2] = [LIST, "`vhostctl status`"];
    let host = Host::new(&[KEYBOARD])?;
    let mut monitor = Follower::start(&host.sandbox, &["monitor", "--units", "--json=short"])?;
    monitor.wait_ready()?;
    host.ok(&["add", "console", "vm1", "--now"])?;
    let keyboard = host.mock.as_ref().context("no mock")?.path(0);
    host.ok(&["add", "input", "vm1", &keyboard, "--name=kbd", "--force"])?;
    let socket = host.sandbox.path(GPU);
    let session = Session::new(UnixStream::connect(&socket)?);
    let memory = Memory::with_size(1 << 20)?;
    let no_display = None::<UnixStream>;
    let mut gpu = Gpu::start(session, &memory, no_display, GpuOptions::default())?;
    let screen = Rect::sized(64, 64);
    for response in [
        gpu.create_2d(1, Format::B8G8R8X8, 64, 64),
        gpu.set_scanout(0, 1, screen),
        gpu.flush(1, screen),
    ] {
        response?.expect("drawing", ResponseKind::OkNodata)?;
    }
    let _second = UnixStream::connect(&socket)?;
    let began = Instant::now();
    while objects(&host, &["status", "vm1:gpu"])?[0]["front_end_waits"].is_null() {
        ensure!(began.elapsed() < SOON, "nobody waits");
        thread::sleep(Duration::from_millis(50));
    }

    check(&host, &["list"], &[LIST])?;
    // All that can be there was there once.
    let mut seen = BTreeSet::new();
    for object in check(&host, &["status", "--lines=3"], &STATUS)? {
        let members = object.as_object().context("no object")?;
        let is_empty =
            |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        let there = members.iter().filter(|(_, value)| !is_empty(value));
        seen.extend(there.map(|(name, _)| name.clone()));
    }
    for name in [
        "console",
        "front_end",
        "since",
        "front_end_waits",
        "device",
        "viewers",
        "log",
    ] {
        ensure!(seen.contains(name), "{name} is not in {seen:?}");
    }
    check(&host, &["list-backends"], &["`vhostctl list-backends`"])?;
    check(
        &host,
        &["list-devices", "--type=input"],
        &["`vhostctl list-devices`: an input device"],
    )?;
    check(&host, &["libvirt-xml", "vm1"], &["`vhostctl libvirt-xml`"])?;
    let words = objects(&host, &["qemu-args", "vm1"])?;
    ensure!(words.iter().all(Value::is_string), "{words:?}");
    check(
        &host,
        &["screenshot", "vm1", "/run/screen.png"],
        &["`vhostctl screenshot`"],
    )?;
    let event = monitor.line("vhost-user-gpu@vm1.service")?;
    Members::under(&["`vhostctl monitor`: a unit"])?.check(&serde_json::from_str(&event)?)?;
    Ok(())
}
