// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A real QEMU whose GPU is a unit: systemd listens, QEMU connects, and the service serves the guest until QEMU ends.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::image::Image;
use harness::qemu::Vm;
use harness::staging;
use harness::systemd::Sandbox;

const SOON: Duration = Duration::from_secs(60);
const SOCKET_UNIT: &str = "vhost-user-gpu@vm1.socket";
const SERVICE: &str = "vhost-user-gpu@vm1.service";

#[test]
fn started_socket_serves_one_guest_after_another() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = staging::stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    host.systemctl(&["start", SOCKET_UNIT])?;
    let state = host.property(SERVICE, "ActiveState")?;
    ensure!(state == "inactive", "without a front-end: {state}");
    let socket = host.path("/run/vhost-user/gpu/vm1.sock");
    for size in [(640, 480), (800, 600)] {
        let mut vm = Vm::builder(&artifacts)
            .gpu_socket(&socket)
            .boot()
            .with_context(|| host.journal(&["--unit", SERVICE]).unwrap_or_default())?;
        let state = host.property(SERVICE, "ActiveState")?;
        ensure!(state == "active", "with a guest: {state}");
        vm.command(&format!("testcard {}x{}", size.0, size.1))?;
        vm.wait_screen(&Image::test_card(size.0, size.1), SOON)?;
        drop(vm);
        host.wait_property(SERVICE, "ActiveState", "inactive", SOON)?;
        let result = host.property(SERVICE, "Result")?;
        ensure!(result == "success", "after QEMU ended: {result}");
    }
    Ok(())
}
