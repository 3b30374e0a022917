// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl release` and `grab`: the hardened units on mock devices, and a front-end that plays each VM.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use frontend::input::{Event, Input, InputOptions};
use frontend::{Memory, Session};
use harness::mock::{KEYBOARD, MOUSE, codes};

use crate::common::host::Host;
use crate::common::stderr;

const SOON: Duration = Duration::from_secs(60);
const A: u16 = 30;
const LEFT: u16 = 29;
const RIGHT: u16 = 97;

/// A keyboard with both Ctrl keys.
fn keyboard() -> String {
    KEYBOARD.replace("key 1-88", "key 1-127")
}

/// Adds an input device, which the service sees.
fn add(host: &Host, vm: &str, device: usize, name: &str, options: &[&str]) -> anyhow::Result<()> {
    let mock = host.mock.as_ref().context("no mock")?;
    let (path, name_option) = (mock.path(device), format!("--name={name}"));
    let arguments = ["add", "input", vm, &path, &name_option, "--force"];
    host.ok(&[&arguments, options].concat())?;
    let service = format!("vhost-user-input@{vm}:{name}.service");
    host.sandbox.drop_in(&service, &mock.drop_in())?;
    host.ok(&["start", &format!("{vm}:{name}")])?;
    Ok(())
}

/// A VM with a driver for one of its devices.
fn boot(host: &Host, backend: &str) -> anyhow::Result<Input> {
    let socket = host
        .sandbox
        .path(&format!("/run/vhost-user/input/{backend}.sock"));
    let session = Session::new(std::os::unix::net::UnixStream::connect(socket)?);
    let memory = Memory::with_size(1 << 20)?;
    Ok(Input::start(session, &memory, InputOptions::default())?)
}

fn wait_grab(host: &mut Host, device: usize, held: bool) -> anyhow::Result<()> {
    let mock = host.mock.as_mut().context("no mock")?;
    let waited = mock.wait_grab(device, held, SOON);
    waited.with_context(|| host.ok(&["log", "*", "-n", "50"]).unwrap_or_default())
}

fn send(host: &mut Host, device: usize, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
    host.mock
        .as_mut()
        .context("no mock")?
        .report(device, events)
}

/// Waits until `list` says so of a backend.
fn wait_listed(host: &Host, backend: &str, state: &str) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let (vm, name) = backend.split_once(':').context("a full name")?;
        let text = host.ok(&["list", backend])?;
        let row = text.lines().find(|line| line.starts_with(vm));
        let words: Vec<_> = row.unwrap_or_default().split_whitespace().collect();
        if words.get(1) == Some(&name) && words.get(3) == Some(&state) {
            return Ok(());
        }
        ensure!(began.elapsed() < SOON, "{backend} is not {state}: {text}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn expect(input: &mut Input, events: &[(u16, u16, i32)]) -> anyhow::Result<()> {
    let report = input.next_report()?;
    let got: Vec<_> = report
        .iter()
        .filter(|event| !event.is_report())
        .map(|event: &Event| (event.kind, event.code, event.value))
        .collect();
    ensure!(got == events, "the guest got {got:?}, not {events:?}");
    Ok(())
}

#[test]
fn devices_of_a_vm_go_to_the_host_and_back() -> anyhow::Result<()> {
    let mut host = Host::new(&[&keyboard(), MOUSE])?;
    add(
        &host,
        "vm1",
        0,
        "kbd",
        &["--grab-toggle=ctrl-ctrl", "--grab-group"],
    )?;
    add(&host, "vm1", 1, "mouse", &["--grab-group"])?;
    let text = host.file("vhost-user-input@vm1:kbd.service")?;
    ensure!(
        text.contains(
            "OPTIONS=--grab-toggle=ctrl-ctrl --grab-group=/run/vhost-user-grab/vm1/released"
        ),
        "{text}"
    );
    let said = host.ok(&["release", "vm1"])?;
    ensure!(said.contains("vm1:kbd serves no VM"), "{said}");
    let said = host.fails(&["grab", "vm1:kbd"], 1)?;
    ensure!(said.contains("vm1:kbd serves no VM"), "{said}");

    let mut kbd = boot(&host, "vm1:kbd")?;
    let mut mouse = boot(&host, "vm1:mouse")?;
    wait_grab(&mut host, 0, true)?;
    wait_grab(&mut host, 1, true)?;
    wait_listed(&host, "vm1:kbd", "running")?;
    send(&mut host, 0, &[(codes::EV_KEY, A, 1)])?;
    expect(&mut kbd, &[(codes::EV_KEY, A, 1)])?;
    let nobody = [
        "setpriv",
        "--reuid=nobody",
        "--regid=nogroup",
        "--clear-groups",
    ];
    let verb = ["vhostctl", "--no-ask-password", "release", "vm1"];
    let output = host.sandbox.exec([&nobody[..], &verb].concat())?;
    ensure!(output.status.code() == Some(4), "{}", stderr(&output));
    ensure!(stderr(&output).contains("polkit"), "{}", stderr(&output));
    let said = host.ok(&["release", "vm1:kbd"])?;
    ensure!(said.contains("The host gets /dev/input/event0"), "{said}");
    // At once for the guest; for the host once it is up. The mouse has a member of its group that was asked.
    expect(&mut kbd, &[(codes::EV_KEY, A, 0)])?;
    wait_grab(&mut host, 1, false)?;
    send(&mut host, 0, &[(codes::EV_KEY, A, 0)])?;
    wait_grab(&mut host, 0, false)?;
    for backend in ["vm1:kbd", "vm1:mouse"] {
        wait_listed(&host, backend, "released")?;
        let status = host.ok(&["status", backend])?;
        ensure!(
            status.contains("released to the host: /dev/input/event"),
            "{status}"
        );
    }
    ensure!(
        host.list()?
            .iter()
            .all(|backend| backend["released"] == true)
    );
    host.ok(&["grab", "vm1"])?;
    wait_grab(&mut host, 0, true)?;
    wait_grab(&mut host, 1, true)?;
    wait_listed(&host, "vm1:mouse", "running")?;
    // Nothing came before.
    send(&mut host, 1, &[(codes::EV_REL, 0, 3)])?;
    expect(&mut mouse, &[(codes::EV_REL, 0, 3)])?;

    // The chord, in the unit's sandbox and through the file of the group.
    for held in [false, true] {
        for (code, value) in [(LEFT, 1), (RIGHT, 1), (LEFT, 0), (RIGHT, 0)] {
            send(&mut host, 0, &[(codes::EV_KEY, code, value)])?;
        }
        wait_grab(&mut host, 0, held)?;
        wait_grab(&mut host, 1, held)?;
    }
    Ok(())
}

#[test]
fn one_keyboard_is_used_by_two_vms_in_turn() -> anyhow::Result<()> {
    let mut host = Host::new(&[&keyboard()])?;
    for vm in ["vm1", "vm2"] {
        add(&host, vm, 0, "kbd", &["--grab-toggle=ctrl-ctrl"])?;
    }
    let _first = boot(&host, "vm1:kbd")?;
    wait_grab(&mut host, 0, true)?;
    // It starts although the other one has the keyboard.
    let _second = boot(&host, "vm2:kbd")?;
    wait_listed(&host, "vm2:kbd", "released")?;
    // Who gets the events is shown on a kernel's own devices: the mock has no copy for each reader.
    for _ in 0..3 {
        let said = host.ok(&["grab", "vm2"])?;
        ensure!(said.contains("vm1:kbd gives its device"), "{said}");
        wait_grab(&mut host, 0, false)?;
        wait_grab(&mut host, 0, true)?;
        wait_listed(&host, "vm1:kbd", "released")?;
        wait_listed(&host, "vm2:kbd", "running")?;
        host.ok(&["grab", "vm1:kbd"])?;
        wait_grab(&mut host, 0, false)?;
        wait_grab(&mut host, 0, true)?;
        wait_listed(&host, "vm2:kbd", "released")?;
        wait_listed(&host, "vm1:kbd", "running")?;
    }
    Ok(())
}

#[test]
fn what_has_no_device_of_the_host_is_an_error() -> anyhow::Result<()> {
    let host = Host::new(&[])?;
    host.ok(&["add", "gpu", "vm1"])?;
    host.ok(&["add", "input", "vm1", "--virtual=keyboard"])?;
    for verb in ["release", "grab"] {
        for (selector, predicate) in [
            ("vm1", "has"),
            ("vm*", "has"),
            ("vm1:gpu", "is"),
            ("vm1:keyboard", "is"),
        ] {
            let said = host.fails(&[verb, selector], 1)?;
            let expected = format!("{selector} {predicate} no input device of the host.");
            ensure!(said.contains(&expected), "{said}");
        }
        let said = host.fails(&[verb, "vm7"], 5)?;
        ensure!(said.contains("No such backend: vm7"), "{said}");
    }
    let said = host.fails(
        &["add", "input", "vm1", "--virtual=tablet", "--grab-group"],
        1,
    )?;
    ensure!(said.contains("--grab-group"), "{said}");
    Ok(())
}
