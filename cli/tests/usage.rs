//! The command line as such.

mod common;

use std::io::pipe;

use common::{run, stderr, stdout, vhostctl, vhostctl_with};

#[test]
fn help_and_version_are_results() {
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
fn bad_usage_is_told_and_fails_as_systemctl_does() {
    for (bad, word) in [
        (&["launch"][..], "launch"),
        (&["--colour"], "--colour"),
        (&["list-devices", "--type=tpu"], "tpu"),
        (&["--json=xml"], "xml"),
        (&["list-devices", "vm1"], "vm1"),
    ] {
        let output = run(vhostctl().args(bad));
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
        assert_eq!(output.stdout, b"", "{bad:?}");
        assert!(
            stderr(&output).contains(word),
            "{bad:?}: {}",
            stderr(&output)
        );
    }
}

#[test]
fn a_reader_that_leaves_is_no_error() {
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
fn a_full_disk_is_an_error() {
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
