// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real QEMU whose backend fails to start: it is told, prints an error and ends instead of waiting
//! forever.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use harness::artifacts::{Artifacts, Qemu};
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);

/// A VM with one device, whose guest is not even begun where that fails.
fn start(qemu: &Qemu, device: &str, socket: &Path) -> anyhow::Result<Child> {
    Ok(qemu
        .command()
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args([
            "-object",
            "memory-backend-memfd,id=memory,size=64M,share=on",
        ])
        .args([
            "-machine",
            "q35,accel=tcg,memory-backend=memory",
            "-m",
            "64M",
        ])
        .arg("-chardev")
        .arg(format!("socket,id=backend,path={}", socket.display()))
        .args(["-device", &format!("{device},chardev=backend")])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?)
}

/// What it says, once it has ended by itself and with a failure.
fn complaint(mut qemu: Child) -> anyhow::Result<String> {
    let begun = Instant::now();
    while qemu.try_wait()?.is_none() {
        if begun.elapsed() > SOON {
            qemu.kill()?;
            let said = qemu.wait_with_output()?.stderr;
            bail!("QEMU waits on: {}", String::from_utf8_lossy(&said));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let output = qemu.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(1), "{}: {said}", output.status);
    Ok(said)
}

#[test]
fn qemu_ends_when_its_backend_does_not_start() -> anyhow::Result<()> {
    let qemu = Artifacts::obtain(&mut |step| eprintln!("{step}"))?.qemu;
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let cases = [
        (
            "vhost-user-input@vm1:kbd",
            "input/vm1:kbd",
            "vhost-user-input-pci",
            "User=vu-kbd\nEnvironment=EVDEV_PATH=/dev/input/by-id/usb-None-event-kbd",
        ),
        (
            "vhost-user-gpu@vm1",
            "gpu/vm1",
            "vhost-user-gpu-pci",
            "Environment=OPTIONS=--render-node=/dev/dri/renderD191",
        ),
        (
            "vhost-user-gpu@vm2",
            "gpu/vm2",
            "vhost-user-gpu-pci",
            "ExecStart=\nExecStart=/usr/bin/not-there --fd=3",
        ),
    ];
    for (instance, socket, device, setting) in cases {
        // Where the program runs, it is its answer that ends QEMU, and no limit of systemd's.
        let runs = !setting.contains("ExecStart");
        let limit = if runs { "StartLimitIntervalSec=0" } else { "" };
        let content = format!("[Unit]\n{limit}\n[Service]\n{setting}\n");
        host.drop_in(&format!("{instance}.service"), &content)?;
        if runs {
            let content = "[Socket]\nTriggerLimitIntervalSec=0\n";
            host.drop_in(&format!("{instance}.socket"), content)?;
        }
        host.systemctl(&["start", &format!("{instance}.socket")])?;
        let socket = host.path(&format!("/run/vhost-user/{socket}.sock"));
        let said = complaint(start(&qemu, device, &socket)?)?;
        ensure!(said.contains("vhost"), "{instance}: {said}");
        eprintln!("{instance}: {said}");
    }
    Ok(())
}
