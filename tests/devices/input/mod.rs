// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-input over its socket, on a mock evdev device: configuration, events and LEDs of the guest's
//! driver.

mod lifetime;
mod matched;

use std::time::Duration;

use crate::common::evdev::HostDevice;
use crate::common::*;
use frontend::features::{EVENT_IDX, INDIRECT_DESC};
use frontend::input::{
    AbsInfo, CONFIG_HEADER_SIZE, CONFIG_SIZE, ConfigAccess, Event, Input, InputOptions, Select,
};
use frontend::{DEFAULT_LIMIT, Deadline, Memory, Program, SocketForm};
use harness::mock::codes::*;

const KEYBOARD: &str = "name Test Keyboard\nid 0003 046d c31c 0110\nkey 1-88 96-119 140\n\
                        msc 4\nled 0-2\nrep\n";
const TOUCH: &str = "name Test Touchscreen\nid 0018 04f3 2234 0100\nuniq 4D2-0815\nprop 1\n\
                     key 330\nabs 0 0 4095 2 3 15\nabs 1 -5 2303 0 0 15\nabs 47 0 9 0 0 0\n\
                     abs 53 0 4095 0 0 15\nabs 54 0 2303 0 0 15\nabs 57 0 65535 0 0 0\n";
const MOUSE: &str = "name Test Mouse\nid 0003 046d c077 0111\nkey 272-276\nrel 0-1 8 11\nmsc 4\n";

/// A running input program on a mock device, and the guest's driver.
struct Vm {
    input: Input,
    program: Program,
    device: HostDevice,
}

impl Vm {
    fn start(description: &str) -> Self {
        Self::with(description, &[], InputOptions::default())
    }

    fn with(description: &str, arguments: &[&str], options: InputOptions) -> Self {
        let mut vm = Self::connect(description, arguments, options);
        vm.device.forget();
        vm.input.run().unwrap();
        if !arguments.contains(&"--no-grab") {
            vm.device.wait_grab(true);
        }
        vm.settle();
        vm
    }

    /// With a driver that does not run yet.
    fn connect(description: &str, arguments: &[&str], options: InputOptions) -> Self {
        let device = HostDevice::new(description);
        let mut program = spawn(&device, arguments);
        let session = program.session().unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let input = Input::connect(session, &memory, options).unwrap();
        let mut vm = Self {
            input,
            program,
            device,
        };
        // The program has tried to grab the device once it answers.
        vm.input.name().unwrap();
        vm
    }

    /// Waits until the driver has been told the state in which the device is at its start. What is
    /// typed before that may be the host's still.
    fn settle(&mut self) {
        let quiet = Duration::from_millis(100);
        loop {
            match self.input.next_event(quiet) {
                Ok(event) => assert!((event.kind, event.value) != (EV_KEY, 1), "{event:?}"),
                Err(e) if e.is_timeout() => return,
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn finish(self) {
        let Self {
            input, mut program, ..
        } = self;
        drop(input);
        assert_clean_exit(&mut program);
    }
}

fn spawn(device: &HostDevice, arguments: &[&str]) -> Program {
    let command = device.command(input_program()).args(arguments);
    command.socket(SocketForm::Connected(5)).spawn().unwrap()
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

/// A report of `count` moves of fingers, SYN_REPORT included.
fn long_report(count: u16, seed: i32) -> Vec<Event> {
    let mut report = Vec::new();
    for slot in 0..(count - 1) / 2 {
        report.push(Event::new(EV_ABS, 47, slot.into()));
        report.push(Event::new(EV_ABS, 53, seed + i32::from(slot)));
    }
    while report.len() + 1 < count.into() {
        report.push(Event::new(EV_ABS, 54, seed));
    }
    report.push(Event::report());
    report
}

#[test]
fn keyboard_description_matches_the_host() {
    for access in [ConfigAccess::Whole, ConfigAccess::Bytes] {
        let options = InputOptions {
            access,
            ..InputOptions::default()
        };
        let mut vm = Vm::with(KEYBOARD, &[], options);
        let input = &mut vm.input;
        assert_eq!(input.name().unwrap(), "Test Keyboard");
        assert_eq!(input.serial().unwrap(), "", "it has no serial");
        assert_eq!(input.devids().unwrap(), [3, 0x046d, 0xc31c, 0x0110]);
        assert!(input.properties().unwrap().is_empty());
        let keys: Vec<u16> = (1..=88).chain(96..=119).chain([140]).collect();
        assert_eq!(input.codes(EV_KEY).unwrap(), keys);
        assert_eq!(input.codes(EV_MSC).unwrap(), [4]);
        assert_eq!(input.codes(EV_LED).unwrap(), [0, 1, 2]);
        assert_eq!(input.codes(EV_REP).unwrap(), [0, 1]);
        for none in [EV_REL, EV_ABS, EV_SW, EV_SND, 6, 31, 32, 255] {
            assert!(input.codes(none).unwrap().is_empty(), "type {none}");
        }
        assert_eq!(input.abs_info(0).unwrap(), None);
        assert!(input.config(Select::Unset, 0).unwrap().is_empty());
        vm.finish();
    }
}

#[test]
fn touch_screen_description_matches_the_host() {
    for access in [ConfigAccess::Whole, ConfigAccess::Bytes] {
        let options = InputOptions {
            access,
            ..InputOptions::default()
        };
        let mut vm = Vm::with(TOUCH, &[], options);
        let input = &mut vm.input;
        assert_eq!(input.name().unwrap(), "Test Touchscreen");
        assert_eq!(input.serial().unwrap(), "4D2-0815");
        assert_eq!(input.devids().unwrap(), [0x18, 0x04f3, 0x2234, 0x0100]);
        assert_eq!(input.properties().unwrap(), [1]);
        assert_eq!(input.codes(EV_KEY).unwrap(), [330]);
        assert_eq!(input.codes(EV_ABS).unwrap(), [0, 1, 47, 53, 54, 57]);
        assert!(input.codes(EV_REP).unwrap().is_empty());
        let x = AbsInfo {
            min: 0,
            max: 4095,
            fuzz: 2,
            flat: 3,
            res: 15,
        };
        assert_eq!(input.abs_info(0).unwrap(), Some(x));
        let y = input.abs_info(1).unwrap().unwrap();
        assert_eq!((y.min as i32, y.max), (-5, 2303));
        for none in [2, 46, 63, 64, 255] {
            assert_eq!(input.abs_info(none).unwrap(), None, "axis {none}");
        }
        vm.finish();
    }
}

#[test]
fn unknown_selectors_have_size_0() {
    let mut vm = Vm::start(MOUSE);
    for select in 0..=255_u8 {
        for subsel in [0, 1, 63, 64, 255] {
            vm.input.session.set_config(0, &[select, subsel]).unwrap();
            let config = vm.input.session.config(0, CONFIG_SIZE).unwrap();
            let known = match select {
                1 | 3 => subsel == 0,
                0x11 => subsel == 1,
                _ => false,
            };
            assert_eq!(
                config[2] != 0,
                known,
                "{select:#x}, {subsel}: size {}",
                config[2]
            );
            let rest = &config[CONFIG_HEADER_SIZE + usize::from(config[2])..];
            assert!(
                rest.iter().all(|b| *b == 0),
                "{select:#x}, {subsel}: bytes beyond the size"
            );
        }
    }
    vm.finish();
}

#[test]
fn keys_arrive() {
    let mut vm = Vm::start(KEYBOARD);
    for code in 30..60 {
        let press = [
            Event::new(EV_MSC, 4, code.into()),
            key(code, 1),
            Event::report(),
        ];
        let release = [key(code, 0), Event::report()];
        vm.device.send(&press);
        assert_eq!(vm.input.next_report().unwrap(), press);
        vm.device.send(&release);
        assert_eq!(vm.input.next_report().unwrap(), release);
    }
    vm.input.no_event(Duration::from_millis(50)).unwrap();
    vm.finish();
}

#[test]
fn report_is_one_update_and_at_most_one_notification() {
    for features in [0, EVENT_IDX] {
        let options = InputOptions {
            features,
            ..InputOptions::default()
        };
        let mut vm = Vm::with(TOUCH, &[], options);
        let before = vm.input.events.notifications().unwrap();
        for n in 0..20 {
            let report = long_report(15, n);
            vm.device.send(&report);
            assert_eq!(vm.input.next_report().unwrap(), report);
        }
        let notified = vm.input.events.notifications().unwrap() - before;
        assert!(notified <= 20, "{notified} notifications of 20 reports");
        vm.finish();
    }
}

#[test]
fn report_longer_than_the_queue_arrives_whole() {
    for features in [0, INDIRECT_DESC | EVENT_IDX] {
        let options = InputOptions {
            features,
            queue_size: 4,
            ..InputOptions::default()
        };
        let mut vm = Vm::with(TOUCH, &[], options);
        for n in 0..10 {
            let report = long_report(20, n);
            vm.device.send(&report);
            assert_eq!(vm.input.next_report().unwrap(), report);
        }
        vm.finish();
    }
}

/// A driver that gives its buffers late gets whole reports, and in the end the true state.
#[test]
fn slow_driver_gets_whole_reports_and_no_stuck_key() {
    let options = InputOptions {
        refill: false,
        queue_size: 64,
        ..InputOptions::default()
    };
    let mut vm = Vm::with(KEYBOARD, &[], options);
    // Far more than anyone keeps: some are dropped.
    for _ in 0..100 {
        let tap = |code| [key(code, 1), Event::report(), key(code, 0), Event::report()];
        let taps: Vec<_> = (30..40).flat_map(tap).collect();
        vm.device.send(&taps);
        // No faster than the mock's terminal is read, which holds 4 KiB.
        std::thread::sleep(Duration::from_millis(3));
    }
    vm.device.send(&[key(57, 1), Event::report()]);
    std::thread::sleep(Duration::from_millis(300));

    let mut down = std::collections::BTreeSet::new();
    let mut report = Vec::new();
    let mut reports = 0;
    let deadline = Deadline::after(Duration::from_secs(60));
    loop {
        vm.input.give(8).unwrap();
        match vm.input.next_event(Duration::from_millis(300)) {
            Ok(event) if event.is_report() => {
                assert!(!report.is_empty(), "an empty report");
                for event in report.drain(..) {
                    let Event { kind, code, value } = event;
                    assert_eq!(kind, EV_KEY);
                    match value {
                        0 => drop(down.remove(&code)),
                        _ => drop(down.insert(code)),
                    }
                }
                reports += 1;
            }
            Ok(event) => report.push(event),
            // On a busy machine the mock, or the program, may not have come to the last key yet.
            Err(e) if e.is_timeout() => {
                if down.iter().eq(&[57]) || deadline.left().is_zero() {
                    break;
                }
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(report.is_empty(), "a part of a report: {report:?}");
    assert!(reports > 0);
    assert_eq!(
        down.into_iter().collect::<Vec<_>>(),
        [57],
        "what the guest believes is down"
    );
    vm.finish();
}

#[test]
fn leds_reach_the_device() {
    let mut vm = Vm::start(KEYBOARD);
    for (code, value) in [(0, 1), (1, 1), (0, 0), (2, 1), (1, 0)] {
        let report = [Event::new(EV_LED, code, value), Event::report()];
        vm.input.send_status(&report).unwrap();
        vm.device.wait_led(code, value);
    }
    // What the device has not, and no LED at all, changes nothing and does no harm.
    let strange = [
        Event::new(EV_LED, 9, 1),
        Event::new(EV_LED, u16::MAX, i32::MIN),
        Event::new(EV_KEY, 30, 1),
        Event::new(u16::MAX, u16::MAX, -1),
        Event::new(EV_SYN, 3, 0),
    ];
    vm.input.send_status(&strange).unwrap();
    vm.input
        .send_status(&[Event::new(EV_LED, 0, 1), Event::report()])
        .unwrap();
    vm.device.wait_led(0, 1);
    vm.finish();
}

#[test]
fn device_is_grabbed_while_a_guest_runs() {
    let mut vm = Vm::connect(KEYBOARD, &[], InputOptions::default());
    // A trial at the start is let go at once: only the guest keeps it.
    if vm.device.was_grabbed() {
        vm.device.wait_grab(false);
    }
    vm.input.run().unwrap();
    vm.device.wait_grab(true);
    vm.input.stop().unwrap();
    vm.device.wait_grab(false);
    vm.input.restart().unwrap();
    vm.device.wait_grab(true);
    vm.settle();
    vm.device.send(&[key(30, 1), Event::report()]);
    assert_eq!(
        vm.input.next_report().unwrap(),
        [key(30, 1), Event::report()]
    );
    let Vm {
        input,
        mut program,
        mut device,
    } = vm;
    drop(input);
    assert_clean_exit(&mut program);
    device.wait_grab(false);
}

#[test]
fn no_grab_option_leaves_the_device_to_the_host() {
    let mut vm = Vm::with(KEYBOARD, &["--no-grab"], InputOptions::default());
    vm.input.name().unwrap();
    vm.device.send(&[key(30, 1), Event::report()]);
    assert_eq!(
        vm.input.next_report().unwrap(),
        [key(30, 1), Event::report()]
    );
    assert!(!vm.device.was_grabbed());
    vm.finish();
}

/// A driver that is loaded again begins with all keys up, whatever was down.
#[test]
fn new_driver_gets_the_keyboard() {
    let mut vm = Vm::start(KEYBOARD);
    for _ in 0..3 {
        vm.device.send(&[key(30, 1), Event::report()]);
        assert_eq!(
            vm.input.next_report().unwrap(),
            [key(30, 1), Event::report()]
        );
        vm.input.stop().unwrap();
        vm.device.wait_grab(false);
        vm.device.send(&[key(30, 0), Event::report()]);
        vm.input.restart().unwrap();
        vm.device.wait_grab(true);
        vm.settle();
        vm.device.send(&[key(31, 1), Event::report()]);
        let report = vm.input.next_report().unwrap();
        assert!(report.contains(&key(31, 1)), "{report:?}");
        vm.device.send(&[key(31, 0), Event::report()]);
        vm.input.next_report().unwrap();
    }
    vm.finish();
}

#[test]
fn guest_choices_do_not_end_the_connection() {
    let device = HostDevice::new(KEYBOARD);
    let mut program = spawn(&device, &[]);
    let mut session = program.session().unwrap();
    assert_choices(&mut session);
    drop(session);
    assert_clean_exit(&mut program);
}
