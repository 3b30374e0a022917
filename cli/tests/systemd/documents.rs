// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the documents, as they stand there, on a machine with two keyboards and a mouse.

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::mock::{KEYBOARD, MOUSE};

use crate::common::document::Section;
use crate::common::host::Host;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);

/// A machine where the user alice calls the commands, by sudo where they say so.
fn machine() -> anyhow::Result<Host> {
    // The host keeps a keyboard.
    let host = Host::new(&[KEYBOARD, MOUSE, KEYBOARD])?;
    let user = "grep -q ^alice: /etc/passwd || echo alice:x:4242:4242::/:/bin/sh >>/etc/passwd; \
                grep -q ^alice: /etc/group || echo alice:x:4242: >>/etc/group";
    host.sandbox.exec(["sh", "-c", user])?;
    Ok(host)
}

/// A block for the shell of this machine: what the reader fills in is filled in, and a viewer or a QEMU only prints what it is
/// given.
fn filled_in(host: &Host, block: &str) -> anyhow::Result<String> {
    let mock = host.mock.as_ref().context("no mock")?;
    Ok(block
        .replace("KEYBOARD", &mock.path(0))
        .replace("/dev/input/event3", &mock.path(0))
        .replace("MOUSE", &mock.path(1))
        .replace("sudo ", "")
        .replace("qemu-system-x86_64 ", "echo ")
        .replace(" ... ", " "))
}

fn sh(host: &Host, script: &str) -> anyhow::Result<String> {
    let mock = host.mock.as_ref().context("no mock")?;
    let mut words = vec![
        "env".to_owned(),
        "USER=alice".to_owned(),
        "VHOSTCTL_VIEWER=echo".to_owned(),
    ];
    words.extend(
        mock.environment()
            .map(|(name, value)| format!("{name}={value}")),
    );
    words.extend(["sh", "-ec", script].map(str::to_owned));
    let output = host.sandbox.exec(words)?;
    let said = stderr(&output);
    ensure!(
        output.status.success(),
        "{script}: {}: {said}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)? + &said)
}

/// Runs all blocks of a section; returns what they print.
fn run(host: &Host, document: &str, heading: &str) -> anyhow::Result<Vec<String>> {
    let blocks = Section::of(document, heading)?.blocks("sh");
    ensure!(
        !blocks.is_empty(),
        "{document} has no commands in {heading}"
    );
    let run = |block: &String| sh(host, &filled_in(host, block)?);
    let printed = blocks.iter().map(run).collect();
    sh(host, "vhostctl remove '*' --force || true")?;
    printed
}

/// The words that have to be in what a section prints.
fn prints(host: &Host, document: &str, heading: &str, words: &[&str]) -> anyhow::Result<()> {
    let printed = run(host, document, heading)?.concat();
    for word in words {
        ensure!(
            printed.contains(word),
            "{document}, {heading}: no {word:?} in {printed}"
        );
    }
    Ok(())
}

#[test]
fn devices_are_added_as_the_documents_say() -> anyhow::Result<()> {
    let host = machine()?;
    let keyboard = "/run/vhost-user/input/vm1:keyboard.sock";
    prints(
        &host,
        "docs/console.md",
        "## Add one",
        &["vhost-vnc@vm1", "memfd", keyboard],
    )?;
    prints(
        &host,
        "docs/console.md",
        "## Several heads",
        &["/run/vhost-user/vnc/vm1:1.sock"],
    )?;
    prints(
        &host,
        "docs/console.md",
        "## Keyboard, pointer and layouts",
        &["vhost-vnc@vm1.service.d/50-vhostctl.conf"],
    )?;
    prints(
        &host,
        "docs/libvirt.md",
        "## A unit serves it",
        &["<memoryBacking>", keyboard],
    )?;
    prints(
        &host,
        "docs/other-vmms.md",
        "# Other VMMs, and VMs as units",
        &["1 backend listed.", "/run/vhost-user/input/vm1:kbd.sock"],
    )?;
    prints(
        &host,
        "docs/qemu.md",
        "## A keyboard for the host and the guest",
        &["vm1:kbd", "vm1:mouse"],
    )?;
    let blocks = Section::of("docs/qemu.md", "## Who may connect")?.blocks("sh");
    let [block] = &blocks[..] else {
        anyhow::bail!("{blocks:?}");
    };
    sh(&host, &filled_in(&host, block)?)?;
    let status = sh(&host, "vhostctl status vm1 --lines=0")?;
    let access = status.lines().filter(|line| line.contains("Access: "));
    let access: Vec<_> = access.map(str::trim).collect();
    assert_eq!(access, ["Access: alice:root, mode 0600"; 4], "{status}");
    Ok(())
}

#[test]
fn vms_are_looked_at_and_removed_as_the_documents_say() -> anyhow::Result<()> {
    let host = machine()?;
    let add = || sh(&host, "vhostctl add console vm1 --now");
    add()?;
    prints(
        &host,
        "docs/troubleshooting.md",
        "# Troubleshooting",
        &[
            "4 backends listed.",
            "Front-end: not connected",
            "Listening on",
        ],
    )?;
    add()?;
    prints(
        &host,
        "docs/qemu.md",
        "## QEMU's arguments",
        &["-machine q35", "size=4G", "/run/vhost-user/gpu/vm1.sock"],
    )?;
    add()?;
    prints(
        &host,
        "docs/install.md",
        "## Update",
        &["0 programs restarted."],
    )?;
    add()?;
    let blocks = Section::of("docs/install.md", "## Remove")?.blocks("sh");
    let [block] = &blocks[..] else {
        anyhow::bail!("{blocks:?}");
    };
    // "make uninstall" is for the test of the installation.
    let lines = block.lines().filter(|line| line.contains("vhostctl"));
    sh(
        &host,
        &filled_in(&host, &lines.collect::<Vec<_>>().join("\n"))?,
    )?;
    assert_eq!(sh(&host, "vhostctl list")?, "No backends.\n");

    let descriptor = "vhostctl list-backends --no-legend";
    ensure!(sh(&host, descriptor)?.contains("usable"));
    run(
        &host,
        "packaging/README.md",
        "## Which vhost-user-gpu libvirt takes",
    )?;
    let listed = sh(&host, descriptor)?;
    let ours: Vec<_> = listed
        .lines()
        .filter(|line| line.contains("40-vhost-user-gpu"))
        .collect();
    ensure!(
        !ours.is_empty() && ours.iter().all(|line| line.contains(" mask")),
        "{listed}"
    );
    Ok(())
}

#[test]
fn console_of_two_documents_is_the_same() -> anyhow::Result<()> {
    let readme = Section::of("README.md", "# vhostctl")?.blocks("sh");
    let console = Section::of("docs/console.md", "# The console")?.blocks("sh");
    assert_eq!(readme, console);
    Ok(())
}

/// Each line of a block is a program in a terminal of its own.
#[test]
fn programs_serve_by_hand() -> anyhow::Result<()> {
    let host = machine()?;
    let blocks = Section::of("docs/qemu.md", "## By hand")?.blocks("sh");
    ensure!(blocks.len() == 2, "{blocks:?}");
    for (block, sockets) in blocks.iter().zip([
        &["gpu", "kbd"][..],
        &["gpu", "display", "keyboard", "tablet", "vnc"],
    ]) {
        let block = filled_in(&host, block)?.replace("\\\n", " ");
        let lines = block.lines().map(|line| format!("{line} &\n"));
        let background = format!("{} wait", lines.collect::<String>());
        host.sandbox.write("/run/by-hand", &background)?;
        sh(
            &host,
            "systemd-run --quiet --collect --unit=by-hand --setenv=LD_PRELOAD --setenv=UMOCKDEV_DIR sh /run/by-hand",
        )?;
        let began = Instant::now();
        for socket in sockets {
            let path = host.sandbox.path(&format!("/tmp/{socket}.sock"));
            while !path.exists() {
                ensure!(
                    began.elapsed() < SOON,
                    "{socket} is not there: {}",
                    host.sandbox.journal(&["--unit=by-hand", "--lines=20"])?
                );
                thread::sleep(Duration::from_millis(20));
            }
        }
        if sockets.contains(&"vnc") {
            let mut viewer = UnixStream::connect(host.sandbox.path("/tmp/vnc.sock"))?;
            viewer.set_read_timeout(Some(SOON))?;
            let mut version = [0; 12];
            viewer.read_exact(&mut version)?;
            assert_eq!(&version, b"RFB 003.008\n");
        }
        sh(&host, "systemctl stop by-hand && rm -f /tmp/*.sock")?;
    }
    Ok(())
}
