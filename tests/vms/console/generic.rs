// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On QEMU 11's generic device, which has no display at all: the console is the only one, and says how large the
//! screen is.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::viewers::{RfbViewer, TigerVnc, XServer};
use serde_json::Value;

use super::viewers::resize;
use super::{Console, SOON};

const GPU: &str =
    "vhost-user-test-device-pci,virtio-id=16,num_vqs=2,vq_size=256,config_size=16,chardev=gpu";

/// Answers to a viewer that wants another size (wiki: ExtendedDesktopSize).
const PROHIBITED: u16 = 1;
const FORWARDED: u16 = 4;

#[test]
fn console_is_the_display_of_a_vmm_that_has_none() -> anyhow::Result<()> {
    let (console, mut vm) = boot(&[])?;

    // All that is drawn lies in the guest's memory.
    let log = vm.kernel_log();
    ensure!(log.contains("+resource_blob"), "{log}");
    let mut tour = console.tour(&mut vm)?;
    tour.has_screendump = false;
    tour.all().with_context(|| console.said())?;

    let mut viewer = RfbViewer::connect(&console.socket(), SOON)?;
    let card = tour.draw(1152, 864)?;
    viewer.wait_picture(&card)?;
    let status = resize(&mut viewer, 1024, 700)?;
    ensure!(status == PROHIBITED, "status {status}: {}", console.said());
    prefers(tour.vm, "1152x864").with_context(|| console.said())?;
    drop(vm);
    console.finish()
}

#[test]
fn viewer_resizes_the_guest() -> anyhow::Result<()> {
    let (console, mut vm) = boot(&["--allow-resize"])?;
    let mut tour = console.tour(&mut vm)?;
    tour.has_screendump = false;
    let mut viewer = RfbViewer::connect(&console.socket(), SOON)?;
    viewer.wait_picture(&tour.draw(1152, 864)?)?;
    for (width, height) in [(1024, 700), (1600, 900), (641, 479)] {
        let status = resize(&mut viewer, width, height)?;
        ensure!(status == FORWARDED, "status {status}: {}", console.said());
        prefers(tour.vm, &format!("{width}x{height}")).with_context(|| console.said())?;
        let card = tour.draw(width.into(), height.into())?;
        tour.our_viewer(&mut viewer, &card)
            .with_context(|| console.said())?;
    }

    // A person who drags the window of a real viewer.
    let server = XServer::start()?;
    let window = TigerVnc::start_resizing(&server, &console.socket(), SOON)?;
    for size in [(1100, 650), (720, 560)] {
        let (width, height) = size;
        window.resize(size)?;
        let seen = prefers(tour.vm, &format!("{width}x{height}"));
        seen.with_context(|| format!("{}{}", window.said(), console.said()))?;
        let card = tour.draw(width, height)?;
        window.wait_picture(&card, SOON)?;
        viewer.wait_picture(&card)?;
    }
    drop(window);

    // It stays over a pause and a reset.
    for command in ["stop", "cont"] {
        vm.qmp(command, Value::Null)?;
    }
    prefers(&mut vm, "720x560").with_context(|| console.said())?;
    vm.reset()?;
    prefers(&mut vm, "720x560").with_context(|| console.said())?;
    drop(vm);
    console.finish()
}

/// A guest on the generic device, with these options of the GPU, which prefers a size of its own.
fn boot(options: &[&str]) -> anyhow::Result<(Console, Vm)> {
    let artifacts = Artifacts::obtain_newest(&mut |step| eprintln!("{step}"))?;
    ensure!(artifacts.qemu.version >= (11, 0), "{:?}", artifacts.qemu);
    let console = Console::start(&[options, &["--resolution=1152x864"]].concat())?;
    let chardev = format!("socket,id=gpu,path={}", console.gpu.socket_path().display());
    let words = ["-chardev", &chardev, "-device", GPU].map(str::to_owned);
    let mut vm = Vm::builder(&artifacts)
        .kernel_options("ignore_loglevel")
        .arguments(&words)
        .input_socket(console.keyboard.socket_path())
        .input_socket(console.tablet.socket_path())
        .boot()
        .with_context(|| console.said())?;
    prefers(&mut vm, "1152x864").with_context(|| console.said())?;
    Ok((console, vm))
}

/// Waits until the guest's connector prefers a mode of that size.
fn prefers(vm: &mut Vm, size: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + SOON;
    loop {
        let info = vm.command("drm-info")?;
        let mut preferred = info.iter().filter(|line| line.ends_with(" preferred"));
        if preferred.any(|line| line.split(' ').nth(1) == Some(size)) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the guest does not prefer {size}: {info:?}"
        );
    }
}
