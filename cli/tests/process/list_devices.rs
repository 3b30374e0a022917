// SPDX-License-Identifier: Apache-2.0 OR MIT
//! `vhostctl list-devices` on mock machines.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::json_members::Members;
use crate::common::{have, missing, stdout, vhostctl_with};

const GPUS: &str = "\
NODE                DRIVER VENDOR            MODEL                               BOOT-VGA SEAT  VM LINK
/dev/dri/renderD128 i915   Intel Corporation TigerLake-LP GT2 [Iris Xe Graphics] yes      seat0 -  /dev/dri/by-path/pci-0000:00:02.0-render
/dev/dri/renderD129 amdgpu 0x1002            0x73ff                              no       seat1 -  /dev/dri/by-path/pci-0000:03:00.0-render
";

const INPUTS: &str = "\
NODE                KIND        NAME                                               BUS   ID        SEAT  VM LINK
/dev/input/event0   button      Power Button                                       host  0000:0001 seat0 -  -
/dev/input/event1   switch      Lid Switch                                         host  0000:0005 seat0 -  -
/dev/input/event2   keyboard    AT Translated Set 2 keyboard                       i8042 0001:0001 seat0 -  /dev/input/by-path/platform-i8042-serio-0-event-kbd
/dev/input/event7   touchpad    SYNA8004:00 06CB:CD8B Touchpad                     i2c   06cb:cd8b seat0 -  /dev/input/by-path/pci-0000:00:15.0-platform-i2c_designware.0-event-mouse
/dev/input/event8   touchscreen ELAN2514:00 04F3:2C68                              i2c   04f3:2c68 seat0 -  /dev/input/by-path/pci-0000:00:15.1-platform-i2c_designware.1-event
/dev/input/event12  mouse       Logitech USB Optical Mouse                         usb   046d:c077 seat0 -  /dev/input/by-id/usb-Logitech_USB_Optical_Mouse-event-mouse
/dev/input/event100 joystick    Sony Interactive Entertainment Wireless Controller usb   054c:0ce6 seat1 -  /dev/input/by-id/usb-Sony_Interactive_Entertainment_Wireless_Controller-if03-event-joystick
";

#[test]
fn laptop_devices_are_listed() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let text = stdout(command.arg("list-devices"));
    assert_eq!(text, format!("{GPUS}\n{INPUTS}\n9 devices listed.\n"));
}

#[test]
fn type_option_selects_one_type() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    assert_eq!(
        stdout(command.args(["list-devices", "--type=gpu"])),
        format!("{GPUS}\n2 devices listed.\n")
    );
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    assert_eq!(
        stdout(command.args(["list-devices", "-t", "input"])),
        format!("{INPUTS}\n7 devices listed.\n")
    );
}

#[test]
fn json_has_every_field() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let text = stdout(command.args(["list-devices", "--json=short"]));
    assert_eq!(text.lines().count(), 1);
    let devices: Vec<Value> = serde_json::from_str(&text).expect("an array");
    assert_eq!(devices.len(), 9);
    for device in &devices {
        let heading = match device["type"] == "gpu" {
            true => "`vhostctl list-devices`: a GPU",
            false => "`vhostctl list-devices`: an input device",
        };
        let documented = Members::under(&[heading]).expect("docs/json.md");
        documented.check(device).expect("its members");
    }
    let device = |node: &str| {
        devices
            .iter()
            .find(|device| device["node"] == node)
            .expect(node)
    };
    assert_eq!(
        *device("/dev/dri/renderD128"),
        json!({
            "type": "gpu", "node": "/dev/dri/renderD128",
            "by_path": "/dev/dri/by-path/pci-0000:00:02.0-render", "driver": "i915",
            "vendor": "Intel Corporation", "model": "TigerLake-LP GT2 [Iris Xe Graphics]",
            "boot_vga": true, "seat": "seat0", "used_by": [],
        })
    );
    assert_eq!(
        *device("/dev/input/event12"),
        json!({
            "type": "input", "node": "/dev/input/event12",
            "by_id": "/dev/input/by-id/usb-Logitech_USB_Optical_Mouse-event-mouse",
            "by_path": "/dev/input/by-path/pci-0000:00:14.0-usb-0:2:1.0-event-mouse",
            "name": "Logitech USB Optical Mouse", "kinds": ["mouse"], "bus": "usb",
            "vendor_id": "046d", "product_id": "c077", "serial": null, "seat": "seat0", "used_by": [],
        })
    );
}

#[test]
fn pretty_json_is_the_same_over_many_lines() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let pretty = stdout(command.args(["list-devices", "--json=pretty"]));
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    // Not a terminal: -j is short.
    let short = stdout(command.args(["-j", "list-devices"]));
    assert_eq!(short.lines().count(), 1);
    assert!(
        pretty.starts_with("[\n\t{\n\t\t\"type\": \"gpu\",\n"),
        "{pretty}"
    );
    let parse = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(parse(&pretty), parse(&short));
}

#[test]
fn no_legend_option_prints_only_devices() {
    for option in ["--no-legend", "--quiet", "-q"] {
        let Some(mut command) = vhostctl_with(&["laptop"]) else {
            return;
        };
        let text = stdout(command.args(["list-devices", option, "--no-pager"]));
        assert_eq!(text.lines().count(), 9, "{text}");
        assert!(text.lines().all(|line| line.starts_with("/dev/")), "{text}");
    }
}

#[test]
fn columns_variable_is_honoured() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let text = stdout(command.arg("list-devices").env("COLUMNS", "80"));
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.contains('…'), "{text}");
    // What tells the lines apart is whole.
    assert!(
        text.lines()
            .any(|line| line.starts_with("/dev/input/event100 ")),
        "{text}"
    );
    assert_eq!(text.lines().count(), 14, "{text}");
}

#[test]
fn pipes_get_no_colour_unless_asked_for() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    assert!(!stdout(command.arg("list-devices").env("TERM", "xterm")).contains('\x1b'));
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    assert!(stdout(command.arg("list-devices").env("SYSTEMD_COLORS", "1")).contains("\x1b["));
}

#[test]
fn machine_without_devices_is_no_error() {
    let Some(mut command) = vhostctl_with(&[]) else {
        return;
    };
    assert_eq!(stdout(command.arg("list-devices")), "No devices.\n");
    let Some(mut command) = vhostctl_with(&[]) else {
        return;
    };
    assert_eq!(
        stdout(command.args(["list-devices", "--json=short"])),
        "[]\n"
    );
    let Some(mut command) = vhostctl_with(&[]) else {
        return;
    };
    assert_eq!(stdout(command.args(["list-devices", "--no-legend"])), "");
}

#[test]
fn unknown_fields_are_a_dash_and_hostile_ones_are_escaped() {
    let Some(mut command) = vhostctl_with(&["oddities"]) else {
        return;
    };
    let text = stdout(command.args(["list-devices", "--type=input"]));
    assert_eq!(
        text,
        "\
NODE               KIND           NAME                BUS     ID        SEAT  VM LINK
/dev/input/event3  other          Evil \\x1b[2J Device virtual -         seat0 -  -
/dev/input/event10 keyboard,mouse Logitech K400 Plus  usb     046d:404d seat0 -  -

2 devices listed.
"
    );
}

#[test]
fn hardware_database_names_what_udevd_did_not() {
    let databases = [
        "/etc/udev/hwdb.bin",
        "/usr/lib/udev/hwdb.bin",
        "/usr/lib/systemd/hwdb/hwdb.bin",
    ];
    if !databases.iter().any(|path| Path::new(path).exists())
        && !missing("a hwdb.bin (package udev)")
    {
        return;
    }
    let Some(mut command) = vhostctl_with(&["oddities"]) else {
        return;
    };
    let text = stdout(command.args(["list-devices", "--type=gpu", "--json=short"]));
    let gpus: Vec<Value> = serde_json::from_str(&text).expect("an array");
    let names: Vec<_> = gpus
        .iter()
        .map(|gpu| (&gpu["node"], &gpu["driver"], &gpu["vendor"]))
        .collect();
    assert_eq!(
        names,
        [
            (&json!("/dev/dri/renderD128"), &Value::Null, &Value::Null),
            (
                &json!("/dev/dri/renderD130"),
                &json!("virtio_gpu"),
                &json!("Red Hat, Inc.")
            ),
        ]
    );
}

/// Runs it on a terminal of this many columns, where 0 is one that does not tell.
fn on_terminal(columns: u16, arguments: &[&str]) -> Option<String> {
    let mut command = vhostctl_with(&["laptop"])?;
    command.args(arguments);
    if !have("script", "package bsdutils") {
        return None;
    }
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted: Vec<_> = words
        .map(|word| format!("'{}'", word.to_str().expect("UTF-8")))
        .collect();
    let line = format!(
        "stty cols {columns}; exec env -u COLUMNS TERM=xterm {}",
        quoted.join(" ")
    );
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script
        .env_remove("NO_COLOR")
        .env_remove("SYSTEMD_COLORS")
        .stdin(Stdio::null());
    Some(stdout(&mut script).replace("\r\n", "\n"))
}

#[test]
fn terminal_gets_its_width_and_colour() {
    for (columns, width) in [(60, 60), (0, 80)] {
        let Some(text) = on_terminal(columns, &["list-devices", "--type=gpu"]) else {
            return;
        };
        assert!(
            text.starts_with("\x1b[4mNODE"),
            "the header is underlined: {text:?}"
        );
        let row = text
            .lines()
            .find(|line| line.contains("i915"))
            .expect("a row");
        assert_eq!(row.chars().count(), width, "{row}");
        assert!(row.ends_with('…'), "{row}");
    }
}

#[test]
fn option_j_is_pretty_on_a_terminal() {
    let Some(text) = on_terminal(80, &["list-devices", "-j"]) else {
        return;
    };
    assert!(text.starts_with("[\n\t{\n"), "{text:?}");
}
