// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What viewers see, and what they type.

use anyhow::ensure;
use frontend::input::Event;

use super::{Host, PSEUDO, SOON, sees, services, shows_something};
use crate::common::{negative, pattern};

const EV_KEY: u16 = 1;
const EV_ABS: u16 = 3;
const EV_LED: u16 = 0x11;
const KEY_A: u16 = 30;
const KEYSYM_A: u32 = 0x61;
const BTN_LEFT: u16 = 0x110;
const ABS_X: u16 = 0;
const ABS_Y: u16 = 1;
const LED_CAPSL: u16 = 1;
const SIZE: (u32, u32) = (320, 200);

#[test]
fn viewer_sees_the_screen_and_uses_the_vm() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    host.is_idle("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    // Nobody looks yet.
    let [console, gpu, ..] = services("vm1");
    ensure!(host.state(&console)? == "inactive");

    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    vm.show(0, SIZE, negative);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;

    for down in [true, false] {
        viewer.key(KEYSYM_A, down)?;
        let key = Event::new(EV_KEY, KEY_A, down.into());
        ensure!(vm.keyboard.next_report()? == [key, Event::report()]);
    }
    // The last pixel, and its button.
    viewer.pointer(SIZE.0 as u16 - 1, SIZE.1 as u16 - 1, 0)?;
    let moved = vm.tablet.next_report()?;
    for axis in [ABS_X, ABS_Y] {
        let place = moved
            .iter()
            .find(|event| (event.kind, event.code) == (EV_ABS, axis));
        ensure!(place.is_some_and(|event| event.value > 32_000), "{moved:?}");
    }
    viewer.pointer(SIZE.0 as u16 - 1, SIZE.1 as u16 - 1, 1)?;
    let pressed = vm.tablet.next_report()?;
    ensure!(
        pressed.contains(&Event::new(EV_KEY, BTN_LEFT, 1)),
        "{pressed:?}"
    );
    let caps = [Event::new(EV_LED, LED_CAPSL, 1), Event::report()];
    vm.keyboard.send_status(&caps)?;
    viewer.wait_until(|viewer| viewer.leds().is_some_and(|leds| leds.caps))?;

    // What the viewer held is released when it goes, and the console ends after it.
    drop(viewer);
    let released = vm.tablet.next_report()?;
    ensure!(
        released == [Event::new(EV_KEY, BTN_LEFT, 0), Event::report()],
        "{released:?}"
    );
    host.wait_end(&console)?;
    ensure!(host.state(&gpu)? == "active", "the VM is there still");
    drop(vm);
    for service in services("vm1") {
        host.wait_end(&service)?;
    }
    Ok(())
}

/// Each socket of the unit is a screen, in their order.
#[test]
fn second_screen_has_a_socket_of_its_own() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.0.drop_in(
        "vhost-user-gpu@vm1.service",
        "[Service]\nEnvironment=OPTIONS=--resolution=640x480,800x600\n",
    )?;
    host.0.drop_in(
        "vhost-vnc@vm1.socket",
        "[Socket]\nListenStream=/run/vhost-user/vnc/vm1:1.sock\n",
    )?;
    host.add_console("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    let mut sizes = vm.gpu.get_display_info()?.into_iter();
    for size in [(640, 480), (800, 600)] {
        let info = sizes.next().unwrap_or_default();
        ensure!(
            info.enabled && (info.rect.width, info.rect.height) == size,
            "{info:?}"
        );
    }
    vm.show(0, (640, 480), pattern);
    vm.show(1, (800, 600), negative);
    let mut first = host.view("vm1")?;
    let mut second = host.view("vm1:1")?;
    first.wait_until(|viewer| sees(viewer.frame(), (640, 480), pattern))?;
    second.wait_until(|viewer| sees(viewer.frame(), (800, 600), negative))?;
    Ok(())
}

/// A VM that has not begun is shown as such, and appears once it begins.
#[test]
fn viewer_waits_for_the_vm() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    // By its own connections it started what it needs.
    for service in services("vm1") {
        host.wait(&service, "ActiveState", "active")?;
    }
    let pids = services("vm1").map(|service| host.0.property(&service, "MainPID"));
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    viewer.key(KEYSYM_A, true)?;
    let pressed = vm.keyboard.next_report()?;
    ensure!(
        pressed == [Event::new(EV_KEY, KEY_A, 1), Event::report()],
        "{pressed:?}"
    );
    // The VM came to the processes that were there.
    for (service, pid) in services("vm1").iter().zip(pids) {
        ensure!(host.0.property(service, "MainPID")? == pid?, "{service}");
    }
    // And goes: the viewer stays.
    drop(vm);
    viewer.set_limit(SOON);
    viewer.wait_until(|viewer| !sees(viewer.frame(), SIZE, pattern))?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, negative);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, negative))?;
    viewer.set_encodings(&PSEUDO)?;
    drop(viewer);
    drop(vm);
    for service in services("vm1") {
        host.wait_end(&service)?;
    }
    Ok(())
}
