// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A console that was added by one command shows a guest and types in it.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use harness::staging::stage;
use harness::systemd::Sandbox;
use rfb::Encoding;
use rfb::client::Client;

use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
/// The key "a": its keysym, and its XT scancode.
const KEY_A: (u32, u32) = (0x61, 0x1e);

#[test]
fn guest_is_seen_and_used() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let vhostctl = |arguments: &[&str]| -> anyhow::Result<Vec<u8>> {
        let output = sandbox.exec([&["vhostctl"], arguments].concat())?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}: {}",
            stderr(&output),
            sandbox.journal(&["--lines=40"])?
        );
        Ok(output.stdout)
    };
    vhostctl(&["add", "console", "vm1", "--resolution=1440x900", "--now"])?;

    // The words as a shell has them, and the sockets where QEMU finds them from outside.
    let line = String::from_utf8(vhostctl(&["qemu-args", "vm1", "--memory=384"])?)?;
    let words = sandbox.words_outside(&line)?;
    let mut vm = Vm::builder(&artifacts)
        .arguments(&words)
        .boot()
        .with_context(|| line.clone())?;
    let info = vm.command("drm-info")?;
    ensure!(
        info.iter()
            .any(|line| line.starts_with("mode 1440x900 ") && line.ends_with(" preferred")),
        "{info:?}"
    );
    vm.command("testcard 640x480")?;
    let card = Image::test_card(640, 480);
    vm.wait_screen(&card, SOON)?;
    let picture = vhostctl(&["screenshot", "vm1", "-"])?;
    if let Some(difference) = Image::from_png(&picture)?.difference(&card) {
        anyhow::bail!("the screenshot differs: {difference}");
    }

    let socket = UnixStream::connect(sandbox.path("/run/vhost-user/vnc/vm1.sock"))?;
    let mut viewer = Client::connect(socket, SOON)?;
    viewer.set_encodings(&[
        Encoding::ZRLE,
        Encoding::QEMU_EXTENDED_KEY_EVENT,
        Encoding::DESKTOP_SIZE,
    ])?;
    viewer.wait_until(|viewer| viewer.has_extended_keys())?;
    let typed = vm.listen(2, "vhost-user keyboard")?;
    for down in [true, false] {
        viewer.extended_key(KEY_A.0, KEY_A.1, down)?;
    }
    assert_eq!(
        typed.finish(SOON)?,
        ["key 30 1", "syn 0 0", "key 30 0", "syn 0 0"]
    );
    let pointed = vm.listen(1, "vhost-user tablet")?;
    viewer.pointer(320, 120, 0)?;
    let events = pointed.finish(SOON)?;
    let middle = |event: &str, axis: &str, expected: i32| -> anyhow::Result<()> {
        let value: i32 = event.strip_prefix(axis).context("another axis")?.parse()?;
        ensure!((value - expected).abs() < 64, "{event}");
        Ok(())
    };
    ensure!(events.len() == 3, "{events:?}");
    middle(&events[0], "abs 0 ", 16384)?;
    middle(&events[1], "abs 1 ", 8192)?;
    // The server tells the service manager at most once a second.
    let deadline = Instant::now() + SOON;
    loop {
        let status = String::from_utf8(vhostctl(&["status", "vm1:vnc", "-n0"])?)?;
        if status.contains("Viewers: 1\n") {
            break;
        }
        ensure!(Instant::now() < deadline, "{status}");
    }

    drop((vm, viewer));
    for unit in ["vhost-user-gpu@vm1.service", "vhost-vnc@vm1.service"] {
        sandbox.wait_property(unit, "ActiveState", "inactive", SOON)?;
        assert_eq!(sandbox.property(unit, "Result")?, "success", "{unit}");
    }
    Ok(())
}
