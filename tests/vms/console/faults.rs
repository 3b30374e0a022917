// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers and servers that die, hang or come in numbers: the guest notices nothing, and the next connection is
//! right.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::viewers::{Encoding, RfbViewer, TigerVnc, Tour, XServer};
use rustix::process::Signal;

use super::{Console, SOON};

const SIZE: (u32, u32) = (800, 600);
const VIEWERS: usize = 20;
const PATCHES: u32 = 20;
/// Keysym and scancode of a key.
const KEY_A: (u32, u16) = (0x61, 30);

#[test]
fn guest_notices_no_fault_of_viewers_and_servers() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let mut console = Console::start(&[])?;
    let mut vm = console.boot(&artifacts)?;
    let mut tour = console.tour(&mut vm)?;
    let mut card = tour.draw(SIZE.0, SIZE.1)?;
    let log = tour.vm.kernel_log();
    let server = XServer::start()?;

    many_viewers(&console, &mut tour, &mut card).with_context(|| console.said())?;
    stopped_viewer(&console, &mut tour, &mut card, &server).with_context(|| console.said())?;
    killed_viewer(&console, &mut tour, &mut card, &server).with_context(|| console.said())?;
    killed_server(&mut console, &mut tour, &mut card).with_context(|| console.said())?;
    let now = tour.vm.kernel_log();
    assert_eq!(now, log, "the guest's kernel noticed something");

    // A viewer stays over a reboot.
    let mut viewer = RfbViewer::connect(&console.socket(), SOON)?;
    viewer.wait_picture(&card)?;
    tour.reboot()?;
    let card = tour.draw(SIZE.0, SIZE.1)?;
    tour.our_viewer(&mut viewer, &card)
        .with_context(|| console.said())?;

    // And after the VM, with a picture that says so.
    drop(vm);
    let deadline = Instant::now() + SOON;
    while viewer.picture()?.difference(&card).is_none() {
        ensure!(
            Instant::now() < deadline,
            "the screen of a VM that has ended is shown: {}",
            console.said()
        );
    }
    console.finish()
}

/// Twenty viewers at once see each change.
fn many_viewers(console: &Console, tour: &mut Tour, card: &mut Image) -> anyhow::Result<()> {
    let mut viewers = Vec::new();
    for number in 0..VIEWERS {
        let viewer = RfbViewer::connect(&console.socket(), SOON);
        viewers.push(viewer.with_context(|| format!("viewer {number}"))?);
    }
    for colour in [0x11_22_33, 0xff_00_ff] {
        for (number, viewer) in viewers.iter_mut().enumerate() {
            let seen = viewer.wait_picture(card);
            seen.with_context(|| format!("viewer {number}"))?;
        }
        tour.patch(card, (100, 100), (200, 200), colour)?;
    }
    // They share the keyboard.
    for viewer in viewers.iter_mut().step_by(VIEWERS - 1) {
        tour.our_viewer(viewer, card)?;
    }
    Ok(())
}

/// One that stops reading slows nobody down, and shows all once it reads again.
fn stopped_viewer(
    console: &Console,
    tour: &mut Tour,
    card: &mut Image,
    server: &XServer,
) -> anyhow::Result<()> {
    let mut other = RfbViewer::connect(&console.socket(), SOON)?;
    let viewer = TigerVnc::start(server, &console.socket(), Encoding::Raw, SOON)?;
    viewer.wait_picture(card, SOON)?;
    // Another one that asks for more than a socket holds, and reads nothing.
    let mut mute = RfbViewer::connect(&console.socket(), SOON)?;
    for _ in 0..PATCHES {
        let rect = mute.client().frame().rect();
        mute.client().request(false, rect)?;
    }
    let before = draw_patches(tour, card, 0)?;
    other.wait_picture(card)?;
    viewer.signal(Signal::STOP)?;
    let stopped = draw_patches(tour, card, 1)?;
    // With room for a busy machine.
    ensure!(
        stopped < 5 * before + Duration::from_secs(5),
        "{PATCHES} patches took {stopped:?}, {before:?} without a viewer that stands still"
    );
    tour.our_viewer(&mut other, card)?;
    viewer.signal(Signal::CONT)?;
    viewer.wait_picture(card, SOON)
}

/// Whole screens, each by a picture that the guest flushed.
fn draw_patches(tour: &mut Tour, card: &mut Image, shade: u32) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    for step in 0..PATCHES {
        let colour = (step * 8 + shade) * 0x01_01_01;
        let command = format!("patch 0 0 {} {} {colour:06x}", SIZE.0, SIZE.1 - 50);
        tour.vm.command(&command)?;
        card.fill(0, 0, SIZE.0, SIZE.1 - 50, colour);
    }
    Ok(begin.elapsed())
}

/// What it held is let go.
fn killed_viewer(
    console: &Console,
    tour: &mut Tour,
    card: &mut Image,
    server: &XServer,
) -> anyhow::Result<()> {
    let viewer = TigerVnc::start(server, &console.socket(), Encoding::Zrle, SOON)?;
    viewer.wait_picture(card, SOON)?;
    tour.gets_key(KEY_A.1, true, || viewer.press("a"))?;
    tour.gets_key(KEY_A.1, false, || viewer.signal(Signal::KILL))?;
    no_key_is_stuck(tour)?;
    server.xdotool(&["keyup", "a"])?;
    tour.patch(card, (30, 30), (60, 60), 0x65_43_21)?;
    let mut next = RfbViewer::connect(&console.socket(), SOON)?;
    tour.our_viewer(&mut next, card)
}

/// The same with the server itself.
fn killed_server(console: &mut Console, tour: &mut Tour, card: &mut Image) -> anyhow::Result<()> {
    let mut viewer = RfbViewer::connect(&console.socket(), SOON)?;
    viewer.wait_picture(card)?;
    tour.gets_key(KEY_A.1, true, || {
        let client = viewer.client();
        Ok(client.extended_key(KEY_A.0, KEY_A.1.into(), true)?)
    })?;
    tour.gets_key(KEY_A.1, false, || Ok(console.vnc.signal(Signal::KILL)?))?;
    no_key_is_stuck(tour)?;
    tour.patch(card, (70, 70), (80, 80), 0x12_34_56)?;
    console.start_server_again()?;
    let mut next = RfbViewer::connect(&console.socket(), SOON)?;
    tour.our_viewer(&mut next, card)
}

fn no_key_is_stuck(tour: &mut Tour) -> anyhow::Result<()> {
    let down = tour.vm.command(&format!("key-state {}", tour.keyboard))?;
    ensure!(down.is_empty(), "keys are stuck: {down:?}");
    Ok(())
}
