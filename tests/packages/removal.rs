// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Packages are removed and purged, also while a VM runs.

use std::collections::BTreeSet;

use anyhow::ensure;

use crate::machine::{Machine, SOON, is_systemds};
use crate::vms::Vm;

const PACKAGES: &str = "vhostctl vhost-user-gpu vhost-user-input vhost-vnc";
const GPU: &str = "vhost-user-gpu@vm1";
const OTHER: &str = "vhost-user-gpu@vm2.socket";

#[test]
fn purge_on_debian_12_leaves_nothing() -> anyhow::Result<()> {
    purge_leaves_nothing("bookworm")
}

#[test]
fn purge_on_debian_13_leaves_nothing() -> anyhow::Result<()> {
    purge_leaves_nothing("trixie")
}

fn purge_leaves_nothing(release: &str) -> anyhow::Result<()> {
    let machine = Machine::boot(release)?;
    let before = machine.files()?;
    machine.install("deb")?;
    for vm in ["vm1", "vm2"] {
        machine.sh(&format!("vhostctl add console {vm} --now"))?;
    }
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;
    let pid = machine.pid(&format!("{GPU}.service"))?;

    // Nobody uses vm2's sockets; vm1 goes on.
    let said = machine.apt(&format!("remove {PACKAGES}"))?;
    ensure!(said.contains(&format!("{GPU}.service is in use")), "{said}");
    vm.works()?;
    ensure!(machine.pid(&format!("{GPU}.service"))? == pid, "{said}");
    let state = machine.sandbox.property(OTHER, "ActiveState")?;
    ensure!(state == "inactive", "{OTHER} is {state}: {said}");
    ensure!(
        machine.run("command -v vhostctl")?.stdout.is_empty(),
        "{said}"
    );

    // What was assigned is there again.
    machine.install("deb")?;
    vm.works()?;
    machine
        .sandbox
        .wait_property(OTHER, "SubState", "listening", SOON)?;
    let list = machine.sh("vhostctl list")?;
    ensure!(list.contains("vm1") && list.contains("vm2"), "{list}");
    // That VM's next start, too.
    vm.works()?;
    drop(vm);
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;

    // A purge takes nothing from a running VM, and leaves no socket that nobody can connect to.
    machine.apt(&format!("purge {PACKAGES}"))?;
    vm.works()?;
    drop(vm);
    machine
        .sandbox
        .wait_property(&format!("{GPU}.service"), "ActiveState", "inactive", SOON)?;
    machine.install("deb")?;
    let list = machine.sh("vhostctl list")?;
    ensure!(!list.contains("vm1"), "{list}");
    machine.sh("vhostctl add console vm1 --now")?;
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;

    // An administrator's own drop-in is not ours to remove.
    let own = "/etc/systemd/system/vhost-user-gpu@vm2.service.d/override.conf";
    machine.sandbox.write(own, "[Service]\nNice=1\n")?;
    drop(vm);
    machine
        .sandbox
        .wait_property(&format!("{GPU}.service"), "ActiveState", "inactive", SOON)?;
    let said = machine.apt(&format!("purge --auto-remove {PACKAGES}"))?;
    let own = BTreeSet::from(
        [own, "/etc/systemd/system/vhost-user-gpu@vm2.service.d"].map(|path| format!(".{path}")),
    );
    let left: Vec<String> = machine.files()?.difference(&before).cloned().collect();
    let left: Vec<_> = left
        .into_iter()
        .filter(|path| !own.contains(path) && !is_systemds(path))
        .collect();
    ensure!(left.is_empty(), "{left:?}: {said}");
    let units = machine.sh("systemctl list-units --all --plain --no-legend 'vhost*'")?;
    ensure!(units.trim().is_empty(), "{units}");
    Ok(())
}

/// systemd closes the sockets of units whose files are away when it reads its units again. The program that serves a VM has the
/// socket as well, so that this shows only at the VM's next start.
#[test]
fn socket_that_systemd_lost_during_a_removal_is_named() -> anyhow::Result<()> {
    const SOCKET: &str = "vhost-user-gpu@vm1.socket";
    let machine = Machine::boot("trixie")?;
    machine.install("deb")?;
    machine.sh("vhostctl add console vm1 --now")?;
    let mut vm = Vm::start(&machine, "vm1")?;
    machine.apt("remove vhost-user-gpu")?;
    // As the installation of any other package with units does.
    machine.sandbox.systemctl(&["daemon-reload"])?;
    let said = machine.install("deb")?;
    let hint = format!(
        "{SOCKET} does not listen any more. Once its VM is shut down: systemctl restart {SOCKET}"
    );
    ensure!(said.contains(&hint), "{said}");
    vm.works()?;
    drop(vm);
    machine
        .sandbox
        .wait_property(&format!("{GPU}.service"), "ActiveState", "inactive", SOON)?;
    let list = machine.sh("vhostctl list vm1:gpu --no-legend")?;
    ensure!(list.contains("no-socket"), "{list}");
    machine.sh("vhostctl restart vm1:gpu")?;
    let list = machine.sh("vhostctl list vm1:gpu --no-legend")?;
    ensure!(list.contains("listening"), "{list}");
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()
}

/// One package without those that it recommends, or without those that its backends need.
#[test]
fn packages_that_are_missing_are_named() -> anyhow::Result<()> {
    let machine = Machine::boot("trixie")?;
    machine.apt("install --no-install-recommends /root/packages/deb/vhostctl_*.deb")?;
    let fails = |line: &str, code: i32, hint: &str| -> anyhow::Result<()> {
        let output = machine.run(line)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "{line}: {output:?}");
        ensure!(said.contains(hint), "{line}: {said}");
        Ok(())
    };
    let gpu = "It is in the package vhost-user-gpu.";
    fails("vhostctl add console vm1 --now", 5, gpu)?;
    fails("vhostctl add gpu vm1", 5, gpu)?;
    let left = machine.sh("find /etc/systemd/system -name 'vhost*'")?;
    ensure!(left.trim().is_empty(), "{left}");

    // A VM goes on without what was removed; what is there is restarted after an upgrade.
    machine.install("deb")?;
    machine.sh("vhostctl add console vm1 --now")?;
    let mut vm = Vm::start(&machine, "vm1")?;
    let pids = || -> anyhow::Result<[String; 2]> {
        Ok([machine.pid(&vm.services[0])?, machine.pid(&vm.services[1])?])
    };
    let before = pids()?;
    machine.apt("remove vhost-vnc")?;
    let said = machine.apt("install --reinstall /root/packages/deb/vhost-user-*.deb")?;
    let after = pids()?;
    ensure!(said.contains("2 programs restarted."), "{said}");
    ensure!(before[0] != after[0] && before[1] != after[1], "{said}");
    vm.works()?;
    Ok(())
}
