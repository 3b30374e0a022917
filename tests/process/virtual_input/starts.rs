// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Options, sockets, and the ends of a program without a front-end.

use std::os::unix::net::UnixListener;

use frontend::SocketForm;

use super::*;
use crate::common::assert_early_failure;

#[test]
fn sockets_are_told_apart_by_name_whatever_their_order() {
    for names in [[VHOST_USER, EVENTS], [EVENTS, VHOST_USER]] {
        let mut program = command("keyboard").activated(&names).spawn().unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let session = program.session().unwrap();
        let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
        let mut console = EventsClient::connect(&program.further_path(EVENTS)).unwrap();
        console.send(&report(key(KEY_A, 1))).unwrap();
        assert_eq!(input.next_report().unwrap(), report(key(KEY_A, 1)));
        drop(input);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn events_socket_is_made_or_passed() {
    let folder = tempfile::tempdir().unwrap();
    let (made, passed) = (folder.path().join("made"), folder.path().join("passed"));
    let listener = UnixListener::bind(&passed).unwrap();
    let program = || Command::new(input_program()).arg("--virtual=tablet");
    let commands = [
        (
            &made,
            program().arg(format!("--events-socket={}", made.display())),
        ),
        (&passed, program().arg("--events-fd=9").pass(9, listener)),
    ];
    for (path, command) in commands {
        let mut program = command.socket(SocketForm::Path).spawn().unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let session = program.session().unwrap();
        let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
        let mut console = EventsClient::connect(path).unwrap();
        console.send(&report(key(0x110, 1))).unwrap();
        assert_eq!(input.next_report().unwrap(), report(key(0x110, 1)));
        drop(input);
        assert_clean_exit(&mut program);
    }
    assert!(!made.exists());
}

#[test]
fn contradictions_and_gaps_are_refused() {
    let program = || Command::new(input_program()).socket(SocketForm::Path);
    let cases: [(&[&str], &[&str]); 7] = [
        (&["--virtual=keyboard"], &["--events-socket"]),
        (
            &["--virtual=mouse", "--events-socket=x"],
            &["keyboard", "tablet"],
        ),
        (
            &["--virtual=tablet", "--no-grab", "--events-socket=x"],
            &["--no-grab"],
        ),
        (
            &[
                "--virtual=tablet",
                "--evdev-path=/dev/null",
                "--events-socket=x",
            ],
            &["/dev/null"],
        ),
        (
            &["--evdev-path=/dev/null", "--events-socket=x"],
            &["--virtual"],
        ),
        (&[], &["--evdev-path"]),
        (&["--evdev-path="], &["EVDEV_PATH", "--virtual"]),
    ];
    for (arguments, words) in cases {
        let mut program = program().args(arguments).spawn().unwrap();
        assert_early_failure(&mut program, words);
    }
}

/// As the unit's command line is: `--evdev-path=${EVDEV_PATH} --wait=${STATE_DIRECTORY}/device.json $OPTIONS`.
#[test]
fn empty_evdev_path_leaves_the_choice_to_virtual() {
    let mut program = Command::new(input_program())
        .args([
            "--evdev-path=",
            "--wait=/nowhere/device.json",
            "--virtual=keyboard",
        ])
        .activated(&[VHOST_USER, EVENTS])
        .spawn()
        .unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let session = program.session().unwrap();
    let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
    assert_eq!(input.name().unwrap(), "vhost-user keyboard");
    drop(input);
    assert_clean_exit(&mut program);
}

/// The unit of the events socket may have failed: the VM starts with the device nevertheless.
#[test]
fn device_starts_without_the_events_socket_of_its_unit() {
    let mut program = Command::new(input_program())
        .args(["--evdev-path=", "--virtual=keyboard"])
        .activated(&[VHOST_USER])
        .spawn()
        .unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let session = program.session().unwrap();
    let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
    assert_eq!(input.name().unwrap(), "vhost-user keyboard");
    drop(input);
    assert_clean_exit(&mut program);
    let log = program.stderr();
    assert!(log.contains("no socket named \"events\""), "{log}");
}

#[test]
fn program_that_only_consoles_started_ends_with_the_last() {
    let mut program = command("keyboard").spawn().unwrap();
    let connect = |program: &Program| {
        let mut console = EventsClient::connect(&program.further_path(EVENTS)).unwrap();
        assert_eq!(console.next_report().unwrap(), leds([0, 0, 0]));
        console
    };
    let (one, mut two) = (connect(&program), connect(&program));
    drop(one);
    two.send(&report(key(KEY_A, 1))).unwrap();
    // One that sends nonsense leaves as well.
    two.send(&report(key(0, 1))).unwrap();
    two.wait_closed().unwrap();
    assert_clean_exit(&mut program);
}

#[test]
fn program_with_a_front_end_stays_when_the_last_console_leaves() {
    let mut vm = Vm::start("keyboard");
    for _ in 0..3 {
        let mut console = vm.console();
        console.next_report().unwrap();
        console.send(&report(key(KEY_A, 1))).unwrap();
        assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
        drop(console);
        assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 0)));
    }
    vm.finish();
}
