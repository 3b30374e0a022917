// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Helpers of the tests: running vhostctl, and skipping what this machine lacks.

#![allow(dead_code, reason = "each test program uses its part of this")]

pub(crate) mod document;
pub(crate) mod follower;
pub(crate) mod host;
pub(crate) mod json_members;

use std::path::Path;
use std::process::{Command, Output};

/// The variable that turns a failure for lack of something into a skipped test.
const SKIP: &str = "VHOSTCTL_TEST_SKIP_MISSING";

/// The program under test, in an environment that does not depend on who runs the tests.
pub(crate) fn vhostctl() -> Command {
    clean(Command::new(env!("CARGO_BIN_EXE_vhostctl")))
}

/// The same on a machine with these devices and no others; `None` if that cannot be had here.
///
/// The files lie in `tests/mock`, in the format of umockdev-record(1).
pub(crate) fn vhostctl_with(devices: &[&str]) -> Option<Command> {
    if !have("umockdev-run", "package umockdev") {
        return None;
    }
    let mut command = clean(Command::new("umockdev-run"));
    for name in devices {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mock");
        command
            .arg("--device")
            .arg(folder.join(name).with_extension("umockdev"));
    }
    command.arg("--").arg(env!("CARGO_BIN_EXE_vhostctl"));
    Some(command)
}

fn clean(mut command: Command) -> Command {
    for name in [
        "COLUMNS",
        "NO_COLOR",
        "SYSTEMD_COLORS",
        "TERM",
        "DBUS_SYSTEM_BUS_ADDRESS",
        "LC_ALL",
        "LC_CTYPE",
        "SYSTEMD_UTF8",
    ] {
        command.env_remove(name);
    }
    command.env("LANG", "C.UTF-8");
    command
}

/// Whether a program is installed.
pub(crate) fn have(program: &str, origin: &str) -> bool {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
    });
    found || missing(&format!("{program} ({origin})"))
}

/// Says that this machine lacks something: false, or a failed test unless such tests are to be skipped.
pub(crate) fn missing(what: &str) -> bool {
    assert!(
        std::env::var_os(SKIP).is_some_and(|value| value == "1"),
        "this test needs {what}; set {SKIP}=1 to skip what cannot be tested here"
    );
    println!("SKIPPED: needs {what}");
    eprintln!("SKIPPED: needs {what}");
    false
}

/// Runs it and expects success; what it wrote, with nothing on standard error.
pub(crate) fn stdout(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        stderr(&output)
    );
    assert_eq!(stderr(&output), "", "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Runs it.
pub(crate) fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What it complained about.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
