// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A console of a VM whose devices cannot start: the viewer is told, and the VM is not kept from starting.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{Host, SOON, sees, services, shows_something, sockets};
use crate::common::pattern;

const SIZE: (u32, u32) = (320, 200);
const GPU: &str = "vhost-user-gpu@vm1.service";
const DISPLAY: &str = "vhost-user-display@vm1.socket";
/// StartLimitBurst= of the units.
const LIMIT: usize = 20;
/// TriggerLimitBurst= of the sockets of display and events.
const TRIGGERS: usize = 8;
/// TriggerLimitIntervalSec= of them, StartLimitIntervalSec= and the pause of vhost-user-retry@.service, and more.
const LATER: Duration = Duration::from_secs(150);

/// Each start closes the viewer's connection to the GPU, and the console waits longer from time to time.
#[test]
fn failing_gpu_is_tried_a_few_times_and_shown_as_failing() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.0.drop_in(
        GPU,
        "[Service]\nEnvironment=OPTIONS=--render-node=/dev/dri/renderD191\n",
    )?;
    host.add_console("vm1")?;
    let begun = Instant::now();
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    while host.starts(GPU)? < 3 {
        ensure!(begun.elapsed() < SOON, "{}", host.log(GPU));
        thread::sleep(Duration::from_millis(100));
    }
    // It waits one second, then two.
    ensure!(
        begun.elapsed() > Duration::from_millis(2500),
        "{:?}",
        begun.elapsed()
    );
    ensure!(host.0.property(DISPLAY, "SubState")? != "failed");
    ensure!(host.0.property("vhost-user-gpu@vm1.socket", "SubState")? == "listening");
    let [console, ..] = services("vm1");
    ensure!(host.starts(&console)? == 1, "{}", host.log(&console));
    // What was amiss is mended: the VM starts at once, and the viewer sees it.
    host.0.drop_in(GPU, "")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    ensure!(host.starts(&console)? == 1, "{}", host.log(&console));
    Ok(())
}

/// What never runs takes no connection: the socket of the display gives up before the service does, and the VMM can
/// still connect.
#[test]
fn console_leaves_starts_to_the_vmm() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let program = "/usr/bin/not-there-yet";
    host.0.drop_in(
        GPU,
        &format!("[Service]\nExecStart=\nExecStart={program}\n"),
    )?;
    host.add_console("vm1")?;
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    host.wait(DISPLAY, "ActiveState", "failed")?;
    ensure!(host.0.property(DISPLAY, "Result")? == "trigger-limit-hit");
    let starts = host.starts(GPU)?;
    ensure!(starts <= TRIGGERS && TRIGGERS < LIMIT, "{starts} starts");
    ensure!(host.0.property("vhost-user-gpu@vm1.socket", "SubState")? == "listening");
    // What was amiss is mended, and the VM starts at once.
    let path = host.0.path(program);
    fs::copy(host.0.path("/usr/bin/vhost-user-gpu"), &path)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    let vm = host.run_vm("vm1")?;
    ensure!(host.starts(GPU)? == starts + 1, "{}", host.log(GPU));
    drop(vm);
    // And the display comes back by itself.
    host.0
        .wait_property(DISPLAY, "SubState", "listening", LATER)?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    Ok(())
}

/// Who looks again and again while there is no VM, as a program that takes screenshots does, starts each service once,
/// and the VM that starts then is seen.
#[test]
fn viewers_that_come_and_go_start_each_service_once() -> anyhow::Result<()> {
    let host = Host::boot()?;
    host.add_console("vm1")?;
    for _ in 0..2 * LIMIT {
        let mut viewer = host.view("vm1")?;
        viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
    }
    for service in services("vm1") {
        ensure!(host.starts(&service)? == 1, "{}", host.log(&service));
    }
    for socket in sockets("vm1") {
        let state = host.0.property(&socket, "SubState")?;
        ensure!(
            ["listening", "running"].contains(&&*state),
            "{socket} is {state}"
        );
    }
    let mut viewer = host.view("vm1")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    for service in services("vm1") {
        ensure!(host.starts(&service)? == 1, "{}", host.log(&service));
    }
    Ok(())
}

/// A GPU that cannot start is not tried once for each of them.
#[test]
fn viewers_that_come_and_go_try_a_failing_gpu_now_and_then() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let broken = "[Service]\nEnvironment=OPTIONS=--render-node=/dev/dri/renderD191\n";
    host.0.drop_in(GPU, broken)?;
    host.add_console("vm1")?;
    let begun = Instant::now();
    let mut viewers = 0;
    while viewers < 2 * LIMIT || begun.elapsed() < Duration::from_secs(4) {
        let mut viewer = host.view("vm1")?;
        viewer.wait_until(|viewer| shows_something(viewer.frame()))?;
        viewers += 1;
    }
    // After 1, 2, 4 and 8 seconds, and then every 10.
    let most = 4 + begun.elapsed().as_secs() as usize / 10;
    let starts = host.starts(GPU)?;
    ensure!((2..=most).contains(&starts), "{starts} starts");
    ensure!(host.0.property(DISPLAY, "SubState")? == "listening");
    host.0.drop_in(GPU, "")?;
    let mut vm = host.run_vm("vm1")?;
    vm.show(0, SIZE, pattern);
    let mut viewer = host.view("vm1")?;
    viewer.wait_until(|viewer| sees(viewer.frame(), SIZE, pattern))?;
    Ok(())
}

/// The same for the console's own program: the viewer is told, and the next one is served once it is there.
#[test]
fn missing_console_program_closes_the_connection() -> anyhow::Result<()> {
    let host = Host::boot()?;
    let console = "vhost-vnc@vm1.service";
    host.0.drop_in(
        console,
        "[Service]\nExecStart=\nExecStart=/usr/bin/not-there-yet\n",
    )?;
    host.add_console("vm1")?;
    ensure!(host.view("vm1").is_err());
    host.wait("vhost-vnc@vm1.socket", "ActiveState", "failed")?;
    ensure!(host.starts(console)? <= LIMIT);
    host.0.drop_in(console, "")?;
    host.0
        .wait_property("vhost-vnc@vm1.socket", "SubState", "listening", LATER)?;
    host.view("vm1")?;
    Ok(())
}
