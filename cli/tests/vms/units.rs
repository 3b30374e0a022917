// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VM that is a unit, as docs/other-vmms.md has it: started by systemd, with the devices of its own units.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::stderr;

const SOON: Duration = Duration::from_secs(120);

/// The first block of a document in this language.
fn block<'a>(document: &'a str, language: &str) -> anyhow::Result<&'a str> {
    let start = format!("```{language}\n");
    let (_, rest) = document.split_once(&start).context("no such block")?;
    Ok(rest.split_once("```").context("no end of the block")?.0)
}

#[test]
fn vm_is_a_unit() -> anyhow::Result<()> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/other-vmms.md");
    let document = fs::read_to_string(document)?;
    let (_, section) = document
        .split_once("\n## VMs as units\n")
        .context("no such section")?;
    let (unit, commands) = (block(section, "ini")?, block(section, "sh")?);
    let [reload, add, start, view] = commands.lines().collect::<Vec<_>>()[..] else {
        anyhow::bail!("not four commands: {commands}");
    };

    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let run = |line: &str| -> anyhow::Result<Vec<u8>> {
        let output = host.exec(["sh", "-c", line])?;
        let journal = || host.journal(&["--lines=60"]).unwrap_or_default();
        ensure!(
            output.status.success(),
            "{line}: {}: {}",
            stderr(&output),
            journal()
        );
        Ok(output.stdout)
    };
    if let Some(root) = &artifacts.qemu.root {
        host.bring(root)?;
    }
    host.bring(&artifacts.kernel)?;
    host.bring(&artifacts.initramfs)?;
    let emulator = "/usr/local/bin/qemu-system-x86_64";
    host.write(emulator, &artifacts.qemu.script())?;
    fs::set_permissions(host.path(emulator), fs::Permissions::from_mode(0o755))?;
    host.write("/etc/systemd/system/vm@.service", unit)?;
    // The guest's driver draws its text console.
    let arguments = format!(
        "-machine q35,accel={} -nodefaults -kernel {} -initrd {} -append 'quiet panic=-1 mitigations=off' \
         -serial null -serial null",
        artifacts.accelerator.name(),
        artifacts.kernel.display(),
        artifacts.initramfs.display()
    );
    host.write(
        "/etc/vm/vm1",
        &format!("MEMORY=384M\nQEMU_ARGS=\"{arguments}\"\n"),
    )?;
    for line in [reload, add, start] {
        run(line)?;
    }
    host.wait_property("vm@vm1.service", "ActiveState", "active", SOON)?;
    let viewed = run(&format!("VHOSTCTL_VIEWER=echo {view}"))?;
    let viewed = String::from_utf8_lossy(&viewed).into_owned();
    ensure!(viewed.contains("/run/vhost-user/vnc/vm1.sock"), "{viewed}");

    // The screen is seen as soon as the guest has drawn.
    let deadline = Instant::now() + SOON;
    let picture = loop {
        let output = host.exec(["vhostctl", "screenshot", "vm1", "-"])?;
        if output.status.success() {
            break Image::from_png(&output.stdout)?;
        }
        let journal = || host.journal(&["--lines=60"]).unwrap_or_default();
        ensure!(
            Instant::now() < deadline,
            "{}: {}",
            stderr(&output),
            journal()
        );
        thread::sleep(Duration::from_millis(200));
    };
    ensure!(picture.width >= 640, "{} pixels wide", picture.width);

    // Its devices end with it, and listen for the next one.
    run("systemctl stop vm@vm1")?;
    for service in [
        "vhost-user-gpu@vm1",
        "vhost-user-input@vm1:keyboard",
        "vhost-user-input@vm1:tablet",
    ] {
        host.wait_property(
            &format!("{service}.service"),
            "ActiveState",
            "inactive",
            SOON,
        )?;
        host.wait_property(&format!("{service}.socket"), "SubState", "listening", SOON)?;
    }
    Ok(())
}
