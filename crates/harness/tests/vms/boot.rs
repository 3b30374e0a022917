// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The test guest on QEMU's own devices. A failure here is not a backend's fault.

use std::time::Duration;

use anyhow::Context as _;
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::{SECOND_OUTPUT, Vm};
use harness::run::read;

const SOON: Duration = Duration::from_secs(60);

fn artifacts() -> anyhow::Result<Artifacts> {
    Artifacts::obtain(&mut |step| eprintln!("{step}"))
}

#[test]
fn screen_shows_what_the_guest_draws() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu")
        .boot()?;
    let mut card = Image::test_card(800, 600);
    let sum = guest::testcard::checksum(card.pixels.iter().copied());
    let said = vm.command("testcard 800x600")?;
    assert_eq!(
        said,
        ["mode 800x600".to_owned(), format!("checksum {sum:016x}")]
    );
    vm.wait_screen(&card, SOON)?;

    vm.command("patch 10 20 300 40 12ab34")?;
    card.fill(10, 20, 300, 40, 0x12_ab_34);
    vm.wait_screen(&card, SOON)?;

    let odd = Image::test_card(1001, 701);
    vm.command("testcard 1001x701")?;
    vm.wait_screen(&odd, SOON)?;
    assert!(
        vm.command("patch 1000 0 2 1 ffffff").is_err(),
        "a patch beyond the edge"
    );
    Ok(())
}

#[test]
fn guest_survives_reboot_reset_and_reload() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu")
        .boot()?;
    let card = Image::test_card(640, 480);
    vm.command("testcard 640x480")?;
    vm.command("reload-driver virtio_gpu")?;
    vm.command("testcard 640x480")?;
    vm.wait_screen(&card, SOON)?;
    vm.reboot()?;
    vm.command("testcard 640x480")?;
    vm.wait_screen(&card, SOON)?;
    vm.reset()?;
    vm.command("testcard 640x480")?;
    vm.wait_screen(&card, SOON)?;
    vm.command("cursor 100 50 ff0000")?;
    vm.command("cursor move 120 60")?;
    vm.command("cursor off")?;
    Ok(())
}

#[test]
fn outputs_are_described_and_only_connected_ones_drawn_on() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu,max_outputs=2")
        .boot()?;
    // The second output is off until a display asks for it: there is none here.
    let error = vm
        .command("testcard 640x480 2")
        .expect_err("one output is connected");
    assert!(
        format!("{error:#}").contains("2 outputs wanted"),
        "{error:#}"
    );
    let info = vm.command("drm-info")?;
    let edid = info
        .iter()
        .find_map(|line| line.strip_prefix("edid "))
        .context("no EDID")?;
    assert!(edid.starts_with("00ffffffffffff00"), "{edid}");
    assert!(
        info.iter().any(|line| line.ends_with("preferred")),
        "{info:?}"
    );
    Ok(())
}

#[test]
fn two_outputs_share_one_picture() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu,max_outputs=2")
        .kernel_options(SECOND_OUTPUT)
        .boot()?;
    vm.command("testcard 640x480 2")?;
    let card = Image::test_card(1280, 480);
    for (head, left) in [(0, 0), (1, 640)] {
        vm.wait_screen_of("gpu", head, &card.crop(left, 0, 640, 480), SOON)?;
    }
    Ok(())
}

#[test]
fn keys_arrive_and_devices_are_described() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-keyboard-pci")
        .boot()?;
    let name = "QEMU Virtio Keyboard";
    let list = vm.command(&format!("evdev-list {name}"))?;
    assert_eq!(
        list.first().map(String::as_str),
        Some("name QEMU Virtio Keyboard")
    );
    assert!(list.contains(&"rep".to_owned()), "{list:?}");
    let evtest = vm.command(&format!("evtest {name}"))?;
    assert!(
        evtest.iter().any(|line| line.contains("(KEY_A)")),
        "{evtest:?}"
    );

    let listening = vm.listen(2, name)?;
    let key = |down| {
        serde_json::json!({"events": [{"type": "key", "data":
            {"down": down, "key": {"type": "qcode", "data": "a"}}}]})
    };
    vm.qmp("input-send-event", key(true))?;
    vm.qmp("input-send-event", key(false))?;
    let events = listening.finish(SOON)?;
    assert_eq!(events, ["key 30 1", "syn 0 0", "key 30 0", "syn 0 0"]);
    assert_eq!(
        vm.command(&format!("key-state {name}"))?,
        Vec::<String>::new()
    );
    Ok(())
}

#[test]
fn qemu_error_is_reported() -> anyhow::Result<()> {
    let artifacts = artifacts()?;
    let error = Vm::builder(&artifacts)
        .device("no-such-device")
        .boot()
        .expect_err("refused");
    assert!(format!("{error:#}").contains("no-such-device"), "{error:#}");
    Ok(())
}

#[test]
fn newest_qemu_boots_the_guest_and_has_a_generic_device() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain_newest(&mut |step| eprintln!("{step}"))?;
    let devices = read(artifacts.qemu.command().args(["-device", "help"]))?;
    assert!(
        devices.contains("\"vhost-user-test-device-pci\""),
        "{devices}"
    );
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu")
        .boot()?;
    vm.command("testcard 640x480")?;
    vm.wait_screen(&Image::test_card(640, 480), SOON)?;
    Ok(())
}
