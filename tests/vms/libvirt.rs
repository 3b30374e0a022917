// SPDX-License-Identifier: Apache-2.0 OR MIT
//! libvirt finds vhost-user-gpu by its descriptor and starts it itself, for a guest that draws.

use std::time::{Duration, Instant};

use anyhow::ensure;
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::libvirt::{DomainParts, Libvirt};
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);

#[test]
fn domain_with_a_vhostuser_video_has_our_gpu() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = staging::stage()?;
    // QEMU's own descriptors would come after ours.
    let host = Sandbox::start(&[staging.path()])?;
    Libvirt::install(&host, &artifacts)?;
    let mut libvirt = Libvirt::start(&host)?;
    let video = "<video><driver name='vhostuser'/><model type='virtio' heads='1'/></video>";
    let parts = DomainParts {
        devices: video,
        ..DomainParts::default()
    };
    let mut guest = libvirt.boot(&artifacts, parts)?;
    let backend = host.exec(["ps", "-o", "user:20=,args=", "-C", "vhost-user-gpu"])?;
    let backend = String::from_utf8_lossy(&backend.stdout).into_owned();
    assert!(backend.starts_with("libvirt-qemu "), "{backend}");
    assert!(
        backend.contains("/usr/bin/vhost-user-gpu --fd="),
        "{backend}"
    );

    guest.start("testcard 800x600")?.finish(SOON)?;
    libvirt.wait_screenshot(&Image::test_card(800, 600), SOON)?;
    libvirt.destroy()?;
    // libvirt ends it by SIGTERM, and by SIGKILL after ten seconds.
    let deadline = Instant::now() + SOON;
    while host
        .exec(["pgrep", "-x", "vhost-user-gpu"])?
        .status
        .success()
    {
        ensure!(Instant::now() < deadline, "the backend is there still");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
