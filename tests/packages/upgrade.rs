// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A newer version is installed while VMs run.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, ensure};
use harness::staging::program_of_next_state;
use harness::viewers::RfbViewer;

use crate::machine::{Machine, OLD_VERSION, SOON};
use crate::vms::Vm;

const VMS: [&str; 3] = ["vm1", "vm2", "vm3"];

#[test]
fn upgrade_on_debian_12_disturbs_no_vm() -> anyhow::Result<()> {
    upgrade_disturbs_no_vm("bookworm")
}

#[test]
fn upgrade_on_debian_13_disturbs_no_vm() -> anyhow::Result<()> {
    upgrade_disturbs_no_vm("trixie")
}

/// An upgrade and the way back while somebody looks, with settings of the administrator's own beside ours.
#[test]
fn viewer_and_own_settings_outlast_an_upgrade_and_a_downgrade() -> anyhow::Result<()> {
    const CONSOLE: &str = "vhost-vnc@vm1.service";
    const OWN: &str = "/etc/systemd/system/vhost-user-gpu@vm1.service.d/override.conf";
    const NEEDRESTART: &str = "/etc/needrestart/conf.d/vhost-user.conf";
    let machine = Machine::boot("trixie")?;
    machine.install("old")?;
    machine.sh("vhostctl add console vm1 --now")?;
    machine.sandbox.write(OWN, "[Service]\nNice=3\n")?;
    machine.sh(&format!(
        "systemctl daemon-reload && echo '# our own' >>{NEEDRESTART}"
    ))?;
    let ours = "cat /etc/systemd/system/vhost*/50-vhostctl.conf";
    let added = machine.sh(ours)?;
    let mut vm = Vm::start(&machine, "vm1")?;
    vm.works()?;
    let viewer = machine.sandbox.path("/run/vhost-user/vnc/vm1.sock");
    let mut viewer = RfbViewer::connect(&viewer, SOON)?;
    viewer.wait_picture(&vm.drawn())?;
    let console = machine.pid(CONSOLE)?;

    for (kind, version) in [("deb", None), ("old", Some(OLD_VERSION)), ("deb", None)] {
        let before = machine.pid(GPU)?;
        let said = machine.install(kind)?;
        ensure!(said.contains("2 programs restarted."), "{said}");
        ensure!(machine.pid(GPU)? != before, "{said}");
        let installed = machine.sh("dpkg-query -W -f '${Version}' vhost-vnc")?;
        ensure!(
            (installed == OLD_VERSION) == version.is_some(),
            "{installed}: {said}"
        );
        vm.works().with_context(|| said.clone())?;
        viewer
            .wait_picture(&vm.drawn())
            .with_context(|| said.clone())?;
        ensure!(
            machine.pid(CONSOLE)? == console,
            "the console was restarted: {said}"
        );
        let nice = machine.sandbox.property(GPU, "Nice")?;
        ensure!(nice == "3", "{nice}: {said}");
        ensure!(machine.sh(ours)? == added, "{said}");
        machine.sh(&format!("grep -q 'our own' {NEEDRESTART}"))?;
    }
    Ok(())
}

const GPU: &str = "vhost-user-gpu@vm1.service";
const KEYBOARD: &str = "vhost-user-input@vm1:keyboard.service";

/// The program that serves the VM's GPU keeps its state as the new one does not understand it.
#[test]
fn upgrade_leaves_a_program_with_another_state_alone() -> anyhow::Result<()> {
    let machine = Machine::boot_with("trixie", |tree| {
        let program = tree.join("usr/bin/vhost-user-gpu");
        match program.exists() {
            true => program_of_next_state(&program, &program),
            false => Ok(()),
        }
    })?;
    let hint = "vm1:gpu goes on with the old program until its VM is shut down: the new one does not understand its state.";
    upgrade_leaves_alone(&machine, &[GPU], &[hint, "1 program restarted."])
}

/// Programs and units as they were before they kept their state.
#[test]
fn upgrade_leaves_programs_without_a_state_alone() -> anyhow::Result<()> {
    let machine = Machine::boot_with("trixie", |tree| {
        for unit in ["vhost-user-gpu@.service", "vhost-user-input@.service"] {
            let unit = tree.join("usr/lib/systemd/system").join(unit);
            if unit.exists() {
                let text = fs::read_to_string(&unit)?;
                let keeps = |line: &&str| line.starts_with("FileDescriptorStoreMax=");
                ensure!(text.lines().filter(keeps).count() == 1, "{text}");
                let lines = text.lines().filter(|line| !keeps(line));
                fs::write(&unit, lines.collect::<Vec<_>>().join("\n") + "\n")?;
            }
        }
        Ok(())
    })?;
    let hints = [
        "vm1:gpu goes on with the old program until its VM is shut down.",
        "vm1:keyboard goes on with the old program until its VM is shut down.",
        "0 programs restarted.",
    ];
    upgrade_leaves_alone(&machine, &[GPU, KEYBOARD], &hints)
}

/// Upgrades under a VM, which keeps the processes of these services and notices nothing; another VM has the new programs.
fn upgrade_leaves_alone(machine: &Machine, old: &[&str], hints: &[&str]) -> anyhow::Result<()> {
    machine.install("old")?;
    machine.sh("vhostctl add console vm1 --now")?;
    let mut vm = Vm::start(machine, "vm1")?;
    vm.works()?;
    let pids =
        || -> anyhow::Result<[String; 2]> { Ok([machine.pid(GPU)?, machine.pid(KEYBOARD)?]) };
    let before = pids()?;
    let said = machine.install("deb")?;
    for hint in hints {
        ensure!(said.contains(hint), "no {hint:?}: {said}");
    }
    for ((service, before), now) in [GPU, KEYBOARD].iter().zip(before).zip(pids()?) {
        ensure!(
            (before == now) == old.contains(service),
            "{service}: {said}"
        );
    }
    vm.works().with_context(|| said.clone())?;
    drop(vm);
    for service in [GPU, KEYBOARD] {
        machine
            .sandbox
            .wait_property(service, "ActiveState", "inactive", SOON)?;
    }
    let mut vm = Vm::start(machine, "vm1")?;
    vm.works()?;
    // The new programs keep their state.
    let before = pids()?;
    let said = machine.sh("vhostctl restart --all")?;
    ensure!(said.contains("2 programs restarted."), "{said}");
    ensure!(pids()? != before, "{said}");
    vm.works()
}

fn upgrade_disturbs_no_vm(release: &str) -> anyhow::Result<()> {
    let machine = Machine::boot(release)?;
    machine.install("old")?;
    let version = || machine.sh("dpkg-query -W -f '${Version}' vhost-user-gpu");
    ensure!(version()? == OLD_VERSION, "{}", version()?);
    let mut vms = Vec::new();
    for name in VMS {
        machine.sh(&format!("vhostctl add console {name} --now"))?;
        vms.push(Vm::start(&machine, name)?);
    }
    for vm in &mut vms {
        vm.works()?;
    }
    let services: Vec<String> = vms.iter().flat_map(|vm| vm.services.clone()).collect();
    let pids = || -> anyhow::Result<Vec<String>> {
        services
            .iter()
            .map(|service| machine.pid(service))
            .collect()
    };
    let before = pids()?;

    // All VMs draw and type meanwhile.
    let is_done = AtomicBool::new(false);
    let (installed, vms) = thread::scope(|scope| {
        let install = scope.spawn(|| {
            let installed = machine.install("deb");
            is_done.store(true, Ordering::Release);
            installed
        });
        let workers: Vec<_> = vms
            .into_iter()
            .map(|mut vm| {
                let is_done = &is_done;
                scope.spawn(move || -> anyhow::Result<Vm> {
                    loop {
                        let is_last = is_done.load(Ordering::Acquire);
                        vm.works()?;
                        if is_last {
                            return Ok(vm);
                        }
                    }
                })
            })
            .collect();
        let vms: Vec<_> = workers
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        (install.join(), vms)
    });
    let said = installed.map_err(|_| anyhow::anyhow!("apt"))??;
    ensure!(version()? != OLD_VERSION, "no upgrade: {said}");
    ensure!(said.contains("6 programs restarted."), "{said}");
    for ((service, before), now) in services.iter().zip(&before).zip(pids()?) {
        ensure!(
            *before != now && now != "0",
            "{service}: {before} goes on as {now}: {said}"
        );
    }
    for vm in vms {
        let mut vm = vm
            .map_err(|_| anyhow::anyhow!("a VM panicked: {said}"))?
            .with_context(|| said.clone())?;
        vm.works()?;
    }
    Ok(())
}
