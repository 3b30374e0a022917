// SPDX-License-Identifier: Apache-2.0 OR MIT
//! An unpacked QEMU uses nothing that is installed.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::Context as _;
use harness::artifacts::Artifacts;
use harness::systemd::Sandbox;

/// Modules that the unpacked packages lack.
const MODULES: [&str; 3] = ["ui-opengl", "ui-spice-core", "hw-display-virtio-gpu-gl"];
/// To list its types, QEMU loads all modules that it finds.
const COMMANDS: &str = r#"{"execute":"qmp_capabilities"}
{"execute":"qom-list-types"}
{"execute":"quit"}
"#;

#[test]
fn unpacked_qemu_ignores_installed_modules() -> anyhow::Result<()> {
    let artifacts = Artifacts::obtain(&mut |step| eprintln!("{step}"))?;
    // An installed one may use what is installed.
    let Some(root) = &artifacts.qemu.root else {
        return Ok(());
    };
    let sandbox = Sandbox::start(&[])?;
    sandbox.bring(root)?;
    for module in MODULES {
        let path = format!("/usr/lib/x86_64-linux-gnu/qemu/{module}.so");
        sandbox.write(&path, "of another version")?;
    }
    let qemu = artifacts.qemu.command();
    let mut words = vec![OsString::from("env")];
    for (name, value) in qemu.get_envs() {
        let mut word = name.to_owned();
        word.push("=");
        word.push(value.unwrap_or_default());
        words.push(word);
    }
    words.push(qemu.get_program().to_owned());
    words.extend(qemu.get_args().map(ToOwned::to_owned));
    let mut child = sandbox
        .command(words)
        .args(["-machine", "none", "-nodefaults", "-display", "none"])
        .args(["-qmp", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("QEMU takes no commands")?;
    stdin.write_all(COMMANDS.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for module in MODULES {
        assert!(!said.contains(module), "{said}");
    }
    let types = String::from_utf8_lossy(&output.stdout);
    assert!(types.contains("vhost-user-gpu-pci"), "{types}");
    Ok(())
}
