// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VM with Vulkan as an administrator sets it up: by two commands, on units.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::artifacts::Artifacts;
use harness::qemu::Vm;
use harness::staging::stage;
use harness::systemd::Sandbox;
use harness::vulkan;

use crate::machine::PATIENTLY;

const SOON: Duration = Duration::from_secs(60);
const GPU: &str = "vhost-user-gpu@vm1.service";
const SERVER: &str = "vhost-render-server@vm1.service";

#[test]
fn vhostctl_gives_a_vm_vulkan_in_one_command() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let staging = stage()?;
    let host = Sandbox::start(&[staging.path()])?;
    let run = |words: &[&str]| -> anyhow::Result<String> {
        let output = host.exec(words)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{words:?}: {said}");
        Ok(String::from_utf8(output.stdout)? + &said)
    };
    let said = run(&["vhostctl", "add", "console", "vm1", "--vulkan", "--now"])?;
    ensure!(said.contains("rendered by software"), "{said}");
    let journal = || {
        host.journal(&["--output=cat", "--lines=60"])
            .unwrap_or_default()
    };

    // The units of the next VM are made while this one runs.
    for _ in 0..2 {
        let line = run(&["vhostctl", "qemu-args", "vm1", "--memory=1536"])?;
        ensure!(!line.contains("newer"), "this QEMU is new enough: {line}");
        let words = host.words_outside(&line)?;
        let guest = Vm::builder(&artifacts).arguments(&words);
        let mut vm = vulkan::add_to(guest)?.boot().with_context(journal)?;
        let mut command = |words: &str| {
            let said = vm.command_within(words, PATIENTLY);
            Ok::<_, anyhow::Error>(said.with_context(journal)?.join("\n"))
        };
        let info = command("run /usr/bin/vulkaninfo --summary")?;
        ensure!(info.contains("Virtio-GPU Venus (llvmpipe"), "{info}");
        let said = command("run /usr/bin/vulkan-check fill 16")?;
        ensure!(said.contains("copied 16 MiB"), "{said}");
        assert_eq!(host.property(SERVER, "ActiveState")?, "active");
        let cache = run(&["ls", "-A", "/var/cache/private/vhost-render-server/vm1"])?;
        ensure!(!cache.is_empty(), "no shader was kept");
        // The socket's unit starts the next one.
        run(&["systemctl", "kill", "--signal=KILL", SERVER])?;
        host.wait_property(SERVER, "ActiveState", "active", SOON)?;
        let said = command("run /usr/bin/vulkan-check fill 4")?;
        ensure!(said.contains("copied 4 MiB"), "{said}");
        drop(vm);
        for unit in [GPU, SERVER] {
            host.wait_property(unit, "ActiveState", "inactive", SOON)?;
            assert_eq!(
                host.property(unit, "Result")?,
                "success",
                "{unit}: {}",
                journal()
            );
        }
    }
    let said = run(&["vhostctl", "remove", "vm1"])?;
    ensure!(
        said.contains("Deleted /var/cache/vhost-render-server/vm1."),
        "{said}"
    );
    let left = run(&["find", "/var/cache", "-name", "vm1"])?;
    ensure!(left.is_empty(), "{left}");
    assert_eq!(
        run(&["sh", "-c", "ls -d /etc/systemd/system/vhost*; true"])?
            .lines()
            .count(),
        1
    );
    Ok(())
}
