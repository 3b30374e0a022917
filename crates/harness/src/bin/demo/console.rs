// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest, seen and used through its console.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use harness::image::Image;
use harness::qemu::Vm;
use harness::systemd::Sandbox;
use harness::viewers::{RfbViewer, TEXT, Tour};

use crate::{Clock, SOON, vhostctl};

const SERVICE: &str = "vhost-vnc@demo.service";
/// Where the console speaks RFB.
pub(crate) const SOCKET: &str = "/run/vhost-user/vnc/demo.sock";

/// Looks at `screen` by RFB and by `vhostctl screenshot`, types and clicks; returns what a viewer sees.
pub(crate) fn show(
    vm: &mut Vm,
    sandbox: &Sandbox,
    screen: &Image,
    clock: &Clock,
) -> anyhow::Result<Image> {
    let mut viewer = RfbViewer::connect(&sandbox.path(SOCKET), SOON)?;
    let mut tour = Tour::of(vm, &sandbox.path(SOCKET), is_virtual)?;
    tour.our_viewer(&mut viewer, screen)?;
    clock.say(&format!(
        "a viewer on {SOCKET} sees the same by VNC; it typed {TEXT:?} and clicked, the guest got exactly that"
    ));
    clock.say(&format!("{SERVICE}: {:?}", status(sandbox)?));

    let png = vhostctl(sandbox, &["screenshot", "demo", "-"])?;
    let picture = Image::from_png(&png).context("vhostctl screenshot")?;
    let difference = picture.difference(screen);
    ensure!(
        difference.is_none(),
        "vhostctl screenshot: {}",
        difference.unwrap_or_default()
    );
    clock.say("vhostctl screenshot demo: the same picture");
    viewer.picture()
}

/// What the service says of who looks: now and then, so that viewers that come and go cost nothing.
fn status(sandbox: &Sandbox) -> anyhow::Result<String> {
    let deadline = Instant::now() + SOON;
    loop {
        let status = sandbox.property(SERVICE, "StatusText")?;
        if !status.starts_with("nobody") {
            return Ok(status);
        }
        ensure!(Instant::now() < deadline, "{SERVICE} says {status:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a device of the guest is one of the console's.
fn is_virtual(name: &str) -> bool {
    name.starts_with("vhost-user ")
}
