//! vhost-user-input on real evdev devices: those of a Linux guest in the role of the host.

use std::path::Path;
use std::time::Duration;

use harness::artifacts::Artifacts;
use harness::paths;
use harness::qemu::Vm;

#[test]
fn kernel_devices_are_served() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let mut host = Vm::builder(&artifacts)
        .device("virtio-keyboard-pci")
        .program(Path::new(env!("CARGO_BIN_EXE_vhost-user-input")))
        .program(&paths::program("evdev-check")?)
        .boot()?;
    let said = host.command_within("run /usr/bin/evdev-check", Duration::from_secs(90))?;
    assert!(
        said.iter().any(|line| line.contains("all checks held")),
        "{said:?}"
    );
    Ok(())
}
