// SPDX-License-Identifier: Apache-2.0 OR MIT
//! When a guest gets the device, and the state of the device after the program ends.

use rustix::process::Signal;

use super::*;

const JOYSTICK: &str = "name Test Joystick\nid 0003 044f 0402 0100\n\
                        key 256-265 288-303 336-337 656-767\nabs 0 0 255 0 0 0\n";
const PEN: &str = "name Test Pen\nid 0003 056a 0357 0110\nkey 272-274 320-322 326 330-332\n\
                   abs 0 0 4095 0 0 15\nabs 1 0 4095 0 0 15\n";

/// A program with a connected front-end, whose driver does not run yet.
fn connected(description: &str) -> Vm {
    let mut vm = Vm::connect(description, &[], InputOptions::default());
    vm.device.forget();
    vm
}

#[test]
fn signals_end_the_program_in_each_state() {
    for signal in [Signal::TERM, Signal::INT] {
        let device = HostDevice::new(KEYBOARD);
        let waiting = device.command(input_program());
        let mut waiting = waiting.socket(SocketForm::Path).notify().spawn().unwrap();
        waiting.notify().unwrap().wait_ready(DEFAULT_LIMIT).unwrap();
        waiting.signal(signal).unwrap();
        assert_clean_exit(&mut waiting);
        assert!(!waiting.socket_path().exists(), "the socket stays behind");

        let mut vm = Vm::start(KEYBOARD);
        vm.device.send(&[key(30, 1), Event::report()]);
        vm.input.next_report().unwrap();
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
        vm.device.wait_grab(false);

        // A guest that takes no events.
        let options = InputOptions {
            refill: false,
            ..InputOptions::default()
        };
        let mut vm = Vm::with(KEYBOARD, &[], options);
        for _ in 0..100 {
            vm.device
                .send(&[key(30, 1), Event::report(), key(30, 0), Event::report()]);
        }
        vm.program.signal(signal).unwrap();
        assert_clean_exit(&mut vm.program);
    }
}

#[test]
fn leds_are_restored_at_every_end() {
    let led = |code, value| Event::new(EV_LED, code, value);
    // By a front-end that is killed, and by a signal.
    for end in [None, Some(Signal::TERM), Some(Signal::INT)] {
        let mut vm = connected(KEYBOARD);
        vm.device.set(&[led(0, 1), Event::report()]);
        vm.input.run().unwrap();
        vm.device.wait_grab(true);
        for (code, value) in [(0, 0), (1, 1)] {
            let wanted = [led(code, value), Event::report()];
            vm.input.send_status(&wanted).unwrap();
            vm.device.wait_led(code, value);
        }
        vm.device.forget();
        let Vm {
            input,
            mut program,
            mut device,
        } = vm;
        let input = match end {
            None => {
                drop(input);
                None
            }
            Some(signal) => {
                program.signal(signal).unwrap();
                Some(input)
            }
        };
        assert_clean_exit(&mut program);
        device.wait_led(0, 1);
        device.wait_led(1, 0);
        device.wait_grab(false);
        drop(input);
    }
}

#[test]
fn buttons_that_may_stay_held_do_not_delay_the_guest() {
    for (description, held) in [
        // BTN_0, BTN_TRIGGER, BTN_GEAR_UP, KEY_MACRO1, BTN_TRIGGER_HAPPY1, 41 and 64.
        (JOYSTICK, &[256, 288, 337, 656, 704, 0x2e8, 0x2ff][..]),
        // BTN_TOOL_PEN, BTN_TOOL_MOUSE, BTN_TOUCH.
        (PEN, &[320, 326, 330]),
    ] {
        let mut vm = connected(description);
        let held: Vec<_> = held.iter().map(|code| key(*code, 1)).collect();
        vm.device.set(&[&held[..], &[Event::report()]].concat());
        vm.input.run().unwrap();
        vm.device.wait_grab(true);
        let told = vm.input.next_report().unwrap();
        let keys = told.iter().filter(|event| event.kind == EV_KEY);
        assert_eq!(keys.copied().collect::<Vec<_>>(), held);
        vm.finish();
    }
}

#[test]
fn long_wait_for_a_key_is_in_the_log() {
    let held = [(KEYBOARD, 30, "KEY_A"), (MOUSE, 272, "BTN_LEFT")];
    for (description, code, name) in held {
        let mut vm = connected(description);
        vm.device.set(&[key(code, 1), Event::report()]);
        vm.input.run().unwrap();
        let said = format!("until {name} is released on the host");
        vm.program.wait_stderr(&said).unwrap();
        assert!(!vm.device.was_grabbed());
        vm.device.send(&[key(code, 0), Event::report()]);
        vm.device.wait_grab(true);
        let said = vm.program.stderr();
        assert_eq!(said.matches(name).count(), 1, "{said}");
        vm.finish();
    }
}
