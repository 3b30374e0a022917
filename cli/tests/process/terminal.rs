// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Device names, files and arguments cannot steer the terminal.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use crate::common::{run, stderr, vhostctl, vhostctl_with};

/// Whether a terminal would do something else than show it.
fn steers(text: &str) -> bool {
    text.contains(|c: char| c.is_control() && c != '\n' || c == '\u{202e}')
}

#[test]
fn usage_errors_cannot_steer_the_terminal() {
    for (bad, word) in [
        (&["laun\x1b[2Jch"][..], r"laun\x1b[2Jch"),
        (&["--colo\x1bur"], r"--colo\x1bur"),
        (&["list-devices", "--type=t\x1bp\u{9b}u"], r"t\x1bp\x9bu"),
        (&["--json=x\x07ml"], r"x\x07ml"),
        (&["qemu-args", "a\u{202e}b"], r"a\u{202e}b"),
        (&["status", "-n", "\x1b[31m"], r"\x1b[31m"),
    ] {
        let output = run(vhostctl().env("CLICOLOR_FORCE", "1").args(bad));
        assert_eq!(output.status.code(), Some(1), "{bad:?}");
        let said = stderr(&output);
        assert!(said.contains(word), "{bad:?}: {said:?}");
        assert!(!steers(&said), "{bad:?}: {said:?}");
    }
    let output = run(vhostctl().arg(OsStr::from_bytes(b"a\xff\x9b\x1bb")));
    assert!(!steers(&stderr(&output)), "{:?}", stderr(&output));
}

#[test]
fn tables_and_json_cannot_steer_the_terminal() {
    for arguments in [&["list-devices"][..], &["list-devices", "--json=pretty"]] {
        let Some(mut command) = vhostctl_with(&["evil"]) else {
            return;
        };
        let output = run(command.args(arguments));
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains("Evil"), "{text:?}");
        assert!(!steers(&text.replace('\t', "")), "{text:?}");
    }
}
