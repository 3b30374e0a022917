// SPDX-License-Identifier: Apache-2.0 OR MIT
//! libvirt's system daemon.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;

use crate::artifacts::Artifacts;
use crate::console::Console;
use crate::image::Image;
use crate::systemd::Sandbox;

use super::{AGENT, CONFIGURATION, DomainParts, LIMIT, Libvirt, ROOT, wait_screenshot};

/// Where the package of the daemon's units is not installed.
const UNIT: &str = "[Service]\nType=notify\nExecStart=/usr/sbin/libvirtd\nKillMode=process\n";
const SCREEN: &str = "/run/screen.png";

/// libvirtd, and virsh to speak with it. Domains live on the machine, whatever becomes of this.
#[derive(Debug)]
pub struct Daemon<'a>(&'a Sandbox);

impl<'a> Daemon<'a> {
    /// Leaves a machine as [`Libvirt::install`], and the daemon starts now and at each boot.
    ///
    /// # Errors
    ///
    /// If something of it fails.
    pub fn install(host: &'a Sandbox, artifacts: &Artifacts) -> anyhow::Result<Self> {
        Libvirt::install(host, artifacts)?;
        host.write("/etc/libvirt/qemu.conf", CONFIGURATION)?;
        if !host
            .exec(["systemctl", "cat", "libvirtd.service"])?
            .status
            .success()
        {
            host.write("/etc/systemd/system/libvirtd.service", UNIT)?;
            host.systemctl(&["daemon-reload"])?;
        }
        // The sandbox boots into a target of its own.
        host.systemctl(&["add-wants", "harness.target", "libvirtd.service"])?;
        host.systemctl(&["start", "libvirtd.service"])?;
        Ok(Self(host))
    }

    /// The daemon that has been started with the machine, which was installed before its boot.
    ///
    /// # Errors
    ///
    /// If the guest's files cannot be brought.
    pub fn after_boot(host: &'a Sandbox, artifacts: &Artifacts) -> anyhow::Result<Self> {
        Libvirt::install(host, artifacts)?;
        Ok(Self(host))
    }

    /// Runs `virsh` and returns what it says.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn virsh(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let words = [&["virsh", "-c", "qemu:///system"], arguments].concat();
        let output = self.0.exec(words)?;
        ensure!(output.status.success(), "virsh {arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Defines the domain `name`, which is the test guest with these devices.
    ///
    /// # Errors
    ///
    /// If libvirt refuses it.
    pub fn define(
        &self,
        name: &str,
        artifacts: &Artifacts,
        parts: DomainParts,
    ) -> anyhow::Result<()> {
        let file = format!("{ROOT}/{name}.xml");
        self.0.write(&file, &parts.xml(name, artifacts))?;
        self.virsh(&["define", &file]).map(drop)
    }

    /// Starts a domain, and waits until it has booted.
    ///
    /// # Errors
    ///
    /// If libvirt refuses it, or it does not boot.
    pub fn start(&self, name: &str) -> anyhow::Result<Console> {
        self.virsh(&["start", name])?;
        let guest = Console::new(UnixStream::connect(self.0.path(AGENT))?)?;
        guest.wait_ready(LIMIT)?;
        Ok(guest)
    }

    /// Waits until `virsh screenshot` of the domain `name` shows this.
    ///
    /// # Errors
    ///
    /// If it does not within `timeout`.
    pub fn wait_screenshot(
        &self,
        name: &str,
        expected: &Image,
        timeout: Duration,
    ) -> anyhow::Result<()> {
        wait_screenshot(expected, timeout, || {
            self.virsh(&["screenshot", name, SCREEN])?;
            Ok(fs::read(self.0.path(SCREEN))?)
        })
    }
}
