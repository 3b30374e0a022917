// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl restart`: under a VM that does not notice it, and where it would.

use std::fs;
use std::os::fd::AsFd as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::manager::fill_locker_of;
use frontend::{FrontendReq, Session};
use harness::staging;
use rustix::event::{EventfdFlags, eventfd};

use crate::common::host::Host;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
const SERVICE: &str = "vhost-user-gpu@vm1.service";

fn pid(host: &Host, service: &str) -> anyhow::Result<String> {
    host.sandbox.property(service, "MainPID")
}

/// A VMM at the GPU of a VM.
fn connect(host: &Host, vm: &str) -> anyhow::Result<Session> {
    let session = host.connect(&format!("/run/vhost-user/gpu/{vm}.sock"))?;
    let service = format!("vhost-user-gpu@{vm}.service");
    host.sandbox
        .wait_property(&service, "StatusText", "a front-end is connected", SOON)?;
    Ok(session)
}

#[test]
fn program_is_replaced_under_its_vm() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let mut session = connect(&host, "vm1")?;
    let config = session.config(0, 16)?;
    let socket = host
        .sandbox
        .property("vhost-user-gpu@vm1.socket", "ActiveEnterTimestampMonotonic")?;
    for words in [&["restart", "vm1"][..], &["restart", "vm1:gpu", "--force"]] {
        let before = pid(&host, SERVICE)?;
        assert_eq!(host.ok(words)?, "1 program restarted.\n");
        ensure!(pid(&host, SERVICE)? != before, "it is the same process");
        ensure!(session.config(0, 16)? == config);
    }
    let before = pid(&host, SERVICE)?;
    assert_eq!(host.ok(&["restart", "--all"])?, "1 program restarted.\n");
    ensure!(pid(&host, SERVICE)? != before, "it is the same process");
    ensure!(session.config(0, 16)? == config);
    // The socket was never away.
    let now = host
        .sandbox
        .property("vhost-user-gpu@vm1.socket", "ActiveEnterTimestampMonotonic")?;
    ensure!(now == socket);

    // systemd starts a program that dies again, and counts it.
    let before = pid(&host, SERVICE)?;
    host.sandbox
        .systemctl(&["kill", "--signal=KILL", SERVICE])?;
    host.sandbox
        .wait_property(SERVICE, "NRestarts", "1", SOON)?;
    ensure!(session.config(0, 16)? == config);
    ensure!(pid(&host, SERVICE)? != before, "it is the same process");
    let status = host.ok(&["status", "vm1", "--lines=0"])?;
    ensure!(status.contains("   Restarts: 1\n"), "{status}");

    // A real restart is asked for, and asked about.
    let said = host.fails(&["restart", "vm1", "--cold"], 1)?;
    ensure!(said.contains("its VM loses its screen"), "{said}");
    ensure!(session.config(0, 16)? == config);
    let said = host.ok(&["restart", "vm1", "--cold", "--force"])?;
    assert_eq!(said, "1 backend restarted.\n");
    ensure!(session.config(0, 16).is_err(), "the VM has its GPU still");
    ensure!(host.state("vhost-user-gpu@vm1.socket")? == "active");
    drop(session);
    connect(&host, "vm1")?.config(0, 16)?;
    Ok(())
}

#[test]
fn what_a_vm_would_notice_is_asked_about_and_left_out_by_all() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let other = "/run/systemd/system/vhost-user@vm2:other.service.d/program.conf";
    host.sandbox.write(
        other,
        "[Service]\nUser=vu-other\nExecStart=\nExecStart=/usr/bin/vhost-user-gpu --fd=3\n",
    )?;
    host.sandbox.systemctl(&["daemon-reload"])?;
    host.sandbox
        .systemctl(&["start", "vhost-user@vm2:other.socket"])?;
    let mut session = connect(&host, "vm1")?;
    let mut foreign = host.connect("/run/vhost-user/backend/vm2:other.sock")?;

    let service = "vhost-user@vm2:other.service";
    let before = [pid(&host, SERVICE)?, pid(&host, service)?];
    let said = host.ok(&["restart", "--all"])?;
    ensure!(
        said.contains("Once its VM is off: vhostctl restart vm2:other --force\n")
            && said.contains("1 program restarted.\n"),
        "{said}"
    );
    ensure!(pid(&host, SERVICE)? != before[0], "{said}");
    ensure!(pid(&host, service)? == before[1], "{said}");
    // One that would be noticed stops all that was asked for.
    let before = pid(&host, SERVICE)?;
    let said = host.fails(&["restart", "vm1", "vm2"], 1)?;
    ensure!(
        said.contains("vm2:other") && !said.contains("vm1:gpu"),
        "{said}"
    );
    ensure!(pid(&host, SERVICE)? == before, "{said}");
    foreign.config(0, 16)?;

    // Its program has other settings than the next one would have.
    host.ok(&["add", "gpu", "vm1", "--max-hostmem=96M", "--force"])?;
    let said = host.fails(&["restart", "vm1"], 1)?;
    ensure!(
        said.contains("The settings of vm1:gpu were changed") && said.contains("loses its screen"),
        "{said}"
    );
    let said = host.ok(&["restart", "--all"])?;
    ensure!(said.contains("0 programs restarted.\n"), "{said}");
    ensure!(pid(&host, SERVICE)? == before, "{said}");
    session.config(0, 16)?;
    Ok(())
}

/// A program whose state can be kept no longer is restarted as one that keeps nothing.
#[test]
fn program_that_lost_its_state_is_asked_about() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let mut session = connect(&host, "vm1")?;
    session.negotiate(Session::usual_protocol_features())?;
    let before = pid(&host, SERVICE)?;
    // As where sockets may take little memory.
    fill_locker_of(host.sandbox.pid_of(&before)?)?;
    let event = eventfd(0, EventfdFlags::CLOEXEC)?;
    session.set_vring_fd(FrontendReq::SET_VRING_CALL, 0, Some(event.as_fd()))?;
    host.sandbox
        .wait_property(SERVICE, "NFileDescriptorStore", "0", SOON)?;

    let said = host.fails(&["restart", "vm1"], 1)?;
    ensure!(said.contains("its VM loses its screen"), "{said}");
    let said = host.ok(&["restart", "--all"])?;
    ensure!(
        said.contains("vm1:gpu goes on with the old program until its VM is shut down.\n")
            && said.contains("0 programs restarted.\n"),
        "{said}"
    );
    ensure!(pid(&host, SERVICE)? == before, "{said}");
    session.config(0, 16)?;
    let lost = "a front-end is connected: a restart ends the connection, because no more file descriptors can be \
                kept for another process (net.core.wmem_max, LimitNOFILE=)";
    host.sandbox
        .wait_property(SERVICE, "StatusText", lost, SOON)?;
    let status = host.ok(&["status", "vm1"])?;
    ensure!(
        status.contains("the VM loses this device when this program is restarted"),
        "{status}"
    );

    // The next VM's device outlives its program again.
    host.ok(&["restart", "vm1", "--force"])?;
    ensure!(session.config(0, 16).is_err(), "the VM has its GPU still");
    drop(session);
    let mut session = connect(&host, "vm1")?;
    let before = pid(&host, SERVICE)?;
    host.ok(&["restart", "vm1"])?;
    ensure!(pid(&host, SERVICE)? != before, "it is the same process");
    session.config(0, 16)?;
    Ok(())
}

/// A package whose programs keep their state in another way: nothing is lost unasked, and a program that is restarted
/// all the same says what to do. Then the version before it is installed again.
#[test]
fn program_of_another_state_version_is_left_out_and_asked_about() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let mut sessions = Vec::new();
    for vm in ["vm1", "vm2"] {
        host.ok(&["add", "gpu", vm, "--now"])?;
        sessions.push(connect(&host, vm)?);
    }
    let [mut first, mut second] =
        <[Session; 2]>::try_from(sessions).map_err(|_| anyhow::anyhow!("two"))?;
    let program = host.sandbox.path("/usr/bin/vhost-user-gpu");
    let [old, next] = ["old", "next"].map(|suffix| program.with_extension(suffix));
    fs::copy(&program, &old)?;
    staging::program_of_next_state(&program, &next)?;
    fs::rename(&next, &program)?;

    let before = pid(&host, SERVICE)?;
    let said = host.ok(&["restart", "--all"])?;
    for vm in ["vm1", "vm2"] {
        let left_out = format!(
            "{vm}:gpu goes on with the old program until its VM is shut down: the new one does not understand its state.\n"
        );
        ensure!(said.contains(&left_out), "{said}");
    }
    ensure!(said.contains("0 programs restarted.\n"), "{said}");
    let said = host.fails(&["restart", "vm1"], 1)?;
    ensure!(
        said.contains(
            "does not understand the state of vm1:gpu, which another version of it keeps"
        ) && said.contains("vm1:gpu has a front-end connected: its VM loses its screen"),
        "{said}"
    );
    ensure!(pid(&host, SERVICE)? == before, "{said}");
    first.config(0, 16)?;

    // systemd asks nobody.
    host.sandbox.systemctl(&["restart", SERVICE])?;
    ensure!(first.config(0, 16).is_err(), "the VM has its GPU still");
    let log = host.ok(&["log", "vm1", "--lines=50"])?;
    ensure!(
        log.contains("cannot go on for the process before this one")
            && log.contains("The VM has lost this device: shut it down and start it again"),
        "{log}"
    );
    drop(first);
    let mut first = connect(&host, "vm1")?;
    let before = pid(&host, SERVICE)?;
    host.ok(&["restart", "vm1"])?;
    ensure!(pid(&host, SERVICE)? != before, "it is the same process");

    // Back: now the other VM's program is understood, and this one's is not.
    fs::rename(&old, &program)?;
    let said = host.ok(&["restart", "--all"])?;
    ensure!(
        said.contains("vm1:gpu goes on with the old program until its VM is shut down: the new one does not understand")
            && said.contains("1 program restarted.\n"),
        "{said}"
    );
    first.config(0, 16)?;
    second.config(0, 16)?;
    Ok(())
}

/// A new version that cannot start costs few VMs their device, and not all of them.
#[test]
fn second_failure_in_a_row_ends_a_restart_of_all() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let mut sessions = Vec::new();
    for vm in ["vm1", "vm2", "vm3", "vm4"] {
        host.ok(&["add", "gpu", vm, "--now"])?;
        sessions.push(connect(&host, vm)?);
    }
    let spoil = "printf '#!/bin/sh\\nexit 1\\n' >/usr/bin/new && chmod 755 /usr/bin/new && \
                 cp /usr/bin/vhost-user-gpu /usr/bin/old && mv /usr/bin/new /usr/bin/vhost-user-gpu";
    let spoilt = host.sandbox.exec(["sh", "-c", spoil])?;
    ensure!(spoilt.status.success(), "{}", stderr(&spoilt));
    let said = host.fails(&["restart", "--all"], 1)?;
    ensure!(
        said.contains("vhost-user-gpu@vm1.service")
            && said.contains("vhost-user-gpu@vm2.service")
            && said.contains("2 more programs were not"),
        "{said}"
    );
    let works: Vec<_> = sessions
        .iter_mut()
        .map(|session| session.config(0, 16).is_ok())
        .collect();
    ensure!(works == [false, false, true, true], "{works:?}: {said}");
    // The cause is gone.
    let mended = host
        .sandbox
        .exec(["mv", "/usr/bin/old", "/usr/bin/vhost-user-gpu"])?;
    ensure!(mended.status.success(), "{}", stderr(&mended));
    let said = host.ok(&["restart", "--all"])?;
    ensure!(said.contains("2 programs restarted.\n"), "{said}");
    for session in sessions.iter_mut().skip(2) {
        session.config(0, 16).context(said.clone())?;
    }
    Ok(())
}
