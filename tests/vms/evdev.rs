// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-input on real evdev devices: those of a Linux guest in the role of the host.

use std::path::Path;
use std::time::Duration;

use harness::artifacts::Artifacts;
use harness::paths;
use harness::qemu::Vm;

/// Runs the checks of `evdev-check` that `argument` names.
pub(crate) fn check(argument: &str, patience: Duration) -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let mut host = Vm::builder(&artifacts)
        .device("virtio-keyboard-pci")
        .program(Path::new(env!("CARGO_BIN_EXE_vhost-user-input")))
        .program(&paths::program("evdev-check")?)
        .boot()?;
    let said = host.command_within(&format!("run /usr/bin/evdev-check{argument}"), patience)?;
    assert!(
        said.iter().any(|line| line.contains("all checks held")),
        "{said:?}"
    );
    Ok(())
}

#[test]
fn kernel_devices_are_served() -> anyhow::Result<()> {
    check("", Duration::from_secs(90))
}

/// With a key held, and with touches; under other numbers; of another kind, and another one of the same model.
#[test]
fn kernel_devices_come_back() -> anyhow::Result<()> {
    check(" replug", Duration::from_secs(240))
}

/// Without a path that lasts: the nodes of a keyboard, with other numbers each time; twins.
#[test]
fn kernel_devices_are_found_by_their_numbers() -> anyhow::Result<()> {
    check(" match", Duration::from_secs(240))
}

/// With a key held, with keys typed while no process lives, and unplugged meanwhile.
#[test]
fn kernel_devices_are_kept_while_the_program_is_killed() -> anyhow::Result<()> {
    check(" killed", Duration::from_secs(240))
}

/// By a chord, by signals, in a group, from a guest that takes no events, and by turns between two guests.
#[test]
fn kernel_devices_change_hands() -> anyhow::Result<()> {
    check(" hands", Duration::from_secs(240))
}
