// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A device that is found by its numbers.

use super::*;

/// The program, with these options.
fn start(device: &HostDevice, options: &[&str]) -> Program {
    let command = device.command_beside(input_program()).args(options);
    command.socket(SocketForm::Path).spawn().unwrap()
}

/// What a start says that fails with this status.
fn refusal(device: &HostDevice, options: &[&str], status: i32) -> String {
    let mut program = start(device, options);
    let ended = program.wait_exit(DEFAULT_LIMIT).unwrap();
    assert_eq!(
        ended.code(),
        Some(status),
        "{options:?}: {}",
        program.stderr()
    );
    program.stderr()
}

#[test]
fn device_is_found_by_its_numbers() {
    let mut device = HostDevice::new(TOUCH);
    for options in [
        &["--evdev-match=04f3:2234"][..],
        &[
            "--evdev-match=04F3:2234:4D2-0815",
            "--evdev-name=Test Touchscreen",
        ],
    ] {
        let mut program = start(&device, options);
        let session = program.session().unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let mut input = Input::connect(session, &memory, InputOptions::default()).unwrap();
        assert_eq!(input.name().unwrap(), "Test Touchscreen");
        device.forget();
        input.run().unwrap();
        device.wait_grab(true);
        drop(input);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn start_without_the_device_says_which_one_is_missing() {
    let device = HostDevice::new(TOUCH);
    for (options, missing) in [
        (&["--evdev-match=04f3:2235"][..], "04f3:2235"),
        (&["--evdev-match=04f3:2234:4D2"], "04f3:2234:4D2"),
        (
            &["--evdev-match=04f3:2234", "--evdev-name=Test"],
            "04f3:2234, Test",
        ),
        (
            &["--evdev-match=04f3:2234", "--evdev-interface=input1"],
            "04f3:2234, input1",
        ),
    ] {
        let said = refusal(&device, options, 1);
        let expected = format!("there is no input device {missing}: see");
        assert!(said.contains(&expected), "{said}");
    }
}

#[test]
fn options_name_one_device() {
    let device = HostDevice::new(TOUCH);
    let path = format!("--evdev-path={}", device.path());
    let said = refusal(&device, &["--evdev-match=04f3:2234", &path], 1);
    assert!(
        said.contains("either --evdev-path=/dev/input/event0 or --evdev-match=04f3:2234"),
        "{said}"
    );
    for options in [
        &["--evdev-match=touchscreen"][..],
        &["--evdev-match=04f3:2234:"],
        &["--evdev-name=Test Touchscreen"],
        &["--evdev-name=Test Touchscreen", &path],
        &["--evdev-match=04f3:2234", "--virtual=tablet"],
    ] {
        refusal(&device, options, 2);
    }
}
