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
