// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The 2D GPU.

use anyhow::{Context as _, ensure};
use harness::image::Image;
use harness::qemu::Vm;

use super::{End, Host, Moments, Qemu, ROUNDS, SOON, assert_silent, frame, said};

const SERVICE: &str = "vhost-user-gpu@vm1.service";
const SOCKET: &str = "vhost-user-gpu@vm1.socket";
const SIZE: (u32, u32) = (1920, 1080);

#[test]
fn killed_gpu_shows_what_the_guest_drew() -> anyhow::Result<()> {
    ends(Qemu::Usual, End::Kill, ROUNDS)
}

#[test]
fn killed_gpu_shows_what_the_guest_drew_on_the_newest_qemu() -> anyhow::Result<()> {
    ends(Qemu::Newest, End::Kill, ROUNDS)
}

#[test]
fn restarted_gpu_shows_what_the_guest_drew() -> anyhow::Result<()> {
    ends(Qemu::Usual, End::Restart, ROUNDS)
}

#[test]
fn restarted_gpu_shows_what_the_guest_drew_on_the_newest_qemu() -> anyhow::Result<()> {
    ends(Qemu::Newest, End::Restart, ROUNDS)
}

/// The program ends at random moments while the guest draws as fast as it can. After each end the guest goes on for a
/// while; then its screen is what its framebuffer has.
fn ends(qemu: Qemu, how: End, rounds: u32) -> anyhow::Result<()> {
    let artifacts = qemu.artifacts()?;
    let mut host = Host::boot()?;
    host.sandbox.systemctl(&["start", SOCKET])?;
    let socket = host.sandbox.path("/run/vhost-user/gpu/vm1.sock");
    let mut vm = Vm::builder(&artifacts)
        .gpu_socket(&socket)
        .boot()
        .with_context(|| host.said(SERVICE))?;
    let (width, height) = SIZE;
    let animation = format!("animate {width}x{height}");
    let mut moments = Moments::new()?;
    let before = said(&vm);
    let mut frames = 0;
    for round in 0..rounds {
        let shown = (|| {
            let running = vm.start(&animation)?;
            running.expect("drawing", SOON)?;
            moments.sleep(60);
            host.end(SERVICE, how)?;
            vm.command("animate-stop")?;
            let last = frame(&running.finish(SOON)?)?;
            ensure!(last > frames || round == 0, "nothing was drawn");
            frames = last;
            vm.wait_screen(&Image::animation(last, width, height), SOON)
                .map(drop)
        })();
        shown.with_context(|| format!("round {round}: {}", host.said(SERVICE)))?;
        assert_silent(&vm, &before).with_context(|| format!("round {round}"))?;
    }
    eprintln!("{rounds} ends within {frames} frames");
    // A guest's reboot is one as ever.
    vm.reboot()?;
    vm.command("testcard 800x600")?;
    vm.wait_screen(&Image::test_card(800, 600), SOON)
        .with_context(|| host.said(SERVICE))?;
    drop(vm);
    host.sandbox
        .wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
    ensure!(host.sandbox.property(SERVICE, "Result")? == "success");
    Ok(())
}
