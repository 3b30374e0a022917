// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `monitor` under a real systemd, with the real backends.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;
use frontend::Session;
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::Value;

use crate::common::follower::Follower;

const SOON: Duration = Duration::from_secs(60);
const GPU: &str = "vhost-user-gpu@vm1.socket";
const GPU_SERVICE: &str = "vhost-user-gpu@vm1.service";

/// A systemd with the product installed.
fn sandbox() -> anyhow::Result<Sandbox> {
    let staging = stage()?;
    Sandbox::start(&[staging.path()])
}

/// Connects a front-end to the socket of vm1's GPU and begins to talk.
fn connect(sandbox: &Sandbox) -> anyhow::Result<Session> {
    let socket = UnixStream::connect(sandbox.path("/run/vhost-user/gpu/vm1.sock"))?;
    let mut session = Session::new(socket);
    session.negotiate(Session::usual_protocol_features())?;
    Ok(session)
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
    monitor.line(r#""unit":"vhost-user-gpu@vm1.service","vm":"vm1","name":"gpu","type":"gpu","active_state":"active","sub_state":"running","state":"running""#)?;
    drop(session);
    monitor.line(r#""active_state":"inactive""#)?;
    sandbox.systemctl(&["stop", GPU])?;
    monitor.line(r#""state":"inactive""#)?;
    monitor.end()
}

#[test]
fn monitor_ends_with_its_bus() -> anyhow::Result<()> {
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

/// daemon-reload has systemd drop and load all of its units, and `vhostctl add` has it do that.
#[test]
fn monitor_shows_no_state_that_did_not_exist() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    sandbox.systemctl(&["start", GPU])?;
    let session = connect(&sandbox)?;
    sandbox.wait_property(GPU_SERVICE, "ActiveState", "active", SOON)?;
    let mut monitor = Follower::start(&sandbox, &["monitor", "--units", "-j"])?;
    monitor.wait_ready()?;
    for _ in 0..5 {
        sandbox.systemctl(&["daemon-reload"])?;
    }
    let added = sandbox.exec(["vhostctl", "add", "gpu", "vm2"])?;
    assert!(added.status.success(), "{added:?}");
    sandbox.systemctl(&["daemon-reexec"])?;
    drop(session);
    sandbox.wait_property(GPU_SERVICE, "ActiveState", "inactive", SOON)?;
    sandbox.systemctl(&["daemon-reload"])?;
    sandbox.systemctl(&["stop", GPU])?;
    let mut told = Vec::new();
    while told.last() != Some(&(GPU.to_owned(), "dead".to_owned())) {
        let event: Value = serde_json::from_str(&monitor.line("")?)?;
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        told.push((text("unit"), text("sub_state")));
    }
    // systemd may merge two changes that follow each other, and tells of one unit before the other.
    let of = |unit: &str| -> Vec<_> {
        let states = told.iter().filter(|(told, _)| told == unit);
        let states = states.map(|(_, state)| state.as_str());
        states.filter(|state| !state.contains("sigterm")).collect()
    };
    assert_eq!(of(GPU_SERVICE), ["dead"], "{told:?}");
    assert_eq!(of(GPU), ["listening", "dead"], "{told:?}");
    monitor.end()
}

/// The files of a backend tell its type, and `remove` deletes them before it stops the units.
#[test]
fn monitor_and_list_show_one_type() -> anyhow::Result<()> {
    let sandbox = sandbox()?;
    let vhostctl = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = sandbox.exec([&["vhostctl"], arguments].concat())?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    let add = |name: &str| {
        let name = format!("--name={name}");
        vhostctl(&["add", "fs", "vm1", "--backend=/bin/true", &name, "--now"])
    };
    add("before")?;
    let mut monitor = Follower::start(&sandbox, &["monitor", "--units", "-j"])?;
    monitor.wait_ready()?;
    add("data")?;
    for backend in serde_json::from_str::<Vec<Value>>(&vhostctl(&["list", "-j"])?)? {
        ensure!(backend["type"] == "fs", "{backend}");
    }
    vhostctl(&["remove", "vm1"])?;
    let mut wanted = vec![
        ("data", "listening"),
        ("before", "inactive"),
        ("data", "inactive"),
    ];
    while !wanted.is_empty() {
        let event: Value = serde_json::from_str(&monitor.line("")?)?;
        ensure!(event["type"] == "fs", "{event}");
        wanted.retain(|(name, state)| event["name"] != *name || event["state"] != *state);
    }
    monitor.end()
}
