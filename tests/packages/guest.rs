// SPDX-License-Identifier: Apache-2.0 OR MIT
//! From `apt install` to a guest that is seen and used through its console.

use std::fs;

use anyhow::{Context as _, bail, ensure};
use harness::artifacts::Artifacts;
use harness::documents::first_lines;
use harness::image::Image;
use harness::qemu::Vm;
use harness::viewers::{RfbViewer, Tour};

use crate::machine::{Machine, SOON};

const SCREEN: (u32, u32) = (800, 600);
const VNC: &str = "/run/vhost-user/vnc/vm1.sock";

#[test]
fn guest_on_debian_12_is_seen_and_used() -> anyhow::Result<()> {
    guest_is_seen_and_used("bookworm")
}

#[test]
fn guest_on_debian_13_is_seen_and_used() -> anyhow::Result<()> {
    guest_is_seen_and_used("trixie")
}

/// The four lines of the README. QEMU is the one of all tests, and the viewer our own.
fn guest_is_seen_and_used(release: &str) -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let machine = Machine::boot(release)?;
    let lines = first_lines()?;
    let [add, qemu, view, screenshot] = &lines[..] else {
        bail!("the README does not begin with four lines");
    };
    machine.install("deb")?;
    machine.sh(add)?;
    let (_, arguments) = qemu.split_once("$(").context("no $( in QEMU's line")?;
    let arguments = arguments.trim_end_matches(')');
    let line = machine.run(arguments)?;
    ensure!(line.status.success(), "{line:?}");
    let words = machine
        .sandbox
        .words_outside(&String::from_utf8(line.stdout)?)?;
    let services = ["vhost-user-gpu@vm1", "vhost-user-input@vm1:keyboard"];
    let said = || services.map(|service| machine.said(service)).concat();
    let mut vm = Vm::builder(&artifacts)
        .arguments(&words)
        .boot()
        .with_context(said)?;
    for service in services {
        machine.sandbox.wait_property(
            &format!("{service}.service"),
            "ActiveState",
            "active",
            SOON,
        )?;
    }
    let (width, height) = SCREEN;
    vm.command(&format!("testcard {width}x{height}"))?;
    let screen = vm
        .wait_screen(&Image::test_card(width, height), SOON)
        .with_context(said)?;
    let console = machine.sandbox.path(VNC);
    let mut viewer = RfbViewer::connect(&console, SOON)?;
    let mut tour = Tour::of(&mut vm, &console, |name| name.starts_with("vhost-user "))?;
    tour.our_viewer(&mut viewer, &screen).with_context(said)?;

    let viewed = machine.sh(&format!("VHOSTCTL_VIEWER=echo {view}"))?;
    ensure!(viewed.trim_end() == VNC, "{viewed}");
    machine.sh(&format!("cd /root && {screenshot}"))?;
    let saved = fs::read(machine.sandbox.path("/root/screen.png"))?;
    let difference = Image::from_png(&saved)?.difference(&viewer.picture()?);
    ensure!(difference.is_none(), "{difference:?}");
    // A viewer that stays would have its console start the programs again.
    drop(viewer);
    machine
        .sandbox
        .wait_property("vhost-vnc@vm1.service", "ActiveState", "inactive", SOON)?;
    drop(vm);
    for service in services {
        let service = format!("{service}.service");
        machine
            .sandbox
            .wait_property(&service, "ActiveState", "inactive", SOON)?;
        let result = machine.sandbox.property(&service, "Result")?;
        ensure!(result == "success", "{service}: {result}");
    }
    Ok(())
}
