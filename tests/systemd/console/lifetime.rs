// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a console runs: while somebody looks. What starts, stops and kills it.

use std::thread;
use std::time::Duration;

use anyhow::ensure;

use super::{Host, sees, services, shows_something, wait_closed};
use crate::common::{negative, pattern};

const SIZE: (u32, u32) = (320, 200);
/// Longer than a console takes to connect again for the first time.
const QUIET: Duration = Duration::from_secs(3);

#[test]
fn nothing_runs_before_and_after_somebody_looks() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    for round in 1..=2 {
        host.is_idle("vm1")?;
        let mut viewer = host.view("vm1")?;
        viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
        for service in services("vm1") {
            host.wait(&service, "ActiveState", "active")?;
        }
        drop(viewer);
        for service in services("vm1") {
            host.wait_end(&service)?;
            ensure!(host.starts(&service)? == round, "{}", host.log(&service));
        }
    }
    Ok(())
}

#[test]
fn killed_console_is_there_for_the_next_viewer_and_the_guest_notices_nothing() -> anyhow::Result<()>
{
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let [console, gpu, keyboard, _] = services("vm1");
    let pids = [&gpu, &keyboard].map(|service| host.0.property(service, "MainPID"));
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    viewer.key(0x61, true)?;
    vm.keyboard.next_report()?;
    host.0.systemctl(&["kill", "--signal=KILL", &console])?;
    wait_closed(&mut viewer)?;
    // What it pressed is released.
    vm.keyboard.next_report()?;
    vm.show(0, SIZE, negative);
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    viewer.key(0x61, true)?;
    vm.keyboard.next_report()?;
    for (service, pid) in [&gpu, &keyboard].into_iter().zip(pids) {
        ensure!(host.0.property(service, "MainPID")? == pid?, "{service}");
    }
    Ok(())
}

#[test]
fn stopped_console_socket_ends_its_viewers() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    host.0.systemctl(&["stop", "vhost-vnc@vm1.socket"])?;
    wait_closed(&mut viewer)?;
    let [console, gpu, ..] = services("vm1");
    host.wait_end(&console)?;
    ensure!(!host.0.path("/run/vhost-user/vnc/vm1.sock").exists());
    ensure!(host.state(&gpu)? == "active");
    vm.show(0, SIZE, negative);
    Ok(())
}

/// A console that looks does not start again what the administrator stopped.
#[test]
fn stopped_gpu_stays_stopped_while_somebody_looks() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    let [_, gpu, keyboard, _] = services("vm1");
    host.wait(&gpu, "ActiveState", "active")?;
    host.wait(&keyboard, "ActiveState", "active")?;
    let stopped = [
        "vhost-user-gpu@vm1.socket",
        "vhost-user-input@vm1:keyboard.socket",
    ];
    host.0.systemctl(&[&["stop"], &stopped[..]].concat())?;
    thread::sleep(QUIET);
    for service in [&gpu, &keyboard] {
        ensure!(host.state(service)? == "inactive", "{}", host.log(service));
        ensure!(host.starts(service)? == 1, "{}", host.log(service));
    }
    // It serves again when the sockets do; the viewer has been there all the time.
    host.start(&super::sockets("vm1"))?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    // A restart is one of all that belongs to it.
    drop(vm);
    host.0
        .systemctl(&["restart", "vhost-user-gpu@vm1.socket"])?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, negative);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    Ok(())
}

/// systemd gives no further socket to a service that runs.
#[test]
fn console_of_a_running_vm_begins_with_its_next_start() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.write_console("vm1")?;
    let display = "vhost-user-display@vm1.socket";
    let devices = [
        "vhost-user-input@vm1:keyboard.socket",
        "vhost-user-input@vm1:tablet.socket",
    ];
    host.0
        .systemctl(&["start", "vhost-user-gpu@vm1.socket", devices[0], devices[1]])?;
    let vm = host.run_vm("vm1")?;
    // "enable --now" enables what it cannot start.
    ensure!(host.0.systemctl(&["enable", "--now", display]).is_err());
    let log = host
        .0
        .journal(&["--output=cat", &format!("--unit={display}")])?;
    ensure!(log.contains("already active, refusing"), "{log}");
    ensure!(host.0.property(display, "Result")? == "success");
    host.0.systemctl(&["start", "vhost-vnc@vm1.socket"])?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;

    drop(vm);
    host.wait_end("vhost-user-gpu@vm1.service")?;
    let mut vm = host.run_vm("vm1")?;
    ensure!(host.state(display)? == "active");
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    Ok(())
}

/// As a package's new version or `make install` over the old one: what runs goes on by the old programs.
#[test]
fn upgrade_keeps_the_vm_and_who_looks() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    let [console, gpu, keyboard, tablet] = services("vm1");
    // Whether a service runs a program that is no longer installed.
    let runs_old = |service: &str| -> anyhow::Result<bool> {
        let (_, pid) = host.process(service)?;
        let program = std::fs::read_link(host.0.path(&format!("/proc/{pid}/exe")))?;
        Ok(program.to_string_lossy().ends_with(" (deleted)"))
    };
    // The new version's programs and units take the places of the old ones.
    let upgrade = "set -e\n\
        for file in /usr/bin/vhost-user-* /usr/bin/vhost-vnc /usr/libexec/vhost-user-* /usr/lib/systemd/system/vhost-*\n\
        do cp -p \"$file\" \"$file.new\"; mv \"$file.new\" \"$file\"; done\n\
        systemctl daemon-reload\n";
    let upgraded = host.0.exec(["sh", "-c", upgrade])?;
    ensure!(upgraded.status.success(), "{upgraded:?}");
    for service in [&console, &gpu, &keyboard, &tablet] {
        ensure!(runs_old(service)?, "{service}");
    }
    vm.show(0, SIZE, negative);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    let mut beside = host.view("vm1")?;
    beside.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    viewer.key(0x61, true)?;
    vm.keyboard.next_report()?;

    // The next viewer has the new console, with the old GPU; the next VM all that is new.
    drop((viewer, beside));
    host.wait_end(&console)?;
    vm.keyboard.next_report()?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    ensure!(!runs_old(&console)? && runs_old(&gpu)?);
    drop(vm);
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    for service in [&gpu, &keyboard, &tablet] {
        ensure!(!runs_old(service)?, "{service}");
    }
    Ok(())
}
