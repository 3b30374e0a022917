// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Access to the sockets: open to the named users and groups, closed to all others.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use anyhow::{Context as _, ensure};
use harness::mock::MOUSE;
use serde_json::Value;

use crate::common::host::{FILES, Host};
use crate::common::stderr;

const KBD: &str = "vhost-user-input@vm1:mouse";
const SOCKET: &str = "/run/vhost-user/input/vm1:mouse.sock";

/// A host whose users and groups are known, whatever those of the machine are; `qemu` is the user of libvirt's
/// QEMU, if there is one.
fn host(qemu: Option<&str>) -> anyhow::Result<Host> {
    let host = Host::new(&[MOUSE])?;
    let mut users =
        "root:x:0:0::/root:/bin/sh\nalice:x:2001:2001::/:/bin/sh\nbob:x:2002:2002::/:/bin/sh\n"
            .to_owned();
    let mut groups =
        "root:x:0:\nalice:x:2001:\nbob:x:2002:\nkvm:x:107:bob\ninput:x:108:\nrender:x:109:\nfriends:x:2010:bob\n"
            .to_owned();
    for (name, file) in [("passwd", &mut users), ("group", &mut groups)] {
        let path = host.sandbox.path(&format!("/etc/{name}"));
        for line in fs::read_to_string(&path)?.lines() {
            let key = line.split(':').next().unwrap_or_default();
            let is_known = file
                .lines()
                .any(|line| line.starts_with(&format!("{key}:")));
            if !is_known && !["libvirt-qemu", "qemu", "kvm"].contains(&key) {
                file.push_str(line);
                file.push('\n');
            }
        }
        if let Some(qemu) = qemu.filter(|_| name == "passwd") {
            file.push_str(&format!("{qemu}:x:2020:107::/:/bin/false\n"));
        }
        fs::write(&path, file.as_str())?;
    }
    host.sandbox.exec(["rm", "-f", "/etc/libvirt/qemu.conf"])?;
    Ok(host)
}

/// The owner, the group and the mode of a socket.
fn access(host: &Host, socket: &str) -> anyhow::Result<(u32, u32, u32)> {
    let data = fs::metadata(host.sandbox.path(socket)).with_context(|| socket.to_owned())?;
    Ok((data.uid(), data.gid(), data.permissions().mode() & 0o7777))
}

/// Whether a user with these groups can connect to a socket.
fn can_connect(host: &Host, user: u32, groups: &str, socket: &str) -> anyhow::Result<bool> {
    let connect = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])";
    let output = host.sandbox.exec([
        "setpriv",
        &format!("--reuid={user}"),
        &format!("--regid={user}"),
        &format!("--groups={groups}"),
        "--bounding-set=-all",
        "python3",
        "-c",
        connect,
        socket,
    ])?;
    let said = stderr(&output);
    ensure!(
        output.status.success() || said.contains("PermissionError"),
        "{said}"
    );
    Ok(output.status.success())
}

#[test]
fn sockets_are_open_to_the_named_users_alone() -> anyhow::Result<()> {
    let host = host(None)?;
    // Bob is in group kvm, and alice was named.
    let said = host.ok(&[
        "add",
        "input",
        "vm1",
        "mouse",
        "--socket-user=alice",
        "--now",
    ])?;
    assert!(!said.contains("Only root"), "{said}");
    assert_eq!(access(&host, SOCKET)?, (2001, 0, 0o600));
    assert!(!can_connect(&host, 2002, "107", SOCKET)?);
    assert!(can_connect(&host, 2001, "2001", SOCKET)?);
    let text = host.file(&format!("{KBD}.socket"))?;
    assert!(
        text.ends_with("\n[Socket]\nSocketUser=alice\nSocketGroup=root\nSocketMode=0600\n"),
        "{text}"
    );
    assert!(
        text.contains(&format!("systemctl edit {KBD}.socket")),
        "{text}"
    );

    let status = host.ok(&["status", "vm1", "-n0"])?;
    assert!(
        status.contains("     Access: alice:root, mode 0600\n"),
        "{status}"
    );
    let status: Vec<Value> = serde_json::from_slice(&host.run(&["status", "vm1", "-j"])?.stdout)?;
    let shown = ["socket_user", "socket_group", "socket_mode"].map(|key| status[0][key].clone());
    assert_eq!(shown, ["alice", "root", "0600"]);

    let said = host.ok(&["remove", "vm1"])?;
    assert!(said.contains("Removed"), "{said}");
    assert!(
        !host.has_folder(&format!("{KBD}.socket")) && !host.has_folder(&format!("{KBD}.service"))
    );

    // A group, and a mode of the user's own.
    host.ok(&["add", "gpu", "vm2", "--socket-group=friends", "--now"])?;
    assert_eq!(
        access(&host, "/run/vhost-user/gpu/vm2.sock")?,
        (0, 2010, 0o660)
    );
    assert!(can_connect(
        &host,
        2002,
        "2010",
        "/run/vhost-user/gpu/vm2.sock"
    )?);
    assert!(!can_connect(
        &host,
        2002,
        "107",
        "/run/vhost-user/gpu/vm2.sock"
    )?);
    host.ok(&[
        "add",
        "gpu",
        "vm3",
        "--socket-user=2001",
        "--socket-mode=666",
        "--now",
    ])?;
    assert_eq!(
        access(&host, "/run/vhost-user/gpu/vm3.sock")?,
        (2001, 0, 0o666)
    );
    Ok(())
}

#[test]
fn sockets_are_closed_to_others_by_default() -> anyhow::Result<()> {
    let host = host(None)?;
    let said = host.ok(&["add", "input", "vm1", "mouse", "--now"])?;
    assert!(
        said.contains("Only root may connect. Use --socket-user="),
        "{said}"
    );
    assert!(
        !host.has_folder(&format!("{KBD}.socket")),
        "the template does"
    );
    assert_eq!(access(&host, SOCKET)?, (0, 0, 0o600));
    assert!(!can_connect(&host, 2002, "107", SOCKET)?);
    host.ok(&[
        "add",
        "fs",
        "vm1",
        "--backend=/bin/true",
        "--run-as=root",
        "--now",
    ])?;
    assert_eq!(
        access(&host, "/run/vhost-user/backend/vm1:fs.sock")?,
        (0, 0, 0o600)
    );
    // By hand.
    for (unit, socket) in [
        (
            "vhost-user-input@vm2:a.socket",
            "/run/vhost-user/input/vm2:a.sock",
        ),
        (
            "vhost-user@vm2:b.socket",
            "/run/vhost-user/backend/vm2:b.sock",
        ),
    ] {
        host.sandbox.systemctl(&["start", unit])?;
        assert_eq!(access(&host, socket)?, (0, 0, 0o600));
    }
    // A 2D GPU has nothing of the host's: who may run VMs may have one.
    let said = host.ok(&["add", "gpu", "vm1", "--now"])?;
    assert!(!said.contains("may connect"), "{said}");
    assert_eq!(
        access(&host, "/run/vhost-user/gpu/vm1.sock")?,
        (0, 107, 0o660)
    );
    assert!(can_connect(
        &host,
        2002,
        "107",
        "/run/vhost-user/gpu/vm1.sock"
    )?);
    // One that draws on the host's is for one user.
    host.sandbox.write(
        "/usr/local/bin/gpu",
        "#!/bin/sh\necho '{\"type\": \"gpu\", \"features\": [\"virgl\"]}'\n",
    )?;
    host.sandbox.exec(["chmod", "755", "/usr/local/bin/gpu"])?;
    let program = "[Service]\nExecStart=\nExecStart=/usr/local/bin/gpu\n";
    host.sandbox.drop_in("vhost-user-gpu@.service", program)?;
    let said = host.ok(&["add", "gpu", "vm3", "--virgl", "--now"])?;
    assert!(said.contains("Only root may connect"), "{said}");
    assert_eq!(
        access(&host, "/run/vhost-user/gpu/vm3.sock")?,
        (0, 0, 0o600)
    );
    Ok(())
}

#[test]
fn default_owner_is_the_user_of_libvirts_qemu() -> anyhow::Result<()> {
    for name in ["libvirt-qemu", "qemu"] {
        let host = host(Some(name))?;
        let said = host.ok(&["add", "input", "vm1", "mouse", "--now"])?;
        assert!(
            said.contains(&format!("User {name} and root may connect.")),
            "{said}"
        );
        assert_eq!(access(&host, SOCKET)?, (2020, 0, 0o600));
        assert!(!can_connect(&host, 2002, "107", SOCKET)?);
        assert!(can_connect(&host, 2020, "107", SOCKET)?);
        host.ok(&["add", "fs", "vm1", "--backend=/bin/true", "--now"])?;
        assert_eq!(
            access(&host, "/run/vhost-user/backend/vm1:fs.sock")?,
            (2020, 0, 0o600)
        );
        if name == "qemu" {
            continue;
        }
        // Unless libvirt was told otherwise. (Nobody is connected any more.)
        host.ok(&["stop", "vm1:mouse", "--force"])?;
        host.ok(&["start", "vm1:mouse"])?;
        host.sandbox.write(
            "/etc/libvirt/qemu.conf",
            "user = \"alice\"\ngroup = \"kvm\"\n",
        )?;
        let said = host.fails(&["add", "input", "vm1", "mouse"], 1)?;
        let file = format!("{FILES}/{KBD}.socket.d/50-vhostctl.conf");
        assert!(
            said.contains("other settings already") && said.contains(&file),
            "{said}"
        );
        host.ok(&["add", "input", "vm1", "mouse", "--force"])?;
        assert_eq!(access(&host, SOCKET)?, (2001, 0, 0o600));
    }
    Ok(())
}

#[test]
fn access_changes_apply_at_once_unless_a_vmm_is_connected() -> anyhow::Result<()> {
    let host = host(None)?;
    let gpu = "/run/vhost-user/gpu/vm1.sock";
    host.ok(&["add", "gpu", "vm1", "--now"])?;
    let service = host.file("vhost-user-gpu@vm1.service")?;
    let said = host.fails(&["add", "gpu", "vm1", "--socket-user=alice"], 1)?;
    assert!(said.contains("other settings already"), "{said}");
    assert_eq!(access(&host, gpu)?, (0, 107, 0o660));
    let said = host.ok(&["add", "gpu", "vm1", "--socket-user=alice", "--force"])?;
    assert!(
        said.contains("created again") && said.contains("Created"),
        "{said}"
    );
    assert_eq!(access(&host, gpu)?, (2001, 0, 0o600));
    assert_eq!(host.file("vhost-user-gpu@vm1.service")?, service);
    // The same again is no change.
    let said = host.ok(&["add", "gpu", "vm1", "--socket-user=alice"])?;
    assert!(
        !said.contains("created again") && said.contains("Kept"),
        "{said}"
    );

    let session = host.connect(gpu)?;
    let said = host.ok(&["add", "gpu", "vm1", "--force"])?;
    assert!(
        said.contains("Deleted") && said.contains("vhostctl restart vm1:gpu"),
        "{said}"
    );
    assert_eq!(access(&host, gpu)?, (2001, 0, 0o600), "it is in use");
    let status = host.ok(&["status", "vm1", "-n0"])?;
    let line =
        "Access: root:kvm, mode 0660; until the next start of the socket alice:root, mode 0600\n";
    assert!(status.contains(line), "{status}");
    drop(session);
    let unit = "vhost-user-gpu@vm1.service";
    let timeout = std::time::Duration::from_secs(30);
    host.sandbox
        .wait_property(unit, "ActiveState", "inactive", timeout)?;
    host.ok(&["restart", "vm1:gpu"])?;
    assert_eq!(access(&host, gpu)?, (0, 107, 0o660));
    Ok(())
}

#[test]
fn access_changes_apply_at_once_if_the_device_was_missing() -> anyhow::Result<()> {
    let host = host(None)?;
    host.ok(&[
        "add",
        "input",
        "vm1",
        "mouse",
        "--socket-group=friends",
        "--now",
    ])?;
    assert_eq!(access(&host, SOCKET)?, (0, 2010, 0o660));
    // The mouse that it had before is gone.
    let file = format!("{FILES}/{KBD}.service.d/50-vhostctl.conf");
    let text = host.file(&format!("{KBD}.service"))?;
    let gone: Vec<_> = text
        .lines()
        .map(|line| match line.split_once("EVDEV_PATH=") {
            Some((before, _)) => format!("{before}EVDEV_PATH=/dev/input/by-id/gone"),
            None => line.to_owned(),
        })
        .collect();
    host.sandbox
        .write(&file, &format!("{}\n", gone.join("\n")))?;
    host.sandbox.systemctl(&["daemon-reload"])?;
    let list = host.ok(&["list"])?;
    assert!(list.contains(" no-device "), "{list}");

    let said = host.ok(&[
        "add",
        "input",
        "vm1",
        "mouse",
        "--name=mouse",
        "--socket-user=alice",
        "--force",
    ])?;
    assert!(said.contains("created again"), "{said}");
    assert_eq!(access(&host, SOCKET)?, (2001, 0, 0o600));
    Ok(())
}

#[test]
fn failed_add_leaves_the_socket_as_it_was() -> anyhow::Result<()> {
    let host = host(None)?;
    host.ok(&["add", "gpu", "vm1", "--socket-user=alice", "--now"])?;
    let before = host.file("vhost-user-gpu@vm1.socket")?;
    // It fails to start once.
    let once = "[Socket]\nExecStartPre=/bin/sh -c '! rm /run/fail-once'\n";
    host.sandbox.drop_in("vhost-user-gpu@vm1.socket", once)?;
    host.sandbox.write("/run/fail-once", "")?;
    let said = host.fails(&["add", "gpu", "vm1", "--socket-user=bob", "--force"], 1)?;
    assert!(said.contains("Failed to start"), "{said}");
    assert_eq!(host.file("vhost-user-gpu@vm1.socket")?, before);
    assert_eq!(
        access(&host, "/run/vhost-user/gpu/vm1.sock")?,
        (2001, 0, 0o600),
        "it listens again"
    );
    // One that was not there is not left behind.
    host.sandbox.drop_in(
        "vhost-user-input@.socket",
        "[Socket]\nExecStartPre=/bin/false\n",
    )?;
    host.fails(
        &["add", "input", "vm1", "mouse", "--socket-user=bob", "--now"],
        1,
    )?;
    assert!(
        !host.has_folder(&format!("{KBD}.socket")) && !host.has_folder(&format!("{KBD}.service"))
    );
    Ok(())
}

#[test]
fn users_groups_and_modes_are_checked_first() -> anyhow::Result<()> {
    let host = host(None)?;
    for (option, word) in [
        (
            "--socket-user=nobodys",
            "there is no user 'nobodys' on this host",
        ),
        ("--socket-user=4711", "there is no user '4711'"),
        (
            "--socket-group=nobodys",
            "there is no group 'nobodys' on this host",
        ),
        ("--socket-user=alice\nSocketMode=0777", "A-Z a-z"),
        ("--socket-group=a b", "A-Z a-z"),
        ("--socket-mode=0888", "octal"),
        ("--socket-mode=rw", "octal"),
        ("--socket-mode=1777", "octal"),
    ] {
        let said = host.fails(&["add", "input", "vm1", "mouse", option], 1)?;
        assert!(said.contains(word), "{option}: {said}");
        assert!(!host.has_folder(&format!("{KBD}.service")));
        assert!(!host.has_folder(&format!("{KBD}.socket")));
    }
    Ok(())
}

#[test]
fn apparmor_lines_open_the_sockets_of_one_vm() -> anyhow::Result<()> {
    let host = host(None)?;
    for vm in ["vm1", "vm10"] {
        host.ok(&["add", "gpu", vm])?;
    }
    host.ok(&["add", "input", "vm1", "mouse"])?;
    let lines = [
        "\"/run/vhost-user/gpu/vm1.sock\" rw,",
        "\"/run/vhost-user/input/vm1:mouse.sock\" rw,",
    ];
    host.sandbox
        .exec(["rm", "-rf", "/etc/apparmor.d/libvirt"])?;
    let said = stderr(&host.run(&["libvirt-xml", "vm1"])?);
    assert_eq!(said, "", "no AppArmor here");
    host.sandbox
        .exec(["mkdir", "-p", "/etc/apparmor.d/libvirt"])?;
    let said = stderr(&host.run(&["libvirt-xml", "vm1"])?);
    let told: Vec<_> = said
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with('"'))
        .collect();
    assert_eq!(told, lines);
    let json: Value = serde_json::from_slice(&host.run(&["libvirt-xml", "vm1", "-j"])?.stdout)?;
    assert_eq!(json[0]["apparmor"], serde_json::json!(lines));
    Ok(())
}

/// The command of docs/libvirt.md, on a profile as libvirt makes it.
#[test]
fn apparmor_line_of_the_document_is_for_one_vm() -> anyhow::Result<()> {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/libvirt.md");
    let document = fs::read_to_string(document)?;
    let command = document
        .lines()
        .find(|line| line.starts_with("sed -i '/^}/i"));
    let command = command.context("no such line")?;
    let folder = tempfile::tempdir()?;
    let profile = folder.path().join("libvirt-0000");
    let head = "profile libvirt-0000 flags=(attach_disconnected) {\n  #include <abstractions/libvirt-qemu>\n  \
                #include <libvirt/libvirt-0000.files>\n";
    fs::write(&profile, format!("{head}}}\n"))?;
    let command = command
        .replace(
            "/etc/apparmor.d/libvirt",
            &folder.path().display().to_string(),
        )
        .replace("$(virsh domuuid vm1)", "0000");
    let output = std::process::Command::new("sh")
        .args(["-c", &command])
        .output()?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let line = "  \"/run/vhost-user/*/vm1{,:*}.sock\" rw,\n";
    assert_eq!(fs::read_to_string(&profile)?, format!("{head}{line}}}\n"));
    Ok(())
}
