// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The RPM packages, installed by rpm on Debian with systemd: what their files and scripts do there, and nothing of what a
//! distribution that uses RPM adds.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};

use crate::machine::{Machine, SOON, built, is_systemds};
use crate::vms::Vm;

const PACKAGES: &str = "vhostctl vhost-user-gpu vhost-user-input vhost-vnc";
const FILES: &str = "/root/packages/rpm";
const SOCKETS: [&str; 3] = [
    "vhost-user-gpu@vm2.socket",
    "vhost-user-input@vm2:keyboard.socket",
    "vhost-vnc@vm2.socket",
];

#[test]
fn scripts_of_rpm_packages_disturb_no_vm() -> anyhow::Result<()> {
    let machine = Machine::bare("trixie", &["rpm"])?;
    machine.copy(&built("rpm")?, FILES)?;
    let before = machine.files()?;
    // Debian's packages are what these depend on.
    let rpm = |words: &str| machine.sh(&format!("rpm --nodeps {words} 2>&1"));
    rpm(&format!("--install {FILES}/*.rpm"))?;
    for vm in ["vm1", "vm2"] {
        machine.sh(&format!("vhostctl add console {vm} --now"))?;
    }
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;
    let services = vm.services.clone();
    let pids = || -> anyhow::Result<Vec<String>> {
        let pids = services.iter().map(|service| machine.pid(service));
        pids.collect()
    };
    let sockets = |wanted: &str| -> anyhow::Result<()> {
        for socket in SOCKETS {
            let state = machine.sandbox.property(socket, "SubState")?;
            ensure!(state == wanted, "{socket} is {state}");
        }
        Ok(())
    };
    let end = |vm: Vm| -> anyhow::Result<()> {
        drop(vm);
        for service in &services {
            machine
                .sandbox
                .wait_property(service, "ActiveState", "inactive", SOON)?;
        }
        Ok(())
    };

    // An upgrade, by the scripts: rpm hands them 2 on installation and 1 on removal.
    let first = pids()?;
    let said = rpm(&format!("--upgrade --replacepkgs {FILES}/*.rpm"))?;
    ensure!(said.contains("2 programs restarted."), "{said}");
    let second = pids()?;
    ensure!(!first.iter().any(|pid| second.contains(pid)), "{said}");
    sockets("listening").context(said)?;
    vm.works()?;

    // A removal stops what waits, and nothing that a VM uses.
    let said = rpm(&format!("--erase {PACKAGES}"))?;
    ensure!(pids()? == second, "{said}");
    sockets("dead").context(said)?;
    vm.works()?;
    end(vm)?;

    // What was assigned counts again.
    rpm(&format!("--install {FILES}/*.rpm"))?;
    machine.sh("vhostctl start vm1 vm2")?;
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;
    end(vm)?;

    // As docs/install.md says, since RPM has no purge.
    machine.sh("vhostctl remove '*'")?;
    let said = rpm(&format!("--erase {PACKAGES}"))?;
    let left: BTreeSet<String> = machine.files()?.difference(&before).cloned().collect();
    // What ends with this boot; empty folders of what services kept; rpm's own, with a folder of Fedora's package of folders.
    let may_stay = [
        "./run/vhost",
        "./var/lib/vhost-user-input",
        "./var/lib/private/vhost-user-input",
        "./var/lib/rpm",
        "./usr/share/licenses",
    ];
    let left: Vec<_> = left
        .iter()
        .filter(|path| !is_systemds(path) && !may_stay.iter().any(|stays| path.starts_with(stays)))
        .collect();
    ensure!(left.is_empty(), "{left:?}: {said}");
    let units = machine.sh("systemctl list-units --all --plain --no-legend 'vhost*'")?;
    ensure!(units.trim().is_empty(), "{units}");
    Ok(())
}
