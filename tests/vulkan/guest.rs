// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What an application of the guest sees.

use anyhow::ensure;

use crate::machine::Machine;

#[test]
fn guest_has_a_vulkan_device() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    let log = machine.vm.kernel_log();
    for feature in ["+virgl", "+resource_blob", "+host_visible", "+context_init"] {
        ensure!(log.contains(feature), "{feature} is not in {log}");
    }
    let info = machine.command("run /usr/bin/vulkaninfo --summary")?;
    ensure!(info.contains("Virtio-GPU Venus"), "{info}");
    machine.finish()
}

#[test]
fn memory_holds_what_the_gpu_wrote() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    for size in [1, 64] {
        let said = machine.command(&format!("run /usr/bin/vulkan-check fill {size}"))?;
        ensure!(said.contains("Virtio-GPU Venus"), "{said}");
        ensure!(said.contains(&format!("copied {size} MiB")), "{said}");
    }
    machine.finish()
}

#[test]
fn viewer_sees_what_the_guest_draws() -> anyhow::Result<()> {
    let mut machine = Machine::boot(&[])?;
    machine.draw_cube()?;
    machine.vm.reset()?;
    machine.draw_cube()?;
    machine.finish()
}
