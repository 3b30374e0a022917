// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Backends of other projects, from their descriptors to a front-end.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use frontend::Session;
use frontend::features::VERSION_1;
use harness::packages;
use harness::staging::stage;
use harness::systemd::Sandbox;
use serde_json::Value;

use crate::common::stderr;

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

const SOON: Duration = Duration::from_secs(60);

#[test]
fn virtiofsd_serves_by_its_descriptor() -> anyhow::Result<()> {
    let (staging, package) = (stage()?, packages::virtiofsd()?);
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
        "--shared-dir=/srv/share d",
    ];
    // Without a folder it would end at once.
    let output = vhostctl(&sandbox, &add[..5])?;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("Use --shared-dir=PATH."), "{said}");
    // It cannot do without root.
    let output = vhostctl(&sandbox, &[&add[..], &["--run-as=nobody"]].concat())?;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("run as root"),
        "{}",
        stderr(&output)
    );
    ok(&sandbox, &[&add[..], &["--run-as=root", "--now"]].concat())?;
    let offer = offered(&sandbox, "vm1:data.sock")?;
    assert_ne!(offer.features & VERSION_1, 0, "{offer:?}");
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
    let (staging, package) = (stage()?, packages::storage_daemon()?);
    let sandbox = Sandbox::start(&[staging.path(), &package])?;
    sandbox.exec([
        "sh",
        "-c",
        "truncate -s 16M /srv/disk.img && chmod 666 /srv/disk.img",
    ])?;
    // Its /tmp is not the host's.
    sandbox.write("/tmp/disk.img", "")?;
    let words = [
        "add",
        "block",
        "vm1",
        "--backend=qemu-storage-daemon",
        "--blk-file=/tmp/disk.img",
    ];
    let output = vhostctl(&sandbox, &words)?;
    assert_eq!(output.status.code(), Some(1));
    sandbox.exec(["chmod", "666", "/tmp/disk.img"])?;
    let said = stderr(&vhostctl(&sandbox, &words)?);
    assert!(said.contains("its own /tmp and /var/tmp"), "{said}");
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
    assert_ne!(offer.features & VERSION_1, 0, "{offer:?}");
    // It runs as a user of its own.
    assert_eq!(
        sandbox.property("vhost-user@vm1:disk.service", "User")?,
        "vu-dev-vm1-disk"
    );
    // It runs on after the front-end, and does not tell.
    let refused = vhostctl(&sandbox, &["stop", "vm1"])?;
    assert_eq!(refused.status.code(), Some(1));
    let said = stderr(&refused);
    assert!(
        said.starts_with("vm1:disk may have a front-end connected: ")
            && said.ends_with("Shut the VM down first; if it is off already, use --force.\n"),
        "{said}"
    );
    let said = stderr(&vhostctl(&sandbox, &["restart", "--all"])?);
    assert!(
        said.contains("Once its VM is off: vhostctl restart vm1:disk --force\n"),
        "{said}"
    );
    Ok(())
}

#[test]
fn broken_descriptors_are_named_with_their_fault() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    sandbox.write("/etc/qemu/vhost-user/README", "Put descriptors here.\n")?;
    sandbox.write("/etc/qemu/vhost-user/40-vhost-user-input.json", "")?;
    script(&sandbox, "/usr/local/bin/passt", "exit 1")?;
    let text = ok(&sandbox, &["list-backends"])?;
    for part in [
        "/etc/qemu/vhost-user/README: libvirt starts no vhost-user GPU while this file exists",
        "/usr/share/qemu/vhost-user/40-vhost-user-input.json is masked by /etc/qemu/vhost-user/40-vhost-user-input.json.",
        "passt is also installed and needs no descriptor: vhostctl add net VM --backend=passt",
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

/// A program that keeps to the conventions as far as a test needs it.
fn script(sandbox: &Sandbox, path: &str, text: &str) -> anyhow::Result<()> {
    sandbox.write(path, &format!("#!/bin/sh\n{text}\n"))?;
    sandbox.exec(["chmod", "755", path]).map(drop)
}

#[test]
fn network_is_open_to_backends_that_ask_for_it() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    // It says in which network it is, and whether it gets an IP socket.
    script(
        &sandbox,
        "/opt/look",
        "ls -l /proc/self/ns/net; exec /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_INET); \
         print(\"has IP\")'",
    )?;
    let host = String::from_utf8(sandbox.exec(["readlink", "/proc/1/ns/net"])?.stdout)?;
    let log = |name: &str, words: &[&str]| -> anyhow::Result<String> {
        let name_option = format!("--name={name}");
        let add = [
            "add",
            words[0],
            "vm1",
            "--backend=/opt/look",
            &name_option,
            "--now",
        ];
        ok(&sandbox, &[&add[..], &words[1..]].concat())?;
        let socket = sandbox.path(&format!("/run/vhost-user/backend/vm1:{name}.sock"));
        let mut stream = UnixStream::connect(socket)?;
        // Until it ends without having taken the connection, or closes it.
        let service = format!("vhost-user@vm1:{name}.service");
        stream.set_read_timeout(Some(SOON))?;
        let _ = stream.read(&mut [0; 1]);
        sandbox.journal(&["--unit", &service])
    };
    let closed = log("closed", &["rng", "--connected"])?;
    assert!(closed.contains("Address family not supported"), "{closed}");
    assert!(!closed.contains(host.trim()), "{closed}");
    let status = |name: &str| ok(&sandbox, &["status", "--lines=0", &format!("vm1:{name}")]);
    let has_network = |text: &str| text.contains("Network: the host's\n");
    // Failed, so its exit status is 3.
    let closed = vhostctl(&sandbox, &["status", "--lines=0", "vm1:closed"])?.stdout;
    assert!(!has_network(&String::from_utf8(closed)?));
    for (name, words) in [
        ("asked", &["rng", "--connected", "--allow-network"][..]),
        ("net", &["net", "--connected"][..]),
    ] {
        let open = log(name, words)?;
        assert!(open.contains("has IP"), "{open}");
        assert!(open.contains(host.trim()), "{open}");
        assert!(has_network(&status(name)?), "{}", status(name)?);
    }
    Ok(())
}

#[test]
fn passt_without_vhost_user_is_refused() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    script(&sandbox, "/opt/passt", "echo Usage: passt >&2; exit 1")?;
    let output = vhostctl(&sandbox, &["add", "net", "vm1", "--backend=/opt/passt"])?;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains(
            "/opt/passt is too old: it has no option --vhost-user, which came with Debian 13."
        ),
        "{said}"
    );
    assert_eq!(ok(&sandbox, &["list"])?, "No backends.\n");
    Ok(())
}

#[test]
fn front_end_is_told_of_a_missing_program() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let words = [
        "add",
        "rng",
        "vm1",
        "--backend=/opt/gone",
        "--connected",
        "--now",
    ];
    let added = vhostctl(&sandbox, &words)?;
    let said = stderr(&added);
    assert!(added.status.success(), "{said}");
    assert!(
        said.contains("Warning: /opt/gone cannot be found: No such file"),
        "{said}"
    );
    let mut stream = UnixStream::connect(sandbox.path("/run/vhost-user/backend/vm1:rng.sock"))?;
    stream.set_read_timeout(Some(SOON))?;
    assert_eq!(stream.read(&mut [0; 1])?, 0);
    let journal = sandbox.journal(&["--unit=vhost-user@vm1:rng.service"])?;
    assert!(
        journal.contains("cannot run /opt/gone: No such file"),
        "{journal}"
    );
    assert!(journal.contains("gone["), "by its name: {journal}");
    // It listens for the next one.
    sandbox.wait_property("vhost-user@vm1:rng.service", "ActiveState", "failed", SOON)?;
    assert_eq!(
        sandbox.property("vhost-user@vm1:rng.socket", "SubState")?,
        "listening"
    );
    Ok(())
}

#[test]
fn device_node_brings_its_group_along() -> anyhow::Result<()> {
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let make = "mknod -m 660 /dev/given c 1 5 && mknod -m 660 /dev/other c 1 11 && chgrp disk /dev/given /dev/other";
    sandbox.exec(["sh", "-c", make])?;
    script(
        &sandbox,
        "/opt/read",
        "for node in given other; do head -c 1 /dev/$node >/dev/null && echo has $node; done",
    )?;
    let add = [
        "add",
        "block",
        "vm1",
        "--backend=/opt/read",
        "--allow-device=/dev/given",
        "--connected",
        "--now",
    ];
    ok(&sandbox, &add)?;
    let mut stream = UnixStream::connect(sandbox.path("/run/vhost-user/backend/vm1:disk.sock"))?;
    stream.set_read_timeout(Some(SOON))?;
    let _ = stream.read(&mut [0; 1]);
    // The group alone opens no other node.
    let journal = sandbox.journal(&["--unit=vhost-user@vm1:disk.service"])?;
    assert!(journal.contains("has given"), "{journal}");
    let refused = "'/dev/other' for reading: Operation not permitted";
    assert!(journal.contains(refused), "{journal}");
    Ok(())
}
