// SPDX-License-Identifier: Apache-2.0 OR MIT
//! How `add` and `list-devices` identify devices: with equal links, foreign links, and keyboards that are
//! none. Mock devices, real systemd.

use std::fs;
use std::path::Path;

use crate::common::host::Host;
use crate::common::stderr;
use anyhow::ensure;
use serde_json::Value;

const COLLIDE: &str = "collide";
const IDENTICAL: &str = "identical";
const BY_ID: &str = "/dev/input/by-id/usb-BY_Tech_Gaming_Keyboard-event-kbd";
const FIRST: &str = "/dev/input/by-path/pci-0000:00:14.0-usb-0:1:1.0-event-kbd";
const SECOND: &str = "/dev/input/by-path/pci-0000:00:14.0-usb-0:2:1.0-event-kbd";

/// A machine with mock devices, and with the links that udev or somebody else made.
pub(crate) struct Machine {
    pub(crate) host: Host,
    links: Vec<(String, String)>,
}

impl Machine {
    /// With those of the file `name` in tests/mock.
    pub(crate) fn with(name: &str) -> anyhow::Result<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock");
        Self::of(&fs::read_to_string(
            folder.join(name).with_extension("umockdev"),
        )?)
    }

    pub(crate) fn of(devices: &str) -> anyhow::Result<Self> {
        let host = Host::new(&[])?;
        host.sandbox.write("/run/devices.umockdev", devices)?;
        let links = Vec::new();
        Ok(Self { host, links })
    }

    /// Makes a link, whose target is relative to its folder.
    pub(crate) fn link(&mut self, link: &str, target: &str) {
        self.links.push((link.to_owned(), target.to_owned()));
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> anyhow::Result<std::process::Output> {
        let links = self.links.iter().map(|(link, target)| {
            let folder = link.rsplit_once('/').map_or("", |parts| parts.0);
            format!("mkdir -p \"$UMOCKDEV_DIR{folder}\"; ln -s {target} \"$UMOCKDEV_DIR{link}\";")
        });
        let script = links.chain(["exec vhostctl \"$@\"".to_owned()]);
        let script: Vec<_> = script.collect();
        let script = script.join(" ");
        let before = [
            "umockdev-run",
            "--device",
            "/run/devices.umockdev",
            "--",
            "sh",
            "-c",
            &script,
            "sh",
        ];
        self.host.sandbox.exec([&before[..], arguments].concat())
    }

    pub(crate) fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = stderr(&output);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(said)
    }

    pub(crate) fn fails(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = stderr(&output);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {said}");
        Ok(said)
    }

    /// The device that a backend is configured for.
    fn device_of(&self, backend: &str) -> anyhow::Result<String> {
        let text = self.host.file(&format!("{backend}.service"))?;
        let line = |start: &str| {
            let mut lines = text.lines();
            let value = lines.find_map(|line| line.strip_prefix(start));
            value.unwrap_or_default().to_owned()
        };
        let device = line("Environment=EVDEV_PATH=");
        // A name that lasts leads to other numbers.
        let allowed = match device.starts_with("/dev/input/event") {
            true => format!("{device} rw"),
            false => "char-input rw".to_owned(),
        };
        ensure!(line("DeviceAllow=") == allowed, "{text}");
        Ok(device)
    }

    /// The backends of the device at this node, as JSON.
    pub(crate) fn used_by(&self, node: &str) -> anyhow::Result<String> {
        let output = self.run(&["list-devices", "--json=short"])?;
        let devices: Vec<Value> = serde_json::from_slice(&output.stdout)?;
        let device = devices.iter().find(|device| device["node"] == node);
        Ok(device.map_or_else(String::new, |device| device["used_by"].to_string()))
    }
}

#[test]
fn devices_with_one_link_are_not_mixed_up() -> anyhow::Result<()> {
    let mut machine = Machine::with(COLLIDE)?;
    let link = "/dev/input/by-id/usb-Logitech_USB_Receiver-if02-event-mouse";
    // Without a link that leads somewhere, its name alone means both.
    for text in [
        link,
        "usb-Logitech_USB_Receiver-if02-event-mouse",
        "Receiver",
    ] {
        let said = machine.fails(&["add", "input", "vm1", text])?;
        for node in ["/dev/input/event3", "/dev/input/event4"] {
            ensure!(said.contains(node), "{text}: {said}");
        }
    }
    let said = machine.ok(&["add", "input", "vm1", "/dev/input/event3"])?;
    ensure!(
        said.contains("no stable name") && said.contains("event3 and /dev/input/event4"),
        "{said}"
    );
    ensure!(machine.device_of("vhost-user-input@vm1:mouse")? == "/dev/input/event3");
    machine.ok(&["add", "input", "vm2", "K400", "--no-grab"])?;
    ensure!(machine.device_of("vhost-user-input@vm2:kbd")? == "/dev/input/event4");
    ensure!(machine.used_by("/dev/input/event3")? == r#"["vm1:mouse"]"#);
    ensure!(machine.used_by("/dev/input/event4")? == r#"["vm2:kbd"]"#);
    machine.ok(&["remove", "vm2"])?;

    // The one that it leads to has it, and the name stays as it was given.
    machine.link(link, "../event4");
    let said = machine.ok(&["add", "input", "vm2", link, "--no-grab"])?;
    ensure!(said.contains("It may be another of these"), "{said}");
    ensure!(machine.device_of("vhost-user-input@vm2:kbd")? == link);
    ensure!(machine.used_by("/dev/input/event3")? == r#"["vm1:mouse"]"#);
    ensure!(machine.used_by("/dev/input/event4")? == r#"["vm2:kbd"]"#);

    // A name is found as it is shown, with its slash.
    machine.ok(&["add", "input", "vm3", "TPPS/2 IBM TrackPoint"])?;
    let stick = "/dev/input/by-path/platform-i8042-serio-1-event-mouse";
    ensure!(machine.device_of("vhost-user-input@vm3:mouse")? == stick);
    Ok(())
}

#[test]
fn keyboards_of_one_model_are_told_apart() -> anyhow::Result<()> {
    for winner in [None, Some("../event3"), Some("../event4")] {
        let mut machine = Machine::with(IDENTICAL)?;
        if let Some(winner) = winner {
            machine.link(BY_ID, winner);
            machine.link(FIRST, "../event3");
            machine.link(SECOND, "../event4");
        }
        let said = machine.fails(&["add", "input", "vm1", "BY Tech Gaming Keyboard"])?;
        ensure!(said.contains(FIRST) && said.contains(SECOND), "{said}");
        machine.ok(&["add", "input", "vm1", "/dev/input/event3", "--now"])?;
        ensure!(machine.device_of("vhost-user-input@vm1:kbd")? == FIRST);
        ensure!(machine.used_by("/dev/input/event3")? == r#"["vm1:kbd"]"#);
        ensure!(machine.used_by("/dev/input/event4")? == "[]");
        let said = machine.fails(&["add", "input", "vm2", SECOND])?;
        ensure!(said.contains("last keyboard of seat0"), "{said}");
        machine.ok(&["add", "input", "vm2", SECOND, "--no-grab"])?;
        ensure!(machine.device_of("vhost-user-input@vm2:kbd")? == SECOND);
        // By any name.
        for name in [FIRST, "/dev/input/event3"] {
            let said = machine.fails(&["add", "input", "vm3", name])?;
            ensure!(said.contains("vm1:kbd"), "{name}: {said}");
        }
        ensure!(machine.used_by("/dev/input/event4")? == r#"["vm2:kbd"]"#);
    }
    Ok(())
}

#[test]
fn chosen_names_are_kept() -> anyhow::Result<()> {
    // A rule with SYMLINK+="input/ducky" and "input/both" for one and the other.
    let devices = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock/identical.umockdev"),
    )?
    .replace(FIRST, &format!("{FIRST} /dev/input/both /dev/input/ducky"))
    .replace(SECOND, &format!("{SECOND} /dev/input/both"));
    let mut machine = Machine::of(&devices)?;
    machine.ok(&["add", "input", "vm1", FIRST, "--no-grab"])?;
    ensure!(machine.device_of("vhost-user-input@vm1:kbd")? == FIRST);
    let said = machine.ok(&["add", "input", "vm1", "/dev/input/event3", "--no-grab"])?;
    ensure!(said.contains("Kept "), "{said}");
    machine.ok(&["remove", "vm1"])?;
    for text in ["ducky", "/dev/input/ducky", "/dev/input/event3"] {
        let said = machine.ok(&["add", "input", "vm1", text])?;
        ensure!(!said.contains("stable"), "{said}");
        ensure!(machine.device_of("vhost-user-input@vm1:kbd")? == "/dev/input/ducky");
        machine.ok(&["remove", "vm1"])?;
    }
    // By hand, and by a program that makes its link among udev's.
    machine.link("/dev/input/mine", "event4");
    machine.link("/dev/input/by-id/keyd", "../event4");
    for link in ["/dev/input/mine", "/dev/input/by-id/keyd"] {
        let said = machine.ok(&["add", "input", "vm1", link])?;
        ensure!(!said.contains("stable"), "{said}");
        ensure!(machine.device_of("vhost-user-input@vm1:kbd")? == link);
        ensure!(machine.used_by("/dev/input/event3")? == "[]");
        ensure!(machine.used_by("/dev/input/event4")? == r#"["vm1:kbd"]"#);
        machine.ok(&["remove", "vm1"])?;
    }
    Ok(())
}

#[test]
fn keys_of_a_mouse_do_not_count_as_a_keyboard() -> anyhow::Result<()> {
    let machine = Machine::with("lastkbd")?;
    let said = machine.fails(&["add", "input", "vm1", "Acme"])?;
    ensure!(said.contains("last keyboard of seat0"), "{said}");
    // The host has it back by a chord, which the message names.
    let chord = "--grab-toggle=ctrl-ctrl";
    ensure!(said.contains(chord), "{said}");
    machine.ok(&["add", "input", "vm1", "Acme", chord])?;
    machine.ok(&["remove", "vm1"])?;
    machine.ok(&["add", "input", "vm1", "Razer"])?;
    machine.ok(&["add", "input", "vm2", "Acme", "--force"])?;
    // A receiver's device that is a keyboard and a mouse in one may be anything.
    let machine = Machine::with(COLLIDE)?;
    let said = machine.fails(&["add", "input", "vm1", "K400"])?;
    ensure!(said.contains("last keyboard of seat0"), "{said}");
    Ok(())
}

#[test]
fn gpus_with_one_link_are_not_mixed_up() -> anyhow::Result<()> {
    let link = "/dev/dri/by-path/platform-gpu-render";
    let node = |number: u32| {
        format!(
            "P: /devices/platform/gpu/drm/renderD{number}\nN: dri/renderD{number}\n\
             E: DEVNAME=/dev/dri/renderD{number}\nE: SUBSYSTEM=drm\nE: MAJOR=226\nE: MINOR={number}\n\
             E: DEVLINKS={link}\n\n"
        )
    };
    let mut machine = Machine::of(&(node(128) + &node(129)))?;
    let option = |path: &str| format!("--render-node={path}");
    let said = machine.ok(&["add", "gpu", "vm1", &option("/dev/dri/renderD128")])?;
    ensure!(said.contains("no stable name"), "{said}");
    let text = machine.host.file("vhost-user-gpu@vm1.service")?;
    ensure!(
        text.contains("--render-node=/dev/dri/renderD128\n"),
        "{text}"
    );
    machine.fails(&["add", "gpu", "vm2", &option(link)])?;
    machine.link(link, "../renderD129");
    machine.ok(&["add", "gpu", "vm2", &option(link)])?;
    ensure!(machine.used_by("/dev/dri/renderD128")? == r#"["vm1:gpu"]"#);
    ensure!(machine.used_by("/dev/dri/renderD129")? == r#"["vm2:gpu"]"#);
    Ok(())
}
