// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The ways in which a program ends.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::Session;

use super::{Host, SOON};

/// As many as the issue asks for.
const ROUNDS: u32 = 100;

#[test]
fn devices_survive_a_hundred_restarts_and_kills() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    for round in 0..ROUNDS {
        if round % 8 == 0 {
            host.reset_limits()?;
        }
        let services = vm.services.clone();
        for how in [&["restart"][..], &["kill", "--signal=KILL"]] {
            let before = services.each_ref().map(|service| host.pid(service));
            let words = [how, &[&services[0], &services[1]]].concat();
            host.0.systemctl(&words)?;
            for (service, before) in services.iter().zip(before) {
                host.wait_replaced(service, &before?)?;
            }
            let works = vm.works();
            works.with_context(|| {
                let said = services.each_ref().map(|service| host.said(service));
                format!("round {round}, {how:?}: {}", said.concat())
            })?;
        }
    }
    vm.end(&host)
}

/// The signals that crashes, sandboxes and watchdogs end a program by; and SIGTERM without a stop of the service.
#[test]
fn devices_survive_crashes_a_sandbox_kill_and_the_watchdog() -> anyhow::Result<()> {
    let host = Host::boot()?;
    for template in ["vhost-user-gpu@", "vhost-user-input@"] {
        let drop_in = "[Service]\nWatchdogSec=2s\n";
        host.0.write(
            &format!("/run/systemd/system/{template}.service.d/watchdog.conf"),
            drop_in,
        )?;
    }
    host.0.systemctl(&["daemon-reload"])?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let services = vm.services.clone();
    // A stopped program is one that hangs: nothing of it feeds the watchdog.
    for (signal, restarts) in [
        ("ILL", 1),
        ("ABRT", 2),
        ("SYS", 3),
        ("HUP", 4),
        ("TERM", 5),
        ("STOP", 6),
    ] {
        for service in &services {
            let before = host.pid(service)?;
            host.0.systemctl(&[
                "kill",
                "--kill-whom=main",
                &format!("--signal={signal}"),
                service,
            ])?;
            host.wait_replaced(service, &before)?;
            let counted = host.0.property(service, "NRestarts")?;
            ensure!(counted == restarts.to_string(), "{signal}: {counted}");
        }
        vm.works().with_context(|| {
            let said = services.each_ref().map(|service| host.said(service));
            format!("{signal}: {}", said.concat())
        })?;
    }
    vm.end(&host)
}

/// What an administrator does to systemd and to the units around it.
#[test]
fn devices_survive_what_happens_to_systemd_and_the_sockets() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let services = vm.services.clone();
    for words in [
        &["daemon-reload"][..],
        &["daemon-reexec"],
        &["reset-failed"],
        &["restart", "vhost-user-gpu@vm1.socket"],
        &["restart", "vhost-user-input@vm1:keyboard.socket"],
    ] {
        host.0.systemctl(words)?;
        vm.works().with_context(|| format!("{words:?}"))?;
        for service in &services {
            let before = host.pid(service)?;
            host.0.systemctl(&["kill", "--signal=KILL", service])?;
            host.wait_replaced(service, &before)?;
        }
        vm.works()
            .with_context(|| format!("{words:?}, then a kill"))?;
    }
    vm.end(&host)
}

/// "stop" means it: the VM loses its devices at once, nothing is kept, and the next VM is served.
#[test]
fn stop_closes_the_connection_and_the_next_vm_is_served() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let services = vm.services.clone();
    for service in &services {
        host.0.systemctl(&["stop", service])?;
        ensure!(host.0.property(service, "NFileDescriptorStore")? == "0");
    }
    ensure!(vm.gpu.session.config(0, 16).is_err(), "the GPU goes on");
    drop(vm);
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    vm.end(&host)
}

/// A program that dies again and again ends its VM's device, and the next VM is served once the limit has passed.
#[test]
fn start_limit_ends_the_connection_and_the_next_vm_is_served() -> anyhow::Result<()> {
    let host = Host::boot()?;
    // So many happen soon, however slow this machine is.
    host.0
        .drop_in("vhost-user-gpu@vm1.service", "[Unit]\nStartLimitBurst=6\n")?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let [service, _] = vm.services.clone();
    let mut kills = 0;
    while host.0.property(&service, "ActiveState")? != "failed" {
        ensure!(kills < 40, "it starts for ever: {}", host.said(&service));
        kills += 1;
        // Between two starts there is nothing to kill.
        let _ = host.0.systemctl(&["kill", "--signal=KILL", &service]);
    }
    ensure!(kills > 3, "it gave up after {kills} kills");
    ensure!(vm.gpu.session.config(0, 16).is_err(), "the GPU goes on");
    ensure!(host.0.property(&service, "NFileDescriptorStore")? == "0");
    drop(vm);
    // vhost-user-retry@ has the socket listen again.
    host.0
        .wait_property("vhost-user-gpu@vm1.socket", "SubState", "listening", SOON)?;
    let path = host.0.path("/run/vhost-user/gpu/vm1.sock");
    let mut session = Session::new(UnixStream::connect(path)?);
    session.negotiate(Session::usual_protocol_features())?;
    Ok(())
}

/// A second front-end waits over the ends of the program that serves the first.
#[test]
fn second_front_end_waits_over_a_restart() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let mut vm = host.run_vm("vm1")?;
    vm.works()?;
    let service = vm.services[0].clone();
    let path = host.0.path("/run/vhost-user/gpu/vm1.sock");
    let mut second = Session::new(UnixStream::connect(path)?);
    let waits = || -> anyhow::Result<bool> {
        let status = host.0.property(&service, "StatusText")?;
        Ok(status.contains("another waits"))
    };
    let deadline = std::time::Instant::now() + SOON;
    while !waits()? {
        ensure!(std::time::Instant::now() < deadline, "nobody waits");
        std::thread::sleep(Duration::from_millis(50));
    }
    let before = host.pid(&service)?;
    host.0.systemctl(&["restart", &service])?;
    host.wait_replaced(&service, &before)?;
    vm.works()?;
    drop(vm);
    second
        .negotiate(Session::usual_protocol_features())
        .with_context(|| host.said(&service))?;
    Ok(())
}
