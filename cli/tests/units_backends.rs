//! Backends of others, from their descriptors to a front-end.

mod common;

use std::os::unix::net::UnixStream;
use std::process::Output;

use anyhow::{Context as _, ensure};
use frontend::Session;
use harness::packages;
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::Value;

use common::stderr;

fn vhostctl(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Output> {
    sandbox.exec([&["vhostctl"], arguments].concat())
}

fn ok(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let output = vhostctl(sandbox, arguments)?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}: {}",
        output.status,
        stderr(&output)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// Begins a session with a backend and returns what it offers.
fn offered(sandbox: &Sandbox, socket: &str) -> anyhow::Result<frontend::Offer> {
    let socket = UnixStream::connect(sandbox.path(&format!("/run/vhost-user/backend/{socket}")))?;
    let mut session = Session::new(socket);
    session
        .negotiate(Session::usual_protocol_features())
        .with_context(|| sandbox.journal(&["--lines=30"]).unwrap_or_default())
}

/// Of the device, as the virtio specification numbers them.
const VIRTIO_F_VERSION_1: u64 = 1 << 32;

#[test]
fn virtiofsd_serves_by_its_descriptor() -> anyhow::Result<()> {
    let (staging, package) = (stage()?, packages::unpacked("qemu-system-common")?);
    let sandbox = Sandbox::start(&[staging.path(), &package])?;
    let all: Vec<Value> = serde_json::from_str(&ok(&sandbox, &["list-backends", "--json=short"])?)?;
    let virtiofsd = all
        .iter()
        .find(|backend| backend["type"] == "fs")
        .context("no descriptor of virtiofsd")?;
    assert_eq!(virtiofsd["state"], "usable", "{virtiofsd}");
    assert!(
        all.iter()
            .any(|backend| backend["name"] == "40-vhost-user-gpu" && backend["state"] == "usable")
    );

    sandbox.exec(["mkdir", "-p", "/srv/share d"])?;
    let add = [
        "add",
        "fs",
        "vm1",
        "--backend=virtiofsd",
        "--name=data",
        "--run-as=root",
        "--now",
    ];
    ok(
        &sandbox,
        &[&add[..], &["--", "-o", "source=/srv/share d,cache=none"]].concat(),
    )?;
    let offer = offered(&sandbox, "vm1:data.sock")?;
    assert_ne!(offer.features & VIRTIO_F_VERSION_1, 0, "{offer:?}");
    assert_eq!(
        sandbox.property("vhost-user@vm1:data.service", "Result")?,
        "success"
    );

    let line = ok(&sandbox, &["qemu-args", "vm1", "--memory=none"])?;
    assert_eq!(
        line,
        "-chardev socket,id=backend-data-socket,path=/run/vhost-user/backend/vm1:data.sock \
         -device vhost-user-fs-pci,id=backend-data,chardev=backend-data-socket,tag=data\n"
    );
    let xml = ok(&sandbox, &["libvirt-xml", "vm1"])?;
    assert!(
        xml.contains("<source socket='/run/vhost-user/backend/vm1:data.sock'/>"),
        "{xml}"
    );
    let list = ok(&sandbox, &["list", "--no-legend"])?;
    assert!(list.starts_with("vm1 data fs "), "{list}");
    ok(&sandbox, &["remove", "vm1"])?;
    assert_eq!(ok(&sandbox, &["list"])?, "No backends.\n");
    Ok(())
}

#[test]
fn qemu_storage_daemon_serves_without_a_descriptor() -> anyhow::Result<()> {
    let (staging, package) = (stage()?, packages::unpacked("qemu-system-common")?);
    let sandbox = Sandbox::start(&[staging.path(), &package])?;
    sandbox.exec([
        "sh",
        "-c",
        "truncate -s 16M /srv/disk.img && chmod 666 /srv/disk.img",
    ])?;
    let backend = "--backend=/usr/bin/qemu-storage-daemon";
    let arguments = [
        "--blockdev",
        "driver=file,node-name=disk,filename=/srv/disk.img,read-only=on",
        "--export",
        "type=vhost-user-blk,id=export,node-name=disk,addr.type=fd,addr.str={fd}",
    ];
    ok(
        &sandbox,
        &[
            &["add", "block", "vm1", backend, "--now", "--"],
            &arguments[..],
        ]
        .concat(),
    )?;
    let offer = offered(&sandbox, "vm1:disk.sock")?;
    assert_ne!(offer.features & VIRTIO_F_VERSION_1, 0, "{offer:?}");
    // It runs as a user of its own.
    assert_eq!(
        sandbox.property("vhost-user@vm1:disk.service", "User")?,
        "vu-dev-vm1-disk"
    );
    Ok(())
}

#[test]
fn what_is_wrong_with_descriptors_is_named() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    sandbox.write("/etc/qemu/vhost-user/README", "Put descriptors here.\n")?;
    sandbox.write("/etc/qemu/vhost-user/40-vhost-user-input.json", "")?;
    let text = ok(&sandbox, &["list-backends"])?;
    for part in [
        "/etc/qemu/vhost-user/README: libvirt starts no vhost-user GPU while this file is there",
        "/usr/share/qemu/vhost-user/40-vhost-user-input.json is masked by /etc/qemu/vhost-user/40-vhost-user-input.json.",
        "4 descriptors listed.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let output = vhostctl(
        &sandbox,
        &["add", "input", "vm1", "--backend=vhost-user-input"],
    )?;
    assert_eq!(output.status.code(), Some(1), "masked: {}", stderr(&output));
    Ok(())
}
