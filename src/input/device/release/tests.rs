// SPDX-License-Identifier: Apache-2.0 OR MIT

use std::process::Command;

use super::*;

const INSIDE: &str = "RELEASE_TEST";

/// Runs the test below again, in a process that `launcher` starts. Returns whether it hears the signals.
fn hears(launcher: &[&str]) -> bool {
    let test = std::env::current_exe().expect("a test has a file");
    let name = "input::device::release::tests::signals_are_not_heard_at_a_terminal";
    let inside = format!("'{}' --exact {name} --nocapture", test.display());
    let (program, arguments) = launcher.split_first().expect("a program");
    let output = Command::new(program)
        .args(arguments)
        .arg(inside)
        .env(INSIDE, "1")
        .output()
        .expect("cannot start a process");
    let said = String::from_utf8_lossy(&output.stdout);
    match (said.contains("it hears"), said.contains("it is deaf")) {
        (true, false) => true,
        (false, true) => false,
        _ => panic!("{said}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn say_whether_signals_are_heard() {
    let control = GrabControl::new(&GrabOptions::default(), &Continuity::default());
    let control = control.expect("it can hear");
    for signal in [RELEASE_SIGNAL, GRAB_SIGNAL] {
        signal_hook::low_level::raise(signal).expect("a signal can be raised");
    }
    let hears = control
        .signals
        .is_some_and(|signals| is_signalled(&signals.release) && is_signalled(&signals.grab));
    println!("{}", if hears { "it hears" } else { "it is deaf" });
}

/// A terminal sends one of them whenever its size changes.
#[test]
fn signals_are_not_heard_at_a_terminal() {
    if std::env::var_os(INSIDE).is_some() {
        return say_whether_signals_are_heard();
    }
    assert!(hears(&["setsid", "--wait", "sh", "-c"]));
    assert!(!hears(&["script", "--quiet", "/dev/null", "--command"]));
}
