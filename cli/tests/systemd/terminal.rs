// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Completion candidates and log excerpts cannot steer root's terminal, under a real systemd.

use std::fs;
use std::path::Path;

use crate::common::have;
use anyhow::ensure;
use harness::staging::stage;
use harness::systemd::Sandbox;

const EVIL: &str = "/run/evil.umockdev";

/// What a verb says on either way, where an evil keyboard is plugged in.
fn said(sandbox: &Sandbox, arguments: &[&str]) -> anyhow::Result<String> {
    let mock = ["umockdev-run", "--device", EVIL, "--", "vhostctl"];
    let output = sandbox.exec([&mock[..], arguments].concat())?;
    Ok(String::from_utf8([output.stdout, output.stderr].concat())?)
}

/// Fails if a terminal would do something else than show it.
fn harmless(text: &str) -> anyhow::Result<()> {
    let steers = text.contains(|c: char| c.is_control() && c != '\n');
    ensure!(!steers, "{text:?}");
    Ok(())
}

#[test]
fn names_and_log_lines_cannot_steer_the_terminal() -> anyhow::Result<()> {
    if !have("umockdev-run", "package umockdev") {
        return Ok(());
    }
    let staging = stage()?;
    let sandbox = Sandbox::start(&[staging.path()])?;
    let mock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock/evil.umockdev");
    sandbox.write(EVIL, &fs::read_to_string(mock)?)?;
    let text = said(&sandbox, &["add", "input", "vm1", "keyboard"])?;
    ensure!(
        text.contains(r"Evil \x1b]0;pwned\x07\x1b[2J\x1b[31mKeyboard"),
        "{text:?}"
    );
    harmless(&text)?;

    // A line that looks like another one of ours, and colours.
    let script = r"printf 'out \033[31mof luck\033[2J\nFailed to do that\n' >&2; exit 3";
    sandbox.drop_in(
        "vhost-user-gpu@.socket",
        &format!(
            "[Socket]\nExecStartPre=/bin/sh -c \"{}\"\n",
            script.replace('\\', r"\\")
        ),
    )?;
    let add = said(&sandbox, &["add", "gpu", "vm1", "--now"])?;
    ensure!(add.contains(r"out \x1b[31mof luck\x1b[2J"), "{add:?}");
    harmless(&add)?;
    said(&sandbox, &["add", "gpu", "vm1"])?;
    for verb in [
        &["start", "vm1"][..],
        &["status", "vm1", "--full"],
        &["log", "--no-pager"],
    ] {
        let text = said(&sandbox, verb)?;
        ensure!(!text.is_empty(), "{verb:?}");
        harmless(&text)?;
    }
    Ok(())
}
