//! A domain of libvirt's with the devices that `libvirt-xml` prints: seen and used through its console.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::libvirt::{DomainParts, Libvirt};
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

/// The viewer stays while the domain is off and when it is on again.
#[test]
fn domain_with_the_printed_devices_is_seen_and_used() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    Libvirt::install(&sandbox, &artifacts)?;
    let vhostctl = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = sandbox.exec([&["vhostctl"], arguments].concat())?;
        ensure!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        Ok(String::from_utf8(output.stdout)?)
    };
    // libvirt's QEMU is another user, who may connect without any option.
    vhostctl(&["add", "console", "vm1", "--now"])?;
    let xml = vhostctl(&["libvirt-xml", "vm1"])?;
    let arguments = part(&xml, "<qemu:commandline>", "</qemu:commandline>")?;
    let elements = format!("<qemu:commandline>{arguments}</qemu:commandline>");
    let parts = DomainParts {
        attributes: "xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'",
        devices: part(&xml, "<devices>", "</devices>")?,
        elements: &elements,
    };
    ensure!(xml.contains(parts.attributes), "{xml}");

    let mut viewer = RfbViewer::connect(&sandbox.path("/run/vhost-user/vnc/vm1.sock"), SOON)?;
    let mut libvirt = Libvirt::start(&sandbox)?;
    for size in [(800, 600), (640, 480)] {
        let mut guest = libvirt.boot(&artifacts, parts)?;
        let card = Image::test_card(size.0, size.1);
        guest
            .start(&format!("testcard {}x{}", size.0, size.1))?
            .finish(SOON)?;
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
