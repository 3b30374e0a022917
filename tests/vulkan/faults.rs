// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The render server is the part that a guest may break: the VM goes on without it.

use std::time::Duration;

use anyhow::ensure;
use harness::image::Image;
use rustix::process::Signal;

use crate::machine::Machine;

/// Has a program use Vulkan without end, and waits until it does.
fn begin_churn(machine: &mut Machine) -> anyhow::Result<()> {
    machine.command("spawn /tmp/churn /usr/bin/vulkan-check churn 3600")?;
    machine.command(
        "shell for i in $(seq 600); do grep -q device: /tmp/churn && exit; sleep 0.1; done; exit 1",
    )?;
    Ok(())
}

#[test]
fn programs_that_start_after_a_render_server_ended_get_a_new_one() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    let card = Image::test_card(640, 480);
    for round in 1..=3 {
        begin_churn(&mut machine)?;
        machine.server.signal(Signal::KILL)?;
        // The screen goes on.
        machine.command("testcard 640x480")?;
        machine.viewer()?.wait_picture(&card)?;
        // The next server is not waited for before its time.
        std::thread::sleep(Duration::from_secs(1 << (round - 1)));
        let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
        ensure!(
            said.contains("copied 4 MiB"),
            "{round}: {said}\n{}",
            machine.said()
        );
        machine.command("shell killall -9 vulkan-check; true")?;
    }
    // Each end is said once.
    let said = machine.gpu.stderr();
    ensure!(
        said.matches("has ended: the guest's").count() == 3,
        "{said}"
    );
    // So does the next boot of the guest.
    machine.vm.reset()?;
    let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
    ensure!(said.contains("copied 4 MiB"), "{said}");
    machine.command("testcard 640x480")?;
    machine.viewer()?.wait_picture(&card)?;
    machine.finish()
}

#[test]
fn vm_goes_on_without_a_render_server() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    begin_churn(&mut machine)?;
    machine.server.refuse()?;
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
    machine.finish()
}

#[test]
fn program_whose_process_of_the_server_crashes_is_the_only_one() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    begin_churn(&mut machine)?;
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

#[test]
fn render_server_that_hangs_for_long_is_followed_by_a_new_one() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.command("run /usr/bin/vulkan-check fill 1")?;
    machine.server.signal(Signal::STOP)?;
    machine.command("spawn /tmp/fill /usr/bin/vulkan-check fill 1")?;
    machine.gpu.wait_stderr("does not answer: ")?;
    machine.command("shell killall -9 vulkan-check; true")?;
    let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
    ensure!(said.contains("copied 4 MiB"), "{said}");
    machine.server.signal(Signal::CONT)?;
    machine.finish()
}
