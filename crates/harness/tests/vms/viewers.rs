// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The viewers, on QEMU's own VNC server. A failure here is not our console's fault.

use std::time::Duration;

use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::viewers::{RfbViewer, Tour};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn every_viewer_shows_the_guest_and_types() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("vnc.sock");
    let words = ["-vnc".to_owned(), format!("unix:{}", socket.display())];
    let mut vm = Vm::builder(&artifacts)
        .device("virtio-gpu-pci,id=gpu")
        .device("virtio-keyboard-pci")
        .device("virtio-tablet-pci")
        .arguments(&words)
        .boot()?;
    let mut tour = Tour::of(&mut vm, &socket, |_| true)?;
    // QEMU presses no Shift of its own accord.
    tour.by_keysym = "Hello, World 42";
    tour.all()?;
    let card = tour.draw(1024, 768)?;
    tour.our_viewer(&mut RfbViewer::connect(&socket, SOON)?, &card)
}
