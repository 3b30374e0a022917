// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A domain of libvirt's with the devices that `libvirt-xml` prints: seen and used through its console.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::console::Console;
use harness::image::Image;
use harness::libvirt::{Daemon, DomainParts, Libvirt};
use harness::staging::stage;
use harness::systemd::Sandbox;
use harness::viewers::RfbViewer;

use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);

/// What stands between two texts.
fn part<'a>(xml: &'a str, begin: &str, end: &str) -> anyhow::Result<&'a str> {
    let (_, rest) = xml.split_once(begin).with_context(|| xml.to_owned())?;
    Ok(rest.split_once(end).with_context(|| xml.to_owned())?.0)
}

fn vhostctl(host: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let output = host.exec([&["vhostctl"], arguments].concat())?;
    ensure!(
        output.status.success(),
        "{arguments:?}: {}",
        stderr(&output)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// QEMU's arguments of what `libvirt-xml` printed, with their element.
fn elements(xml: &str) -> anyhow::Result<String> {
    let arguments = part(xml, "<qemu:commandline>", "</qemu:commandline>")?;
    Ok(format!("<qemu:commandline>{arguments}</qemu:commandline>"))
}

/// What `libvirt-xml` printed.
fn printed<'a>(xml: &'a str, elements: &'a str) -> anyhow::Result<DomainParts<'a>> {
    let attributes = "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'";
    ensure!(xml.contains(attributes), "{xml}");
    Ok(DomainParts {
        attributes,
        devices: part(xml, "<devices>", "</devices>")?,
        elements,
    })
}

fn show_card(guest: &mut Console, (width, height): (u32, u32)) -> anyhow::Result<Image> {
    let command = format!("testcard {width}x{height}");
    guest.start(&command)?.finish(SOON)?;
    Ok(Image::test_card(width, height))
}

/// The viewer stays while the domain is off and when it is on again.
#[test]
fn domain_with_the_printed_devices_is_seen_and_used() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    Libvirt::install(&sandbox, &artifacts)?;
    // libvirt's QEMU is another user, who may connect without any option.
    vhostctl(&sandbox, &["add", "console", "vm1", "--now"])?;
    let xml = vhostctl(&sandbox, &["libvirt-xml", "vm1"])?;
    let elements = elements(&xml)?;
    let parts = printed(&xml, &elements)?;

    let mut viewer = RfbViewer::connect(&sandbox.path("/run/vhost-user/vnc/vm1.sock"), SOON)?;
    let mut libvirt = Libvirt::start(&sandbox)?;
    for size in [(800, 600), (640, 480)] {
        let mut guest = libvirt.boot(&artifacts, parts)?;
        let card = show_card(&mut guest, size)?;
        viewer.wait_picture(&card)?;
        libvirt.wait_screenshot(&card, SOON)?;
        let typed = guest.start("keys 2 vhost-user keyboard")?;
        typed.expect("listening", SOON)?;
        viewer.type_text("a")?;
        typed.expect("key 30 1", SOON)?;
        typed.expect("key 30 0", SOON)?;
        typed.finish(SOON)?;
        let shown = viewer.client().frame().bytes().to_vec();
        libvirt.destroy()?;
        viewer
            .client()
            .wait_until(|viewer| viewer.frame().bytes() != shown)?;
    }
    drop(viewer);
    for unit in ["vhost-user-gpu@vm1.service", "vhost-vnc@vm1.service"] {
        sandbox.wait_property(unit, "ActiveState", "inactive", SOON)?;
        assert_eq!(sandbox.property(unit, "Result")?, "success", "{unit}");
    }
    Ok(())
}

/// With libvirt's own daemon: domains that were defined start again on the same devices once the host has booted.
#[test]
fn domains_of_the_system_daemon_start_again_after_a_reboot() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let mut host = Sandbox::start(&[staging.path()])?;
    let daemon = Daemon::install(&host, &artifacts)?;
    let video = DomainParts {
        devices: "<video><driver name='vhostuser'/><model type='virtio' heads='1'/></video>",
        ..DomainParts::default()
    };
    daemon.define("described", &artifacts, video)?;
    vhostctl(&host, &["add", "console", "vm1", "--now"])?;
    vhostctl(&host, &["enable", "vm1"])?;
    let xml = vhostctl(&host, &["libvirt-xml", "vm1"])?;
    daemon.define("printed", &artifacts, printed(&xml, &elements(&xml)?)?)?;
    domains_work(&host, &artifacts, (800, 600))?;
    host = host.reboot(&[staging.path()])?;
    domains_work(&host, &artifacts, (640, 480))
}

fn domains_work(host: &Sandbox, artifacts: &Artifacts, size: (u32, u32)) -> anyhow::Result<()> {
    let daemon = Daemon::after_boot(host, artifacts)?;
    // Our GPU, found by its descriptor and started by libvirt.
    let mut guest = daemon.start("described")?;
    let card = show_card(&mut guest, size)?;
    daemon.wait_screenshot("described", &card, SOON)?;
    daemon.virsh(&["destroy", "described"])?;
    // And the units' devices.
    let socket = host.path("/run/vhost-user/vnc/vm1.sock");
    let mut viewer = RfbViewer::connect(&socket, SOON)?;
    let mut guest = daemon.start("printed")?;
    let card = show_card(&mut guest, size)?;
    viewer.wait_picture(&card)?;
    let typed = guest.start("keys 2 vhost-user keyboard")?;
    typed.expect("listening", SOON)?;
    viewer.type_text("a")?;
    typed.expect("key 30 1", SOON)?;
    typed.finish(SOON)?;
    daemon.virsh(&["destroy", "printed"])?;
    // It waits for the VM's next start.
    drop(viewer);
    let service = "vhost-user-gpu@vm1.service";
    host.wait_property(service, "ActiveState", "inactive", SOON)?;
    ensure!(host.property(service, "Result")? == "success");
    Ok(())
}
