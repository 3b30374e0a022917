// SPDX-License-Identifier: Apache-2.0 OR MIT
//! GPUs with Vulkan: the drop-ins of two services, and what QEMU and libvirt are told.

use anyhow::ensure;

use crate::common::host::{FILES, Host};
use crate::common::stderr;

const SERVER: &str = "vhost-render-server@vm1.service";
const GPU: &str = "vhost-user-gpu@vm1.service";
const NODE: &str = "/dev/dri/by-path/pci-0000:00:02.0-render";

#[test]
fn render_node_is_the_render_servers() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    let run = |arguments: &[&str]| host.run_on_laptop(arguments);
    let output = run(&["add", "gpu", "vm1", "--vulkan", "--max-hostmem=4G"])?;
    let said = stderr(&output);
    ensure!(output.status.success(), "{said}");
    for line in [
        format!("Its render node is {NODE}."),
        format!("Created {FILES}/{SERVER}.d/50-vhostctl.conf."),
        "vhostctl add console vm1".to_owned(),
    ] {
        ensure!(said.contains(&line), "{line}: {said}");
    }
    let server = host.file(SERVER)?;
    let lines = format!("SupplementaryGroups=render\nDeviceAllow={NODE} rw\nMemoryMax=10240M\n");
    ensure!(server.ends_with(&lines), "{server}");
    // As systemd reads both; the GPU's service opens nothing.
    let nodes = host.sandbox.property(SERVER, "DeviceAllow")?;
    ensure!(nodes.contains(&format!("{NODE} rw")), "{nodes}");
    for (unit, property, value) in [
        (SERVER, "MemoryMax", "10737418240"),
        (GPU, "MemoryMax", "4831838208"),
        (GPU, "PrivateDevices", "yes"),
        (GPU, "Restart", "no"),
    ] {
        assert_eq!(
            host.sandbox.property(unit, property)?,
            value,
            "{unit}: {property}"
        );
    }
    let requires = host.sandbox.property(GPU, "Requires")?;
    ensure!(
        requires.contains("vhost-render-server@vm1.socket"),
        "{requires}"
    );
    let output = run(&["list-devices", "--type=gpu", "--no-legend"])?;
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(listed.contains(" vm1:gpu "), "{listed}");

    // Another GPU is another setting, also if only the server's file differs.
    let output = run(&["add", "gpu", "vm1", "--virgl", "--max-hostmem=4G"])?;
    ensure!(output.status.code() == Some(1) && stderr(&output).contains("--force"));
    let output = run(&["add", "gpu", "vm1", "--force"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    ensure!(!host.has_folder(SERVER), "a 2D GPU has no render server");
    let output = run(&["add", "gpu", "vm1", "--vulkan", "--force"])?;
    ensure!(output.status.success() && host.has_folder(SERVER));
    host.ok(&["remove", "vm1"])?;
    ensure!(!host.has_folder(SERVER) && !host.has_folder(GPU));
    Ok(())
}

/// A GPU that has no Vulkan any more has left its shaders, and its render server perhaps runs still.
#[test]
fn removal_leaves_no_shaders_and_no_render_server() -> anyhow::Result<()> {
    const SOCKET: &str = "vhost-render-server@vm1.socket";
    const CACHE: &str = "/var/cache/vhost-render-server";
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1", "--vulkan"])?;
    host.sandbox.systemctl(&["start", SOCKET])?;
    host.ok(&["add", "gpu", "vm1", "--force"])?;
    host.ok(&["add", "gpu", "vm2", "--vulkan"])?;
    // As systemd makes them for a dynamic user.
    for vm in ["vm1", "vm2"] {
        let folder = format!("/var/cache/private/vhost-render-server/{vm}");
        host.sandbox.write(&format!("{folder}/shader"), "")?;
        let link =
            format!("mkdir -p {CACHE} && ln -s ../private/vhost-render-server/{vm} {CACHE}/{vm}");
        let linked = host.sandbox.exec(["sh", "-c", &link])?;
        ensure!(linked.status.success(), "{linked:?}");
    }
    let said = host.ok(&["remove", "vm1"])?;
    ensure!(said.contains(&format!("Deleted {CACHE}/vm1.")), "{said}");
    let found = host.sandbox.exec(["find", "/var/cache", "-name", "vm1"])?;
    ensure!(found.stdout.is_empty(), "{found:?}");
    assert_eq!(host.state(SOCKET)?, "inactive");
    let other = host
        .sandbox
        .path("/var/cache/private/vhost-render-server/vm2/shader");
    ensure!(other.exists(), "another VM's: {said}");
    Ok(())
}

#[test]
fn vmms_are_told_of_a_generic_device() -> anyhow::Result<()> {
    const DEVICE: &str = "vhost-user-test-device-pci";
    let host = Host::new(&[])?;
    let said = host.ok(&[
        "add",
        "console",
        "vm1",
        "--vulkan",
        "--resolution=1920x1080",
    ])?;
    ensure!(said.contains("Vulkan is rendered by software"), "{said}");
    ensure!(!host.has_folder(SERVER), "the template will do");
    // Another wish leaves Vulkan as it is.
    host.ok(&["add", "console", "vm1", "--allow-resize"])?;
    let text = host.file(GPU)?;
    ensure!(
        text.contains("--venus") && text.contains("--allow-resize"),
        "{text}"
    );

    let qemu = format!("/usr/local/bin/qemu-system-{}", std::env::consts::ARCH);
    for (version, is_old) in [("10.0.2", true), ("11.1.3", false)] {
        let script = format!("#!/bin/sh\necho QEMU emulator version {version}\n");
        host.sandbox.write(&qemu, &script)?;
        ensure!(host.sandbox.exec(["chmod", "755", &qemu])?.status.success());
        let said = host.ok(&["qemu-args", "vm1"])?;
        ensure!(
            said.contains(&format!("{DEVICE},virtio-id=16,num_vqs=2,")),
            "{said}"
        );
        ensure!(!said.contains("xres="), "{said}");
        assert_eq!(said.contains("needs QEMU 11.1 or newer"), is_old, "{said}");
    }
    let said = host.ok(&["libvirt-xml", "vm1"])?;
    let json = format!("{{\"driver\":\"{DEVICE}\",\"virtio-id\":16,").replace('"', "\"");
    ensure!(
        said.contains(&json) || said.contains(&json.replace('"', "&quot;")),
        "{said}"
    );
    ensure!(
        said.contains("libvirt does not know a GPU with Vulkan"),
        "{said}"
    );

    for (arguments, word) in [
        (&["add", "gpu", "vm2", "--vulkan", "--virgl"][..], "--virgl"),
        (&["add", "input", "vm2", "x", "--vulkan"], "--vulkan"),
        (&["add", "fs", "vm2", "--backend=x", "--vulkan"], "--vulkan"),
    ] {
        let said = stderr(&host.run(arguments)?);
        ensure!(
            said.contains(word) && !host.has_folder("vhost-user-gpu@vm2.service"),
            "{said}"
        );
    }
    Ok(())
}
