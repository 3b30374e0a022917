// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What `debian/tests` of the source package tests on a machine of Debian.

use std::fs;

use anyhow::{Context as _, ensure};
use harness::debian_root::DebianRoot;
use harness::paths::source_root;

use crate::machine::Machine;

/// With Debian's own QEMU, which has these devices without KVM from 10.0 on: that of Debian 13.
#[test]
fn smoke_test_of_the_source_package_passes() -> anyhow::Result<()> {
    const RELEASE: &str = "trixie";
    let folder = source_root().join("packaging/debian/tests");
    let control = fs::read_to_string(folder.join("control"))?;
    ensure!(control.starts_with("Tests: smoke\n"), "{control}");
    let qemu = control
        .lines()
        .find_map(|line| line.trim().strip_suffix(" [amd64],"))
        .context("no package for amd64")?;
    DebianRoot::of(RELEASE)?.fetch(&[qemu])?;
    let machine = Machine::boot(RELEASE)?;
    machine.install("deb")?;
    machine.apt(&format!("install --no-install-recommends {qemu}"))?;
    let test = fs::read_to_string(folder.join("smoke"))?;
    machine.sandbox.write("/root/smoke", &test)?;
    let said = machine.sh("chmod +x /root/smoke && /root/smoke")?;
    ensure!(said.contains("Nothing is left"), "{said}");
    Ok(())
}
