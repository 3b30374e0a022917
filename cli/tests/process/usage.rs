// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The command line: usage errors, help, output.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::common::{run, stderr, stdout, vhostctl, vhostctl_with};
use rustix::pipe::pipe;

#[test]
fn help_and_version_go_to_stdout() {
    let help = stdout(vhostctl().arg("--help"));
    for word in [
        "list-devices",
        "--json",
        "--no-legend",
        "--no-pager",
        "--quiet",
    ] {
        assert!(help.contains(word), "{word}: {help}");
    }
    let version = stdout(vhostctl().arg("--version"));
    assert_eq!(version, format!("vhostctl {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn help_is_also_a_verb() {
    assert_eq!(
        stdout(vhostctl().arg("help")),
        stdout(vhostctl().arg("--help"))
    );
    for verb in ["list", "add", "help"] {
        let help = stdout(vhostctl().args(["help", verb]));
        assert_eq!(help, stdout(vhostctl().args([verb, "--help"])), "{verb}");
    }
    let output = run(vhostctl().args(["help", "launch"]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output),
        "Unknown verb: launch. See 'vhostctl --help'.\n"
    );
}

#[test]
fn help_pages_avoid_the_words_of_the_parser() {
    let help = stdout(vhostctl().arg("help"));
    let verbs = help.lines().skip_while(|line| *line != "Verbs:").skip(1);
    let verbs = verbs.take_while(|line| !line.is_empty());
    let verbs: Vec<_> = verbs
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"libvirt-xml"), "{verbs:?}");
    for verb in verbs {
        let help = stdout(vhostctl().args(["help", verb])).to_lowercase();
        for word in ["subcommand", "possible values", "<command>"] {
            assert!(!help.contains(word), "{verb}: {help}");
        }
    }
}

#[test]
fn usage_errors_are_sentences_and_fail_as_systemctl_does() {
    for (bad, said) in [
        ("launch", "Unknown verb: launch."),
        ("montior", "Unknown verb: montior. Did you mean monitor?"),
        ("delete vm1", "Unknown verb: delete. Did you mean remove?"),
        ("rm vm1", "Unknown verb: rm. Did you mean remove?"),
        ("ls", "Unknown verb: ls. Did you mean list?"),
        ("show vm1", "Unknown verb: show. Did you mean status?"),
        ("--colour", "Unknown option: --colour."),
        (
            "list --typ=gpu",
            "Unknown option: --typ. Did you mean --type?",
        ),
        ("list -x", "Unknown option: -x."),
        (
            "list-devices --type=tpu",
            "Invalid --type: 'tpu'. Valid values: gpu, input.",
        ),
        (
            "list-devices --type",
            "--type requires a value: gpu, input.",
        ),
        ("list-devices vm1", "Unexpected argument: vm1."),
        (
            "--json=xml",
            "Invalid --json: 'xml'. Valid values: pretty, short, off.",
        ),
        ("--no-legend=3", "--no-legend does not take a value."),
        (
            "status -n x",
            "Invalid --lines: 'x' is not a number of lines.",
        ),
        (
            "log -n -1",
            "Invalid --lines: '-1' is not a number of lines.",
        ),
        (
            "log --lines=99999999999",
            "Invalid --lines: '99999999999' is not a number of lines.",
        ),
        ("log -n", "--lines requires a value."),
        (
            "screenshot vm1 --head=x",
            "Invalid --head: 'x' is not a whole number.",
        ),
        (
            "view vm1 --head=99999999999999999999999",
            "Invalid --head: '99999999999999999999999' is too large.",
        ),
        (
            "check /bin/true --timeout=x",
            "Invalid --timeout: 'x' is not a number of seconds from 1 to 3600.",
        ),
        (
            "check /bin/true --timeout=0",
            "Invalid --timeout: '0' is not a number of seconds from 1 to 3600.",
        ),
        ("start", "Missing: VM[:NAME]."),
        (
            "start vm[",
            "Invalid VM[:NAME]: 'vm[' has a '[' without a ']'.",
        ),
        ("add", "Missing: TYPE and VM."),
        ("add gpu vm1 a b", "Unexpected argument: b."),
        (
            "add gpu vm1 --allow-device=/dev/null",
            "Missing: --backend.",
        ),
        (
            "add gpu ..",
            "Invalid VM: '..' is a directory name and cannot name a VM or a device.",
        ),
        ("monitor -d -u", "--devices cannot be used with --units."),
        ("disable vm1 --force", "Missing: --now."),
        ("-H", "--host requires a value."),
        (
            "-H @web",
            "Invalid --host: '@web' is not [USER@]HOST[:PORT].",
        ),
        (
            "qemu-args vm1 --memory=2GB",
            "Invalid --memory: '2GB' is not a size; examples: 2G, 512M, 2048 (in MiB).",
        ),
        (
            "qemu-args vm1 --memory=2G,share=off",
            "Invalid --memory: 'share=off' is not one of size=, slots=, maxmem=.",
        ),
    ] {
        let output = run(vhostctl().args(bad.split(' ')));
        assert_eq!(output.status.code(), Some(1), "{bad}");
        assert_eq!(output.stdout, b"", "{bad}");
        let verb = bad.split(' ').find(|word| !word.starts_with('-'));
        let verb = verb.filter(|verb| !said.starts_with("Unknown verb") && *verb != "@web");
        let see = verb.map_or("vhostctl --help".to_owned(), |verb| {
            format!("vhostctl {verb} --help")
        });
        assert_eq!(stderr(&output), format!("{said} See '{see}'.\n"), "{bad}");
    }
    let output = run(vhostctl().arg("status").arg(OsStr::from_bytes(b"\xff")));
    assert_eq!(
        stderr(&output),
        "The command line is not UTF-8. See 'vhostctl status --help'.\n"
    );
}

/// As systemd's tools have it: the last one counts.
#[test]
fn options_may_be_repeated() {
    let help = stdout(vhostctl().args(["-q", "-q", "--json=off", "--json=short", "help"]));
    assert!(help.contains("list-devices"), "{help}");
}

#[test]
fn every_verb_refuses_the_users_service_manager() {
    for verb in [
        &["list"][..],
        &["list-devices"],
        &["list-backends"],
        &["status"],
        &["log"],
        &["monitor"],
        &["add", "gpu", "vm1"],
        &["remove", "vm1"],
        &["start", "vm1"],
        &["stop", "vm1"],
        &["restart", "vm1"],
        &["enable", "vm1"],
        &["disable", "vm1"],
        &["qemu-args", "vm1"],
        &["libvirt-xml", "vm1"],
    ] {
        let output = run(vhostctl().arg("--user").args(verb));
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        assert_eq!(output.stdout, b"", "{verb:?}");
        assert_eq!(
            stderr(&output),
            "Backends are system units; --user is not supported.\n",
            "{verb:?}"
        );
    }
}

/// What only that host has is not taken from this one.
#[test]
fn verbs_that_need_the_host_itself_refuse_another_one() {
    for line in [
        "list-devices --type=gpu",
        "list-backends",
        "log vm1 -f",
        "monitor -d",
        "add gpu vm1",
        "remove vm1",
        "check --list",
        "check virtiofsd -- --shared-dir=/srv",
    ] {
        let output = run(vhostctl().args(["-H", "nosuchhost"]).args(line.split(' ')));
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_eq!(output.stdout, b"", "{line}");
        let said = stderr(&output);
        let advice = format!(
            " does not work with --host. Run it on nosuchhost: ssh nosuchhost vhostctl {line}\n"
        );
        assert!(said.ends_with(&advice), "{line}: {said}");
    }
}

#[test]
fn closed_pipe_is_no_error() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    let output = run(command.arg("list-devices").stdout(writer));
    assert!(
        output.status.success(),
        "{}: {}",
        output.status,
        stderr(&output)
    );
    assert_eq!(stderr(&output), "");
}

#[test]
fn full_disk_is_an_error() {
    let Some(mut command) = vhostctl_with(&["laptop"]) else {
        return;
    };
    let full = std::fs::File::create("/dev/full").expect("/dev/full");
    let output = run(command.arg("list-devices").stdout(full));
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("No space left"),
        "{}",
        stderr(&output)
    );
}
