// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Devices of several nodes, and devices that are found by their numbers. Mock devices, real systemd.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use harness::mock::MOUSE;

use crate::common::host::Host;

use super::devices::Machine;

const COMPOSITE: &str = "composite";

fn ensure_all(text: &str, parts: &[&str]) -> anyhow::Result<()> {
    for part in parts {
        ensure!(text.contains(part), "{part:?} is not in: {text}");
    }
    Ok(())
}

/// The lines of a backend's drop-in that say which device it is.
fn device(machine: &Machine, backend: &str) -> anyhow::Result<Vec<String>> {
    let text = machine
        .host
        .file(&format!("vhost-user-input@{backend}.service"))?;
    let lines = text.lines();
    let lines =
        lines.filter(|line| line.starts_with("Environment=") || line.starts_with("DeviceAllow="));
    Ok(lines.map(str::to_owned).collect())
}

#[test]
fn all_nodes_of_a_keyboard_are_added() -> anyhow::Result<()> {
    let machine = Machine::with(COMPOSITE)?;
    let add = ["add", "input", "vm1", "Acme Keyboard", "--all-nodes"];
    let said = machine.ok(&add)?;
    ensure_all(
        &said,
        &[
            "Left out /dev/input/event6 (switch, Acme Keyboard): a guest has no use for it.",
            "vm1:media has no stable name, and is found by its numbers: 046d:c31c, Acme Keyboard Consumer Control.",
            "To start it now: vhostctl start vm1",
        ],
    )?;
    ensure!(said.matches("may connect").count() == 1, "{said}");
    let link = "/dev/input/by-id/usb-Acme_Keyboard-event-kbd";
    ensure!(
        device(&machine, "vm1:kbd")?
            == [
                format!("Environment=EVDEV_PATH={link}"),
                "DeviceAllow=char-input rw".into()
            ]
    );
    for (name, node) in [("media", "Consumer"), ("system", "System")] {
        let options = format!(
            r#"Environment="OPTIONS=--evdev-match=046d:c31c \"--evdev-name=Acme Keyboard {node} Control\"""#
        );
        let lines = device(&machine, &format!("vm1:{name}"))?;
        ensure!(
            lines == [options, "DeviceAllow=char-input rw".into()],
            "{lines:?}"
        );
    }
    for (node, backend) in [(3, "kbd"), (4, "media"), (5, "system")] {
        let used_by = machine.used_by(&format!("/dev/input/event{node}"))?;
        ensure!(used_by == format!(r#"["vm1:{backend}"]"#), "{used_by}");
    }
    ensure!(machine.used_by("/dev/input/event6")? == "[]");

    // Each is a backend of its own; what is there already stays.
    machine.ok(&["remove", "vm1:media"])?;
    let said = machine.ok(&add)?;
    ensure!(
        said.matches("Created ").count() <= 2 && said.contains("vm1:media"),
        "{said}"
    );
    let said = machine.fails(&["add", "input", "vm2", "Acme Keyboard", "--all-nodes"])?;
    ensure!(said.contains("already assigned to vm1:"), "{said}");
    let output = machine.run(&["list", "--no-legend"])?;
    let listed = String::from_utf8(output.stdout)?;
    ensure!(
        listed.lines().count() == 3 && !listed.contains("vm2"),
        "{listed}"
    );
    machine.ok(&["remove", "vm1"])?;

    // By any of its nodes, under a name.
    machine.ok(&[
        "add",
        "input",
        "vm1",
        "Consumer Control",
        "--all-nodes",
        "--name=acme",
        "--no-grab",
    ])?;
    for name in ["acme", "acme-media", "acme-system"] {
        let lines = device(&machine, &format!("vm1:{name}"))?;
        ensure!(
            lines.iter().any(|line| line.contains("--no-grab")),
            "{lines:?}"
        );
    }
    Ok(())
}

#[test]
fn nodes_of_receivers_and_of_bluetooth_devices_are_added() -> anyhow::Result<()> {
    let machine = Machine::with(COMPOSITE)?;
    machine.ok(&["add", "input", "vm1", "--match=1d57:fa60", "--all-nodes"])?;
    for (backend, name) in [("kbd", "Pad Receiver"), ("mouse", "Pad Receiver Mouse")] {
        let [options, _] = &device(&machine, &format!("vm1:{backend}"))?[..] else {
            anyhow::bail!("{backend}");
        };
        ensure_all(
            options,
            &[
                "--evdev-match=1d57:fa60 ",
                &format!("--evdev-name={name}\\\""),
            ],
        )?;
    }
    // Without a path and with a serial number, which is the address.
    machine.ok(&["add", "input", "vm2", "/dev/input/event9", "--all-nodes"])?;
    for (backend, name) in [
        ("kbd", "Pocket Keyboard"),
        ("mouse", "Pocket Keyboard Mouse"),
    ] {
        let [options, _] = &device(&machine, &format!("vm2:{backend}"))?[..] else {
            anyhow::bail!("{backend}");
        };
        let ids = "--evdev-match=046d:b342:a0:b1:c2:d3:e4:f5 ";
        ensure_all(options, &[ids, &format!("--evdev-name={name}\\\"")])?;
    }
    ensure!(machine.used_by("/dev/input/event11")? == "[]");
    Ok(())
}

#[test]
fn numbers_that_mean_several_devices_are_refused() -> anyhow::Result<()> {
    let machine = Machine::with(COMPOSITE)?;
    let said = machine.fails(&["add", "input", "vm1", "--match=0c45:7403"])?;
    let paths = [3, 4].map(|port| {
        format!("/dev/input/by-path/pci-0000:00:14.0-usb-0:{port}:1.0-event-kbd (keyboard, Twin Scanner)")
    });
    ensure_all(&said, &[&paths[0], &paths[1], "matches several devices"])?;
    ensure!(!said.contains("--all-nodes"), "{said}");
    let said = machine.fails(&[
        "add",
        "input",
        "vm1",
        "/dev/input/event12",
        "--match=0c45:7403",
    ])?;
    ensure_all(
        &said,
        &[&paths[0], &paths[1], "nothing else tells them apart"],
    )?;
    // One node of several.
    let said = machine.fails(&["add", "input", "vm1", "--match=046d:c31c"])?;
    ensure_all(
        &said,
        &["Consumer Control", "To add all of them, use --all-nodes."],
    )?;
    // Bluetooth devices of one model.
    let bluetooth = [
        "add",
        "input",
        "vm1",
        "/dev/input/event11",
        "--match=046d:b342",
    ];
    let said = machine.fails(&bluetooth)?;
    ensure_all(
        &said,
        &[
            "--match=046d:b342:SERIAL",
            "serial number a0:b1:c2:d3:e4:f6",
        ],
    )?;
    machine.ok(&[
        "add",
        "input",
        "vm1",
        "--match=046d:b342:a0:b1:c2:d3:e4:f6",
        "--name=pocket",
    ])?;
    let lines = device(&machine, "vm1:pocket")?;
    ensure!(
        lines[0] == "Environment=OPTIONS=--evdev-match=046d:b342:a0:b1:c2:d3:e4:f6",
        "{lines:?}"
    );

    for (arguments, part) in [
        (&["--match=046d:c31d"][..], "No such device: 046d:c31d"),
        (
            &["Pocket", "--match=046d:c31d"],
            "No such device: Pocket with the numbers 046d:c31d",
        ),
        (&["--all-nodes"], "Which input device?"),
        (
            &["--virtual=tablet", "--match=046d:c31c"],
            "--match does not apply to a virtual",
        ),
        (
            &["--virtual=tablet", "--all-nodes"],
            "--all-nodes does not apply to a virtual",
        ),
    ] {
        let said = machine.fails(&[&["add", "input", "vm3"], arguments].concat())?;
        ensure!(said.contains(part), "{said}");
    }
    let said = machine.fails(&["add", "gpu", "vm3", "--all-nodes"])?;
    ensure!(
        said.contains("--all-nodes does not apply to a GPU"),
        "{said}"
    );
    let said = machine.fails(&["add", "input", "vm3", "--match=keyboard"])?;
    ensure!(
        said.contains("hexadecimal numbers as lsusb prints them"),
        "{said}"
    );
    Ok(())
}

#[test]
fn device_that_is_found_by_its_numbers_is_missed() -> anyhow::Result<()> {
    let machine = Machine::with(COMPOSITE)?;
    let pocket = "046d:b342:a0:b1:c2:d3:e4:f6";
    machine.ok(&["add", "input", "vm1", &format!("--match={pocket}"), "--now"])?;
    let status = |code| -> anyhow::Result<String> {
        let output = machine.run(&["status", "vm1", "--lines=0"])?;
        ensure!(output.status.code() == Some(code), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    };
    ensure_all(&status(0)?, &["listening", &format!("Device: {pocket}\n")])?;
    // Added again, it stays as it is.
    let said = machine.ok(&["add", "input", "vm1", "/dev/input/event11"])?;
    ensure!(said.contains("Kept "), "{said}");
    let said = machine.fails(&["add", "input", "vm2", "/dev/input/event11", "--all-nodes"])?;
    ensure!(said.contains("is already assigned to vm1:kbd"), "{said}");
    // It sleeps.
    let lines = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock/composite.umockdev"),
    )?;
    let others = lines.replace("uniq=a0:b1:c2:d3:e4:f6", "uniq=");
    machine
        .host
        .sandbox
        .write("/run/devices.umockdev", &others)?;
    ensure_all(
        &status(3)?,
        &["no-device", &format!("Device: {pocket} (missing)\n")],
    )?;
    let output = machine.run(&["list", "--json=short"])?;
    let listed: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout)?;
    ensure!(
        listed[0]["device"] == pocket && listed[0]["state"] == "no-device",
        "{listed:?}"
    );
    Ok(())
}

/// Under the installed units and the program's sandbox.
#[test]
fn device_is_served_by_its_numbers() -> anyhow::Result<()> {
    let mouse = MOUSE.replace("name ", "name The \"100%\" Optical's ");
    let ids = mouse
        .lines()
        .find_map(|line| line.strip_prefix("id "))
        .context("an id")?;
    let ids: Vec<_> = ids.split(' ').collect();
    let [_, vendor, product, _] = ids[..] else {
        anyhow::bail!("{ids:?}");
    };
    // Two nodes, of which the name tells.
    let media = mouse.replace("name The", "name Another");
    let host = Host::new(&[&media, &mouse])?;
    let ids = format!("--match={vendor}:{product}");
    host.ok(&["add", "input", "vm1", "/dev/input/event1", &ids])?;
    let service = "vhost-user-input@vm1:mouse.service";
    let mock = host.mock.as_ref().context("no devices")?;
    host.sandbox.drop_in(service, &mock.drop_in())?;
    host.ok(&["start", "vm1"])?;
    let session = host
        .connect("/run/vhost-user/input/vm1:mouse.sock")
        .with_context(|| host.sandbox.journal(&["--lines=30"]).unwrap_or_default())?;
    ensure!(host.state(service)? == "active");
    let described = host
        .sandbox
        .path("/var/lib/private/vhost-user-input/vm1:mouse/device.json");
    let described =
        fs::read_to_string(&described).with_context(|| described.display().to_string())?;
    let described: serde_json::Value = serde_json::from_str(&described)?;
    let name = mouse.lines().find_map(|line| line.strip_prefix("name "));
    ensure!(described["name"] == name.context("a name")?, "{described}");
    drop(session);
    Ok(())
}
