// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The installed completion scripts of the shells.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{have, stdout, vhostctl_with};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../completions")
        .join(name)
}

/// A shell that finds the program under test.
fn shell(name: &str) -> Option<Command> {
    if !have(name, &format!("package {name}")) {
        return None;
    }
    let program = Path::new(env!("CARGO_BIN_EXE_vhostctl"));
    let folder = program.parent().expect("a folder").as_os_str();
    let mut path = folder.to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(name);
    command
        .env("PATH", path)
        // Where no shell can make a folder: fish would, and leave it there.
        .env("HOME", "/proc/nonexistent")
        .env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent");
    Some(command)
}

/// What bash would offer for a line.
fn bash(line: &str) -> Option<Vec<String>> {
    Some(bash_in(shell("bash")?, line))
}

fn bash_in(mut shell: Command, line: &str) -> Vec<String> {
    let text = stdout(
        shell
            .args(["--norc", "-c"])
            .arg(
                r#"source "$1"; COMP_LINE=$2; COMP_POINT=${#2}; _vhostctl; printf '%s\n' "${COMPREPLY[@]}""#,
            )
            .arg("bash")
            .arg(script("vhostctl.bash"))
            .arg(line),
    );
    text.lines().map(str::to_owned).collect()
}

#[test]
fn completion_scripts_are_well_formed() {
    for (name, file) in [
        ("bash", "vhostctl.bash"),
        ("zsh", "_vhostctl"),
        ("fish", "vhostctl.fish"),
    ] {
        let Some(mut shell) = shell(name) else {
            continue;
        };
        assert_eq!(stdout(shell.arg("-n").arg(script(file))), "", "{name}");
    }
}

#[test]
fn bash_completes_verbs_options_and_values() {
    let Some(verbs) = bash("vhostctl st") else {
        return;
    };
    assert!(verbs.contains(&"status".to_owned()), "{verbs:?}");
    assert!(!verbs.contains(&"list".to_owned()), "{verbs:?}");
    let options = bash("vhostctl list --no").expect("bash");
    assert!(options.contains(&"--no-legend".to_owned()), "{options:?}");
    // After "=" bash has a new word, so only that is offered.
    assert_eq!(bash("vhostctl --json=p").expect("bash"), ["pretty"]);
    assert_eq!(
        bash("vhostctl list-devices --type ").expect("bash"),
        ["gpu", "input"]
    );
    assert_eq!(
        bash("vhostctl help list-").expect("bash"),
        ["list-devices", "list-backends"]
    );
}

/// `vhostctl add fs` is no use for a GPU.
#[test]
fn bash_completes_backends_of_the_type() {
    let folder = tempfile::tempdir().expect("a folder");
    let descriptors = folder.path().join("qemu/vhost-user");
    std::fs::create_dir_all(&descriptors).expect("a folder");
    for device_type in ["fs", "gpu"] {
        let descriptor =
            format!(r#"{{"description": "Test", "type": "{device_type}", "binary": "/bin/true"}}"#);
        let path = descriptors.join(format!("99-test-{device_type}.json"));
        std::fs::write(path, descriptor).expect("a descriptor");
    }
    let of_type = |device_type: &str| {
        let mut shell = shell("bash")?;
        shell.env("XDG_CONFIG_HOME", folder.path());
        let mut offered = bash_in(shell, &format!("vhostctl add {device_type} vm1 --backend="));
        offered.retain(|name| name.contains("test-"));
        Some(offered)
    };
    let Some(offered) = of_type("fs") else {
        return;
    };
    assert_eq!(offered, ["99-test-fs"]);
    assert_eq!(of_type("gpu").expect("bash"), ["99-test-gpu"]);
    assert_eq!(of_type("block").expect("bash"), [""; 0]);
}

#[test]
fn missing_bus_gives_no_candidates_and_no_errors() {
    let Some(candidates) = bash("vhostctl status v") else {
        return;
    };
    assert_eq!(candidates, [""; 1]);
}

#[test]
fn fish_completes_with_descriptions() {
    let Some(mut fish) = shell("fish") else {
        return;
    };
    let line = format!(
        "source {}; complete -C 'vhostctl mon'",
        script("vhostctl.fish").display()
    );
    let text = stdout(fish.args(["--no-config", "-c", &line]));
    assert_eq!(
        text,
        "monitor\tShow live which devices come and go and which units change\n"
    );
}

#[test]
fn zsh_completes() {
    let Some(mut zsh) = shell("zsh") else { return };
    // A terminal of its own, in which somebody types a tab: after the prompt, or the terminal would
    // take it. (With more typed behind it, zsh would take the tab as it is.)
    let typing = r#"
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "fpath=($1 \$fpath); autoload -Uz compinit; compinit -u -D; zstyle ':completion:*' insert-tab false; PS1=re; PS1+='ady>'"
        zpty -r -m shell line '*ready>*'
        zpty -w -n shell $'vhostctl mon\t\025print done\n'
        zpty -r -m shell line '*done*'
        print -r -- $line
    "#;
    let folder = script("");
    let text = stdout(
        zsh.args(["-f", "-c", typing, "zsh"])
            .arg(&folder)
            .env("TERM", "dumb"),
    );
    assert!(text.contains("vhostctl monitor"), "{text:?}");
}

#[test]
fn devices_are_completed_by_their_lasting_names() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let line = ["vhostctl", "add", "input", "vm1", "/dev/input/by-id/"];
    command
        .env("VHOSTCTL_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "4")
        .arg("--")
        .args(line);
    let text = stdout(&mut command);
    assert!(
        text.contains("/dev/input/by-id/usb-Logitech_USB_Optical_Mouse-event-mouse"),
        "{text:?}"
    );
}

#[test]
fn numbers_of_devices_are_completed() {
    let Some(mut command) = vhostctl_with(&["composite"]) else {
        return;
    };
    let line = ["vhostctl", "add", "input", "vm1", "--match=046d"];
    command
        .env("VHOSTCTL_COMPLETE", "fish")
        .arg("--")
        .args(line);
    let text = stdout(&mut command);
    for candidate in [
        "--match=046d:c31c\tAcme Keyboard",
        "--match=046d:b342:a0:b1:c2:d3:e4:f5\tPocket Keyboard",
    ] {
        assert!(text.lines().any(|line| line == candidate), "{text}");
    }
}
