// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The GPU's unit with the drop-in for OpenGL, under a real systemd.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::common::{guest_memory, ok, triangle};
use anyhow::{Context as _, ensure};
use frontend::gpu::{DisplayOptions, DisplayThread, Gpu, GpuOptions, Rect, Request};
use frontend::{Deadline, Session};
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);
const SERVICE: &str = "vhost-user-gpu@vm1.service";

#[test]
fn hardened_unit_draws_with_opengl() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let link = "cd /run/systemd/system && mkdir vhost-user-gpu@vm1.service.d && \
                ln -s /usr/lib/systemd/system/vhost-user-gpu-virgl.conf \
                vhost-user-gpu@vm1.service.d/virgl.conf";
    ensure!(host.exec(["sh", "-c", link])?.status.success());
    host.systemctl(&["daemon-reload"])?;
    host.systemctl(&["start", "vhost-user-gpu@vm1.socket"])?;
    draws(&host)
}

#[test]
fn vhostctl_gives_a_vm_opengl_in_one_command() -> anyhow::Result<()> {
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let added = host.exec(["vhostctl", "add", "gpu", "vm1", "--virgl", "--now"])?;
    let said = String::from_utf8_lossy(&added.stderr).into_owned();
    ensure!(added.status.success(), "{said}");
    draws(&host)?;

    // Shaders of a VM that is there no more are nobody's.
    let removed = host.exec(["vhostctl", "remove", "vm1"])?;
    let said = String::from_utf8_lossy(&removed.stderr).into_owned();
    ensure!(
        said.contains("Deleted /var/cache/vhost-user-gpu/vm1."),
        "{said}"
    );
    let left = host.exec(["find", "/var/cache", "-name", "vm1"])?;
    ensure!(left.stdout.is_empty(), "{left:?}");
    Ok(())
}

/// Draws a triangle by the VM's GPU, and looks at the unit meanwhile.
fn draws(host: &Sandbox) -> anyhow::Result<()> {
    let path = host.path("/run/vhost-user/gpu/vm1.sock");
    let stream = UnixStream::connect(&path).context("cannot connect")?;
    let (display, socket) = DisplayThread::start(DisplayOptions::default())?;
    let memory = guest_memory();
    let gpu = Gpu::start(
        Session::new(stream),
        &memory,
        Some(socket),
        GpuOptions::virgl(),
    );
    let mut gpu = gpu.with_context(|| {
        let journal = host.journal(&["--unit", SERVICE, "--output=cat"]);
        journal.unwrap_or_default()
    })?;
    // Shaders: memory that is written and executed.
    let stream = triangle(&mut gpu);
    ok(gpu.submit_3d(1, &stream));
    ok(gpu.set_scanout(0, 1, Rect::sized(64, 64)));
    ok(gpu.flush(1, Rect::sized(64, 64)));
    display.wait_count(Request::Update, 1)?;
    let middle = display.lock().surface(0)?.rgb(32, 60);
    assert_eq!(middle, Some([255, 0, 0]));

    // It is told once a second at most, and that a front-end is connected was told just now.
    Deadline::default().until("the status to tell what is shown", || {
        let status = host.property(SERVICE, "StatusText").unwrap_or_default();
        let is_told = status.contains("64x64") && status.contains("llvmpipe");
        Ok(is_told.then_some(()))
    })?;
    // The rest of the unit's walls stands.
    for (property, value) in [
        ("PrivateDevices", "yes"),
        ("NoNewPrivileges", "yes"),
        ("PrivateNetwork", "yes"),
        ("MemoryDenyWriteExecute", "no"),
    ] {
        assert_eq!(host.property(SERVICE, property)?, value, "{property}");
    }
    let cache = host.exec(["sh", "-c", "ls -A /var/cache/private/vhost-user-gpu/vm1"])?;
    ensure!(!cache.stdout.is_empty(), "no shader was kept");

    drop((gpu, display));
    host.wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
    assert_eq!(host.property(SERVICE, "Result")?, "success");
    Ok(())
}
