// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A machine with the product installed, where root uses vhostctl.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;

use anyhow::{Context as _, ensure};
use frontend::Session;
use harness::mock::MockInput;
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::Value;

use super::stderr;

/// Where systemd's administrator has unit files.
pub(crate) const FILES: &str = "/etc/systemd/system";

/// A systemd with the product installed, and perhaps with input devices.
pub(crate) struct Host {
    pub sandbox: Sandbox,
    pub mock: Option<MockInput>,
}

impl Host {
    pub(crate) fn new(devices: &[&str]) -> anyhow::Result<Self> {
        let staging = stage()?;
        let sandbox = Sandbox::start(&[staging.path()])?;
        let mock = if devices.is_empty() {
            None
        } else {
            Some(MockInput::start_in(&sandbox, devices)?)
        };
        Ok(Self { sandbox, mock })
    }

    /// Runs vhostctl on a host that has a laptop's devices, render nodes too.
    pub(crate) fn run_on_laptop(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        const DEVICES: &str = "/run/laptop.umockdev";
        let mock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock/laptop.umockdev");
        self.sandbox.write(DEVICES, &fs::read_to_string(mock)?)?;
        let mock = ["umockdev-run", "--device", DEVICES, "--", "vhostctl"];
        self.sandbox.exec([&mock[..], arguments].concat())
    }

    /// Runs vhostctl where the devices can be seen.
    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.sandbox.exec(self.words(arguments))
    }

    pub(crate) fn words(&self, arguments: &[&str]) -> Vec<String> {
        let mut command = vec!["env".to_owned()];
        if let Some(mock) = &self.mock {
            command.extend(
                mock.environment()
                    .map(|(name, value)| format!("{name}={value}")),
            );
        }
        command.push("vhostctl".to_owned());
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        command
    }

    /// What it says, on either way; it has to succeed.
    pub(crate) fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = stderr(&output);
        ensure!(
            output.status.success(),
            "{arguments:?}: {}: {said}",
            output.status
        );
        Ok(String::from_utf8(output.stdout)? + &said)
    }

    /// What it complains about; it has to fail with this status.
    pub(crate) fn fails(&self, arguments: &[&str], code: i32) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = stderr(&output);
        ensure!(
            output.status.code() == Some(code),
            "{arguments:?}: {}: {said}",
            output.status
        );
        ensure!(
            output.stdout.is_empty(),
            "{arguments:?}: {:?}",
            output.stdout
        );
        Ok(said)
    }

    pub(crate) fn list(&self) -> anyhow::Result<Vec<Value>> {
        let output = self.run(&["list", "--json=short"])?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    pub(crate) fn state(&self, unit: &str) -> anyhow::Result<String> {
        self.sandbox.property(unit, "ActiveState")
    }

    pub(crate) fn is_enabled(&self, unit: &str) -> anyhow::Result<bool> {
        let output = self.sandbox.exec(["systemctl", "is-enabled", unit])?;
        Ok(output.status.success())
    }

    pub(crate) fn file(&self, service: &str) -> anyhow::Result<String> {
        let path = self
            .sandbox
            .path(&format!("{FILES}/{service}.d/50-vhostctl.conf"));
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    pub(crate) fn has_folder(&self, service: &str) -> bool {
        self.sandbox.path(&format!("{FILES}/{service}.d")).exists()
    }

    pub(crate) fn connect(&self, socket: &str) -> anyhow::Result<Session> {
        let mut session = Session::new(UnixStream::connect(self.sandbox.path(socket))?);
        session.negotiate(Session::usual_protocol_features())?;
        Ok(session)
    }
}
