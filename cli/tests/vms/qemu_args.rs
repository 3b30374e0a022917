// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The output of `qemu-args` boots a guest with its devices.

use std::io::Write as _;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::mock::{KEYBOARD, MockInput};
use harness::qemu::Vm;
use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
const KEY_A: u16 = 30;

#[test]
fn guest_has_the_devices_of_two_commands() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let mut keyboard = MockInput::start_in(&sandbox, &[KEYBOARD])?;
    let with_devices = |arguments: &[&str]| -> anyhow::Result<()> {
        let mut command = vec!["env".to_owned()];
        command.extend(
            keyboard
                .environment()
                .map(|(name, value)| format!("{name}={value}")),
        );
        command.push("vhostctl".to_owned());
        command.extend(arguments.iter().map(|word| (*word).to_owned()));
        let output = sandbox.exec(command)?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        Ok(())
    };
    with_devices(&["add", "gpu", "vm1", "--now"])?;
    with_devices(&[
        "add",
        "input",
        "vm1",
        "/dev/input/event0",
        "--force",
        "--now",
    ])?;
    // The mock is a library and a terminal, which the unit's confinement has to let through.
    sandbox.drop_in("vhost-user-input@vm1:kbd.service", &keyboard.drop_in())?;

    // The words as a shell has them, and the sockets where QEMU finds them from outside.
    let output = sandbox.exec(["vhostctl", "qemu-args", "vm1", "--memory=384"])?;
    let line = String::from_utf8(output.stdout)?;
    let words = sandbox.words_outside(&line)?;

    let mut vm = Vm::builder(&artifacts)
        .arguments(&words)
        .boot()
        .with_context(|| line.clone())?;
    vm.command("testcard 640x480")?;
    vm.wait_screen(&Image::test_card(640, 480), SOON)?;
    let name = keyboard.description(0)?.name.clone();
    let listening = vm.listen(2, &name)?;
    keyboard.type_keys(0, &[KEY_A])?;
    assert_eq!(
        listening.finish(SOON)?,
        ["key 30 1", "syn 0 0", "key 30 0", "syn 0 0"]
    );
    drop(vm);
    sandbox.wait_property(
        "vhost-user-gpu@vm1.service",
        "ActiveState",
        "inactive",
        SOON,
    )?;
    assert_eq!(
        sandbox.property("vhost-user-gpu@vm1.service", "Result")?,
        "success"
    );
    Ok(())
}

#[test]
fn qemu_takes_the_memory_it_is_given() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    sandbox.exec(["vhostctl", "add", "gpu", "vm1"])?;
    for (memory, bytes) in [
        ("64", 64 << 20),
        ("0.5G", 512 << 20),
        ("size=96M", 96 << 20),
        ("8200K", 8200 << 10),
        ("128m,slots=2,maxmem=1G", 128 << 20),
    ] {
        let option = format!("--memory={memory}");
        let output = sandbox.exec(["vhostctl", "qemu-args", "vm1", &option, "-j"])?;
        let words: Vec<String> = serde_json::from_slice(&output.stdout)?;
        // Those of the memory; the devices would want a display.
        let words = words.iter().take(6);
        let mut qemu = artifacts.qemu.command();
        qemu.args(["-machine", "q35", "-accel", "tcg", "-display", "none"]);
        qemu.args(["-nodefaults", "-S", "-qmp", "stdio"])
            .args(words);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu.stderr(Stdio::piped()).spawn()?;
        let mut stdin = qemu.stdin.take().context("no stdin")?;
        for command in ["qmp_capabilities", "query-memory-size-summary", "quit"] {
            writeln!(stdin, "{{\"execute\": \"{command}\"}}")?;
        }
        let output = qemu.wait_with_output()?;
        drop(stdin);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(
            said.contains(&format!("\"base-memory\": {bytes}")),
            "{memory}: {said}{}",
            stderr(&output)
        );
    }
    Ok(())
}

/// Without a display of QEMU's that takes dmabufs, as on a server.
#[test]
fn arguments_alone_start_qemu_and_vnc_keeps_it_from_starting() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let output = sandbox.exec(["vhostctl", "add", "gpu", "vm1", "--now"])?;
    ensure!(output.status.success(), "{}", stderr(&output));
    let output = sandbox.exec(["vhostctl", "qemu-args", "vm1", "--memory=64M", "-j"])?;
    let words: Vec<String> = serde_json::from_slice(&output.stdout)?;
    let root = sandbox.path("/run/vhost-user").display().to_string();
    let words = words
        .iter()
        .map(|word| word.replace("/run/vhost-user", &root));
    let words: Vec<String> = words.collect();
    let start = |more: &[&str]| -> anyhow::Result<Output> {
        let mut qemu = artifacts.qemu.command();
        qemu.args(["-machine", "q35", "-accel", "tcg", "-nodefaults", "-S"]);
        qemu.args(["-qmp", "stdio"]).args(&words).args(more);
        // Of the user's session.
        qemu.env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut qemu = qemu.stderr(Stdio::piped()).spawn()?;
        let mut stdin = qemu.stdin.take().context("no stdin")?;
        for command in ["qmp_capabilities", "quit"] {
            // It may have ended already.
            let _ = writeln!(stdin, "{{\"execute\": \"{command}\"}}");
        }
        let output = qemu.wait_with_output()?;
        drop(stdin);
        Ok(output)
    };
    let alone = start(&[])?;
    ensure!(alone.status.success(), "{words:?}: {}", stderr(&alone));
    let socket = staging.path().join("vnc");
    let vnc = start(&["-vnc", &format!("unix:{}", socket.display())])?;
    ensure!(!vnc.status.success(), "QEMU takes VNC");
    let said = stderr(&vnc);
    ensure!(
        said.contains("The console requires display DMABUF support."),
        "{said}"
    );
    Ok(())
}
