// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An unprivileged user, with and without a polkit rule.

use std::process::Output;

use harness::staging::stage;
use harness::systemd::Sandbox;

use crate::common::{have, stderr};

const SOCKET: &str = "vhost-user-gpu@vm1.socket";

/// Runs vhostctl as a user with no rights.
fn as_nobody(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<Output> {
    let user = [
        "setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
        "vhostctl",
    ];
    sandbox.exec([&user[..], arguments].concat())
}

#[test]
fn unprivileged_user_needs_a_rule() -> anyhow::Result<()> {
    if !have("pkcheck", "package polkitd") {
        return Ok(());
    }
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let root = sandbox.exec(["vhostctl", "add", "gpu", "vm1"])?;
    assert!(root.status.success(), "{}", stderr(&root));

    // To see what there is, nobody is asked.
    for verb in [
        &["list"][..],
        &["status", "vm1"],
        &["list-devices"],
        &["list-backends"],
        &["qemu-args", "vm1"],
    ] {
        let output = as_nobody(&sandbox, verb)?;
        assert!(
            matches!(output.status.code(), Some(0 | 3)),
            "{verb:?}: {}",
            stderr(&output)
        );
    }
    // One reason is told once, of however many units.
    let root = sandbox.exec(["vhostctl", "add", "console", "vm3"])?;
    assert!(root.status.success(), "{}", stderr(&root));
    let output = as_nobody(&sandbox, &["--no-ask-password", "start", "vm3"])?;
    let said = stderr(&output);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(" other units: "), "{said}");
    for verb in ["start", "stop", "restart", "enable", "disable"] {
        for asked in [&["--no-ask-password"][..], &[]] {
            let output = as_nobody(&sandbox, &[asked, &[verb, "vm1"]].concat())?;
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(4), "{verb}: {said}");
            assert!(
                said.contains("root") && said.contains("polkit"),
                "{verb}: {said}"
            );
            assert!(!said.contains("reload"), "{verb}: {said}");
        }
    }
    for arguments in [&["add", "gpu", "vm2"][..], &["remove", "vm1"]] {
        let output = as_nobody(&sandbox, arguments)?;
        assert_eq!(
            output.status.code(),
            Some(4),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(stderr(&output).contains("root"), "{}", stderr(&output));
    }
    assert_eq!(sandbox.property(SOCKET, "ActiveState")?, "inactive");

    sandbox.write(
        "/etc/polkit-1/rules.d/10-vms.rules",
        r#"polkit.addRule(function(action, subject) {
            if (action.id == "org.freedesktop.systemd1.manage-units" && subject.user == "nobody" &&
                action.lookup("unit").indexOf("vhost-user-") == 0) {
                return polkit.Result.YES;
            }
        });"#,
    )?;
    sandbox.systemctl(&["restart", "polkit.service"])?;
    for (verb, state) in [
        ("start", "active"),
        ("restart", "active"),
        ("stop", "inactive"),
    ] {
        let output = as_nobody(&sandbox, &[verb, "vm1"])?;
        assert!(output.status.success(), "{verb}: {}", stderr(&output));
        assert_eq!(sandbox.property(SOCKET, "ActiveState")?, state, "{verb}");
    }
    let output = as_nobody(&sandbox, &["disable", "vm1"])?;
    assert_eq!(
        output.status.code(),
        Some(4),
        "the rule is for units, not for their files"
    );
    Ok(())
}
