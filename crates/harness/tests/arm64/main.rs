// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The programs on an arm64 host, which QEMU emulates: "make check-arm64" builds them for it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use harness::arm64_host::{Files, Host, program};
use harness::paths::{build_dir, source_root};
use harness::staging;
use serde_json::{Value, json};

/// Where nextest has listed the tests that are built for arm64.
const TESTS: &str = "target/cross-tests.json";
/// An emulated processor on a busy machine.
const SOON: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(900);

/// What the kernel logs when a system call ends a program or is logged (audit's AUDIT_SECCOMP).
const REFUSED_CALL: &str = "type=1326";

/// The file of a test program, by nextest's name for it.
fn test_program(id: &str) -> anyhow::Result<PathBuf> {
    let path = build_dir().join(TESTS);
    let list = fs::read(&path).with_context(|| format!("{}: make check-arm64", path.display()))?;
    let list: Value = serde_json::from_slice(&list)?;
    let file = &list["rust-binaries"][id]["binary-path"];
    let file = file.as_str();
    Ok(file.with_context(|| format!("{id} is not built"))?.into())
}

/// Puts a file where it lies here: tests know the paths of what they were built with.
fn put(files: &Files, path: &std::path::Path) -> anyhow::Result<()> {
    files.copy(path, path.to_str().context("the path is no text")?)
}

/// Runs the tests of `program` that `filter` names, in libtest's words.
fn run_tests(host: &mut Host, program: &std::path::Path, filter: &str) -> anyhow::Result<()> {
    let folder = source_root().display();
    let line = format!(
        "cd {folder} && {} --test-threads=2 {filter} 2>&1",
        program.display()
    );
    let said = host.sh_within(&line, PATIENCE)?;
    let result = said.iter().rev().find(|line| line.contains("test result:"));
    let result = result.context("no result")?;
    eprintln!("{filter}: {result}");
    ensure!(
        result.contains("ok.") && !result.contains(" 0 passed"),
        "{said:#?}"
    );
    Ok(())
}

/// No filter has ended a program, or would have with `--sandbox=on`.
fn no_call_was_refused(host: &mut Host) -> anyhow::Result<()> {
    let log =
        host.sh("journalctl --no-pager --quiet --output=cat _TRANSPORT=audit + _TRANSPORT=kernel")?;
    let refused: Vec<&String> = log
        .iter()
        .filter(|line| line.contains(REFUSED_CALL))
        .collect();
    ensure!(refused.is_empty(), "{refused:#?}");
    Ok(())
}

/// A VM's GPU is drawn on, its virtual keyboard and one of the host are typed on, each served by its unit.
#[test]
fn units_serve() -> anyhow::Result<()> {
    let files = Files::obtain()?;
    let staged = staging::stage_with(program)?;
    files.copy(&staged.path().join("."), "")?;
    files.copy(&program("units-check")?, "usr/bin/units-check")?;
    let mut host = files.boot(&["-device", "virtio-keyboard-pci,id=keyboard"])?;
    host.sh("vhostctl add console vm1 --now")?;
    let keyboards =
        host.sh("grep -l 'QEMU Virtio Keyboard' /sys/class/input/event*/device/name")?;
    let node = keyboards.first().and_then(|path| path.split('/').nth(4));
    let node = node.context("the host has no keyboard")?;
    host.sh(&format!(
        "vhostctl add input vm1 /dev/input/{node} --name=real --force --now"
    ))?;
    let check = host.vm().start("run /usr/bin/units-check vm1 real")?;
    check
        .expect("listening", PATIENCE)
        .with_context(|| log_of(&mut host))?;
    is_confined(&mut host, "vhost-user-input@vm1:real.service")?;
    for is_down in [true, false] {
        let key = json!({"type": "qcode", "data": "a"});
        let events = json!([{"type": "key", "data": {"down": is_down, "key": key}}]);
        host.vm()
            .qmp("input-send-event", json!({"events": events}))?;
    }
    check
        .expect("all checks held", SOON)
        .with_context(|| log_of(&mut host))?;

    let services = [
        "vhost-user-gpu@vm1",
        "vhost-user-input@vm1:keyboard",
        "vhost-user-input@vm1:real",
    ];
    for service in services {
        let said = host.sh(&format!(
            "journalctl --no-pager --quiet --output=cat --unit={service}.service"
        ))?;
        let warnings = said.iter().find(|line| line.contains("sandbox=off"));
        ensure!(warnings.is_none(), "{said:#?}");
    }
    let failed = host.sh("systemctl --failed --no-legend")?;
    ensure!(failed.is_empty(), "{failed:#?}");
    no_call_was_refused(&mut host)
}

/// The service's process has the kernel's filter and cannot gain privileges.
fn is_confined(host: &mut Host, service: &str) -> anyhow::Result<()> {
    let status = host.sh(&format!(
        "cat /proc/$(systemctl show --value --property=MainPID {service})/status"
    ))?;
    for expected in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000"] {
        ensure!(status.iter().any(|line| line == expected), "{status:#?}");
    }
    Ok(())
}

fn log_of(host: &mut Host) -> String {
    let said = host.sh("journalctl --no-pager --quiet --lines=60");
    said.map_or_else(|error| error.to_string(), |lines| lines.join("\n"))
}

/// The tests of whole programs, which run in their sandbox.
#[test]
fn programs_serve_in_their_sandbox() -> anyhow::Result<()> {
    let files = Files::obtain()?;
    let [unit, process] = ["vhost-user-backends", "vhost-user-backends::process"].map(test_program);
    let (unit, process) = (unit?, process?);
    for path in [&unit, &process] {
        put(&files, path)?;
    }
    for name in [
        "vhost-user-gpu",
        "vhost-user-input",
        "vhost-vnc",
        "vhost-user-accept",
    ] {
        put(&files, &program(name)?)?;
    }
    put(&files, &program("examples/vhost-user-rng")?)?;
    put(&files, &source_root().join("json"))?;
    let mut host = files.boot(&[])?;
    // What qemu-user cannot do.
    for filter in [
        "backend::sandbox::",
        "backend::startup_memory::",
        "input::source::evdev_source::opener::",
    ] {
        run_tests(&mut host, &unit, filter)?;
    }
    for filter in ["conventions::", "notify::", "gpu_2d::"] {
        run_tests(&mut host, &process, filter)?;
    }
    Ok(())
}
