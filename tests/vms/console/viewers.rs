// SPDX-License-Identifier: Apache-2.0 OR MIT
//! On QEMU's vhost-user-gpu, whose own screendump shows what viewers have to show.

use anyhow::{Context as _, ensure};
use frontend::{Command, SocketForm};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::{SECOND_OUTPUT, Vm};
use harness::viewers::RfbViewer;
use rfb::server_message::PseudoRect;
use rfb::{ClientMessage, Rect, Screen};

use super::{Console, SOON};
use crate::common::{assert_clean_exit, gpu_command, vnc_program};

#[test]
fn every_viewer_shows_the_guest_and_types() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let console = Console::start(&[])?;
    let mut vm = console.boot(&artifacts)?;
    let mut tour = console.tour(&mut vm)?;
    tour.all().with_context(|| console.said())?;

    // Other sizes, with the same viewer still connected.
    let mut viewer = RfbViewer::connect(&console.socket(), SOON)?;
    for (width, height) in [(1001, 701), (1920, 1080), (640, 480)] {
        let card = tour.draw(width, height)?;
        tour.our_viewer(&mut viewer, &card)
            .with_context(|| format!("{width}x{height}: {}", console.said()))?;
    }

    // QEMU lets no backend say that the screen has another size.
    let status = resize(&mut viewer, 800, 600)?;
    ensure!(status == 1, "prohibited is 1, not {status}");
    let card = tour.draw(640, 480)?;
    viewer.wait_picture(&card)?;
    drop(vm);
    console.finish()
}

#[test]
fn each_head_has_a_socket_of_its_own() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    let mut gpu = gpu_command(SocketForm::Path)
        .arg(format!("--display-socket={}", path("display").display()))
        .spawn()?;
    gpu.wait_stderr("serving on")?;
    let server = Command::new(vnc_program())
        .arg(format!("--display={}", path("display").display()))
        .arg(format!("--socket-path={}", path("0").display()))
        .arg(format!("--socket-path={}", path("1").display()))
        .spawn()?;
    server.wait_stderr("is ready")?;
    let mut vm = Vm::builder(&artifacts)
        .gpu_socket_with(gpu.socket_path(), "max_outputs=2")
        .kernel_options(SECOND_OUTPUT)
        .boot()
        .with_context(|| gpu.stderr())?;
    let mut left = RfbViewer::connect(&path("0"), SOON)?;
    let mut right = RfbViewer::connect(&path("1"), SOON)?;

    vm.command("testcard 640x480 2")?;
    let mut whole = Image::test_card(1280, 480);
    vm.command("patch 600 10 80 20 445566")?;
    whole.fill(600, 10, 80, 20, 0x44_55_66);
    for (head, viewer) in [(0, &mut left), (1, &mut right)] {
        let half = whole.crop(640 * head, 0, 640, 480);
        vm.wait_screen_of("gpu", head, &half, SOON)?;
        let seen = viewer.wait_picture(&half);
        seen.with_context(|| format!("head {head}: {}{}", gpu.stderr(), server.stderr()))?;
    }
    drop(vm);
    assert_clean_exit(&mut gpu);
    Ok(())
}

/// Asks for another size, and returns the server's answer.
pub(super) fn resize(viewer: &mut RfbViewer, width: u16, height: u16) -> anyhow::Result<u16> {
    let client = viewer.client();
    // As the server has them, or one of the whole size.
    let screen = client.screens().first().map_or(0, |screen| screen.id);
    client.send(&ClientMessage::SetDesktopSize {
        width,
        height,
        screens: vec![Screen {
            id: screen,
            rect: Rect::of_size(width, height),
            flags: 0,
        }],
    })?;
    loop {
        let rect = client.frame().rect();
        client.request(true, rect)?;
        for pseudo in client.wait_for_update()?.pseudo {
            if let PseudoRect::ExtendedDesktopSize {
                reason: 1, status, ..
            } = pseudo
            {
                return Ok(status);
            }
        }
    }
}
