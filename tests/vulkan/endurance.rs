// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Memory of the host is mapped and unmapped again and again, while the VM is paused, reset, and its driver reloaded: requests
//! that QEMU has not answered yet must not come while it stops the device.

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;

use crate::machine::Machine;

const PAUSES: u32 = 200;
/// Longer than any of these tests.
const CHURN: &str = "spawn /tmp/churn /usr/bin/vulkan-check churn 3600";

/// Whether a program has the GPU open. One that ended is a zombie for ever, which has nothing open.
const IS_OPEN: &str = "ls -l /proc/[0-9]*/fd 2>/dev/null | grep -q /dev/dri";

/// Begins to map and unmap, and waits until the guest does.
fn begin(machine: &mut Machine) -> anyhow::Result<()> {
    machine.command(CHURN)?;
    let wait = "shell for i in $(seq 1200); do grep -q device: /tmp/churn && exit; sleep 0.1; done; cat /tmp/churn; exit 1";
    machine.command(wait)?;
    // Some rounds.
    thread::sleep(Duration::from_secs(1));
    Ok(())
}

/// Checks that the guest still does, and ends it.
fn end(machine: &mut Machine) -> anyhow::Result<()> {
    machine.command(&format!("shell {IS_OPEN} || {{ cat /tmp/churn; exit 1; }}"))?;
    let wait = format!("shell killall -9 vulkan-check; while {IS_OPEN}; do sleep 0.1; done");
    machine.command(&wait)?;
    Ok(())
}

#[test]
fn guest_that_maps_memory_may_be_paused_at_any_moment() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    begin(&mut machine)?;
    for pause in 0..PAUSES {
        machine.vm.qmp("stop", Value::Null)?;
        // None, and up to some milliseconds.
        thread::sleep(Duration::from_micros(u64::from(pause % 8) * 500));
        machine.vm.qmp("cont", Value::Null)?;
        thread::sleep(Duration::from_millis(u64::from(pause % 16)));
    }
    end(&mut machine)?;
    let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
    ensure!(said.contains("copied 4 MiB"), "{said}");
    machine.finish()
}

#[test]
fn guest_that_maps_memory_may_be_reset() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    for _ in 0..3 {
        begin(&mut machine)?;
        machine.vm.reset()?;
    }
    let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
    ensure!(said.contains("copied 4 MiB"), "{said}");
    machine.finish()
}

#[test]
fn driver_may_be_reloaded_after_a_program_that_mapped_memory() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    for _ in 0..3 {
        begin(&mut machine)?;
        // Linux 7.2 oopses if a program still has the device open.
        end(&mut machine)?;
        machine.command("reload-driver virtio_gpu")?;
        let said = machine.command("run /usr/bin/vulkan-check fill 4")?;
        ensure!(said.contains("copied 4 MiB"), "{said}");
    }
    machine.finish()
}
