// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The render server is the part that a guest may break: the VM goes on without it.

use std::time::Duration;

use anyhow::ensure;
use harness::image::Image;
use rustix::process::Signal;

use crate::machine::Machine;

#[test]
fn vm_goes_on_without_its_render_server() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.command("spawn /tmp/churn /usr/bin/vulkan-check churn 3600")?;
    machine.command(
        "shell for i in $(seq 600); do grep -q device: /tmp/churn && exit; sleep 0.1; done; exit 1",
    )?;
    machine.server.signal(Signal::KILL)?;

    // A program has no device any more, and is told so.
    let checked = machine.command("shell timeout 60 vulkan-check fill 1; echo ended $?")?;
    let ended = checked.lines().find_map(|line| line.strip_prefix("ended "));
    ensure!(
        ended.is_some_and(|status| status != "0" && status != "143"),
        "{checked}"
    );
    // The screen goes on.
    machine.command("shell killall -9 vulkan-check; true")?;
    machine.command("testcard 640x480")?;
    let card = Image::test_card(640, 480);
    machine.viewer()?.wait_picture(&card)?;
    // Said once.
    let said = machine.gpu.stderr();
    ensure!(said.matches("render server").count() < 4, "{said}");
    // So does the next boot of the guest.
    machine.vm.reset()?;
    machine.command("testcard 640x480")?;
    machine.viewer()?.wait_picture(&card)?;
    machine.finish()
}

#[test]
fn program_whose_process_of_the_server_crashes_is_the_only_one() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.command("spawn /tmp/churn /usr/bin/vulkan-check churn 3600")?;
    machine.command(
        "shell for i in $(seq 600); do grep -q device: /tmp/churn && exit; sleep 0.1; done; exit 1",
    )?;
    let crashed = machine.server.signal_contexts(Signal::SEGV)?;
    ensure!(crashed > 0, "{}", machine.said());
    std::thread::sleep(Duration::from_secs(2));
    // Nothing turns in a circle for it.
    let before = machine.gpu.cpu_time()?;
    std::thread::sleep(Duration::from_secs(2));
    let spent = machine.gpu.cpu_time()?.saturating_sub(before);
    ensure!(
        spent < Duration::from_secs(1),
        "{spent:?}: {}",
        machine.said()
    );
    let said = machine.command("run /usr/bin/vulkan-check fill 1")?;
    ensure!(said.contains("copied 1 MiB"), "{said}");
    machine.finish()
}

#[test]
fn hung_render_server_leaves_the_screen_alone() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.command("run /usr/bin/vulkan-check fill 1")?;
    machine.server.signal(Signal::STOP)?;
    machine.command("spawn /tmp/fill /usr/bin/vulkan-check fill 1")?;
    std::thread::sleep(Duration::from_secs(2));
    machine.command("testcard 640x480")?;
    let card = Image::test_card(640, 480);
    machine.viewer()?.wait_picture(&card)?;
    machine.server.signal(Signal::CONT)?;
    machine.finish()
}
