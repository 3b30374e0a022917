// SPDX-License-Identifier: Apache-2.0 OR MIT
//! QEMU as the user of libvirt's package can connect to the sockets; QEMU in group kvm cannot.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::ensure;
use harness::artifacts::Artifacts;
use harness::mock::MOUSE;

use crate::common::host::Host;
use crate::common::stderr;

const EMULATOR: &str = "/usr/local/bin/emulator";
const USERS: &str = "grep -q ^kvm: /etc/group || echo kvm:x:107: >>/etc/group; \
                     sed -i '/^libvirt-qemu:/d' /etc/passwd; rm -f /etc/libvirt/qemu.conf; \
                     echo libvirt-qemu:x:64055:64055::/:/bin/false >>/etc/passwd";

#[test]
fn qemu_of_libvirts_user_connects_and_one_of_group_kvm_does_not() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    let host = Host::new(&[MOUSE])?;
    let sandbox = &host.sandbox;
    let qemu = &artifacts.qemu;
    // An installed one is inside already.
    if let Some(root) = &qemu.root {
        sandbox.bring(root)?;
    }
    sandbox.write(EMULATOR, &qemu.script())?;
    fs::set_permissions(sandbox.path(EMULATOR), fs::Permissions::from_mode(0o755))?;
    sandbox.exec(["sh", "-c", USERS])?;
    host.ok(&["add", "input", "vm1", "mouse"])?;
    if let Some(mock) = &host.mock {
        sandbox.drop_in("vhost-user-input@vm1:mouse.service", &mock.drop_in())?;
    }
    host.ok(&["start", "vm1"])?;
    let words = host.ok(&["qemu-args", "vm1", "--memory=64M"])?;
    let start = |user: u32, group: &str| {
        let commands = "{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"quit\"}\n";
        let script = format!(
            "printf '%s' '{commands}' | setpriv --reuid={user} --regid=2000 --groups={group} --bounding-set=-all \
             {EMULATOR} -machine q35 -accel tcg -nodefaults -display none -S -qmp stdio {words}"
        );
        sandbox.exec(["sh", "-c", &script])
    };
    let output = start(2001, "$(getent group kvm | cut -d: -f3)")?;
    let said = stderr(&output);
    ensure!(
        !output.status.success()
            && said.contains(
                "Failed to connect to '/run/vhost-user/input/vm1:mouse.sock': Permission denied"
            ),
        "{said}"
    );
    let output = start(64055, "2000")?;
    ensure!(output.status.success(), "{}", stderr(&output));
    Ok(())
}
