// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A hostile guest of vhost-user-input, and devices that fail: the other queue keeps running, nothing
//! grows, and the program ends with a message.

use std::time::Duration;

use crate::common::evdev::{HostDevice, KEYBOARD};
use crate::common::growth::Holdings;
use crate::common::*;
use frontend::input::{CONFIG_SIZE, Event, Input, InputOptions};
use frontend::{
    Buffer, Command, DEFAULT_LIMIT, Deadline, Descriptor, Memory, Program, SocketForm,
    descriptor_flags as flags,
};
use harness::mock::codes::{EV_KEY, EV_LED, EV_REP};

const EVENTS: u32 = 0;
const STATUS: u32 = 1;

struct Vm {
    input: Input,
    memory: Memory,
    program: Program,
    device: HostDevice,
}

impl Vm {
    fn start(options: InputOptions) -> Self {
        let mut device = HostDevice::new(KEYBOARD);
        let command = device.command(input_program());
        let mut program = command.socket(SocketForm::Connected(5)).spawn().unwrap();
        let session = program.session().unwrap();
        let memory = Memory::with_size(4 << 20).unwrap();
        let mut input = Input::connect(session, &memory, options).unwrap();
        input.name().unwrap();
        device.forget();
        input.run().unwrap();
        device.wait_grab(true);
        let mut vm = Self {
            input,
            memory,
            program,
            device,
        };
        vm.settle();
        vm
    }

    /// Waits until the driver was told the state in which the device is at its start: what is typed
    /// before may be the host's still.
    fn settle(&mut self) {
        while self.input.next_event(Duration::from_millis(100)).is_ok() {}
    }

    /// Asserts that a key of the host arrives, after whatever came before it.
    fn key_arrives(&mut self, code: u16) {
        let press = Event::new(EV_KEY, code, 1);
        self.device.send(&[press, Event::report()]);
        let deadline = Deadline::after(DEFAULT_LIMIT);
        while self.input.next_event(deadline.left()).unwrap() != press {}
        self.device
            .send(&[Event::new(EV_KEY, code, 0), Event::report()]);
    }

    fn led_is_set(&mut self, value: i32) {
        let led = [Event::new(EV_LED, 1, value), Event::report()];
        self.input.send_status(&led).unwrap();
        self.device.wait_led(1, value);
    }

    /// A new driver finds a device that works.
    fn works_for_a_new_driver(&mut self) {
        self.input.stop().unwrap();
        self.device.wait_grab(false);
        self.input.restart().unwrap();
        self.device.wait_grab(true);
        self.settle();
        self.key_arrives(30);
        self.led_is_set(1);
    }

    fn finish(self) {
        let Self {
            input, mut program, ..
        } = self;
        drop(input);
        assert_clean_exit(&mut program);
    }
}

#[test]
fn malformed_buffers_are_returned_and_stop_nothing() {
    let mut vm = Vm::start(InputOptions::default());
    let page = vm.memory.alloc(4096, 4096).unwrap();
    let outside = vm.memory.end();
    let chains: [&[Buffer]; 8] = [
        &[Buffer::readable(page, 0)],
        &[Buffer::readable(page, 7)],
        &[Buffer::readable(page, 1 << 20)],
        &[Buffer::writable(page, 8)],
        &[Buffer::readable(outside, 8)],
        &[Buffer::readable(outside - 4, 8)],
        &[Buffer::readable(u64::MAX - 3, 8)],
        &[Buffer::writable(page, 8), Buffer::readable(page, 4)],
    ];
    for chain in chains {
        vm.input.status.add(chain).unwrap();
        vm.input.status.submit().unwrap();
        let used = vm.input.status.wait_used(QUICK).unwrap();
        assert_eq!(used.len, 0, "{chain:x?}");
    }
    // Split at each byte, an event is an event.
    let bytes = [
        &EV_LED.to_le_bytes()[..],
        &1_u16.to_le_bytes(),
        &1_i32.to_le_bytes(),
    ]
    .concat();
    vm.memory.write(page, &bytes).unwrap();
    for cut in 0..=8 {
        vm.led_is_set(0);
        let split = [
            Buffer::readable(page, cut),
            Buffer::readable(page + u64::from(cut), 8 - cut),
        ];
        vm.input.status.add(&split).unwrap();
        vm.input.status.submit().unwrap();
        vm.input.status.wait_used(QUICK).unwrap();
        vm.device.wait_led(1, 1);
    }
    // Chains that loop, and a head that there is not.
    for next in [0, 1, 63, 64, u16::MAX] {
        for kind in [flags::NEXT, flags::NEXT | flags::WRITE, flags::INDIRECT] {
            let head = Descriptor {
                address: page,
                len: 0,
                flags: kind,
                next,
            };
            vm.input.status.write_descriptor(0, head).unwrap();
            vm.input.status.offer(0).unwrap();
            vm.input.status.submit().unwrap();
            vm.input.status.wait_used(QUICK).unwrap();
        }
        vm.key_arrives(31);
    }
    vm.input.status.offer(777).unwrap();
    vm.input.status.submit().unwrap();
    vm.key_arrives(32);
    vm.led_is_set(1);
    vm.finish();
}

#[test]
fn event_buffers_too_small_for_an_event_are_returned() {
    let chains: [fn(u64, u64) -> Vec<Buffer>; 4] = [
        |page, _| vec![Buffer::writable(page, 7)],
        |page, _| vec![Buffer::readable(page, 8)],
        |_, outside| vec![Buffer::writable(outside, 8)],
        |page, outside| vec![Buffer::writable(page, 0), Buffer::writable(outside - 2, 8)],
    ];
    for chain in chains {
        let mut vm = Vm::start(InputOptions {
            refill: false,
            ..InputOptions::default()
        });
        let page = vm.memory.alloc(4096, 4096).unwrap();
        let chain = chain(page, vm.memory.end());
        // As many as a report needs, twice.
        for _ in 0..4 {
            vm.input.events.add(&chain).unwrap();
        }
        vm.input.events.submit().unwrap();
        for value in [1, 0] {
            let key = Event::new(EV_KEY, 30, value);
            vm.device.send(&[key, Event::report()]);
        }
        let used = vm.input.events.wait_used(DEFAULT_LIMIT).unwrap();
        assert_eq!(used.len, 0, "{chain:x?}");
        let mut written = [0; 8];
        vm.memory.read(page, &mut written).unwrap();
        assert_eq!(written, [0; 8], "{chain:x?}");
        vm.led_is_set(1);
        vm.finish();
    }
}

#[test]
fn broken_queue_leaves_the_other_running() {
    for broken in [EVENTS, STATUS] {
        let mut vm = Vm::start(InputOptions::default());
        let spent = vm.program.cpu_time().unwrap();
        for index in [4000, 40_000, u16::MAX] {
            let queue = match broken {
                EVENTS => &mut vm.input.events,
                _ => &mut vm.input.status,
            };
            queue.force_available_index(index).unwrap();
            queue.kick().unwrap();
            vm.device
                .send(&[Event::new(EV_KEY, 30, 1), Event::report()]);
            vm.device
                .send(&[Event::new(EV_KEY, 30, 0), Event::report()]);
            std::thread::sleep(Duration::from_millis(700));
        }
        match broken {
            EVENTS => vm.led_is_set(1),
            _ => vm.key_arrives(33),
        }
        let spent = vm.program.cpu_time().unwrap() - spent;
        assert!(spent < Duration::from_millis(400), "{spent:?} for nothing");
        let lines = vm.program.stderr().lines().count();
        assert!(lines < 30, "{}", vm.program.stderr());
        vm.works_for_a_new_driver();
        vm.finish();
    }
}

#[test]
fn misplaced_ring_stops_nothing() {
    let mut vm = Vm::start(InputOptions::default());
    let memory = vm.memory.clone();
    let [descriptors, available, used] = vm
        .input
        .status
        .addresses()
        .map(|address| memory.user_address(address));
    let end = memory.user_address(memory.end());
    for [descriptors, available, used] in [
        [end, end, end],
        [descriptors, available, end - 4],
        [descriptors, end - 4, used],
        [descriptors + 8, available, used],
        [descriptors, available, used + 2],
    ] {
        let session = &mut vm.input.session;
        session.stop_queue(STATUS).unwrap();
        vm.input.status.reset().unwrap();
        session.start_queue(STATUS, &vm.input.status).unwrap();
        session
            .set_vring_addresses(STATUS, descriptors, available, used)
            .unwrap();
        vm.input.status.kick().unwrap();
        vm.key_arrives(34);
    }
    vm.works_for_a_new_driver();
    vm.finish();
}

#[test]
fn removed_memory_stops_nothing_and_may_come_back() {
    let mut vm = Vm::start(InputOptions::default());
    let other = Memory::new(&[(1 << 40, 1 << 20)]).unwrap();
    let memory = vm.memory.clone();
    for _ in 0..20 {
        vm.input.session.set_memory(&other).unwrap();
        vm.input.status.kick().unwrap();
        vm.input.events.kick().unwrap();
        vm.device
            .send(&[Event::new(EV_KEY, 35, 1), Event::report()]);
        vm.device
            .send(&[Event::new(EV_KEY, 35, 0), Event::report()]);
        vm.input.session.set_memory(&memory).unwrap();
        vm.input.events.kick().unwrap();
        vm.input.status.kick().unwrap();
    }
    vm.works_for_a_new_driver();
    vm.finish();
}

#[test]
fn configuration_access_out_of_bounds_ends_nothing() {
    let mut vm = Vm::start(InputOptions::default());
    for select in 0..=255 {
        for offset in [0, 1, 2, 7, 8, 100] {
            vm.input
                .session
                .set_config(offset, &[select, 0xff])
                .unwrap();
        }
        let _ = vm.input.session.config(130, 100);
        vm.input.session.config(0, CONFIG_SIZE).unwrap();
    }
    vm.key_arrives(36);
    vm.finish();
}

#[test]
fn thousands_of_rounds_leak_nothing() {
    let mut vm = Vm::start(InputOptions::default());
    let page = vm.memory.alloc(4096, 4096).unwrap();
    let round = |vm: &mut Vm, n: u32| {
        // LEDs of the device, LEDs that it has not, and no events at all.
        for (code, value) in [(1, n as i32 % 2), (n as u16, -1)] {
            let led = Event::new(EV_LED, code, value);
            vm.input.send_status(&[led, Event::report()]).unwrap();
        }
        for chain in [Buffer::readable(page, 3), Buffer::writable(page, 8)] {
            vm.input.status.add(&[chain]).unwrap();
            vm.input.status.submit().unwrap();
            vm.input.status.wait_used(QUICK).unwrap();
        }
        vm.input.session.set_config(0, &[n as u8, 1]).unwrap();
        vm.input.session.config(0, CONFIG_SIZE).unwrap();
        vm.device.forget();
    };
    for n in 0..200 {
        round(&mut vm, n);
    }
    let before = Holdings::of(&vm.program);
    for n in 0..3000 {
        round(&mut vm, n);
    }
    before.assert_not_grown(&vm.program, 1024);
    assert!(vm.program.stderr().lines().count() < 60);
    vm.key_arrives(37);
    vm.finish();
}

/// A device that is unplugged costs the guest nothing else, and the next start says what is missing.
#[test]
fn unplugged_device_does_not_disconnect_the_front_end() {
    let mut vm = Vm::start(InputOptions::default());
    vm.device
        .send(&[Event::new(EV_KEY, 30, 1), Event::report()]);
    let pressed = vm.input.next_report().unwrap();
    assert_eq!(pressed, [Event::new(EV_KEY, 30, 1), Event::report()]);
    let again = vm.device.command(input_program());
    let path = vm.device.path();
    vm.device.unplug();
    let released = vm.input.next_report().unwrap();
    assert_eq!(released, [Event::new(EV_KEY, 30, 0), Event::report()]);
    for word in ["was unplugged", &path, "Test Keyboard"] {
        vm.program.wait_stderr(word).unwrap();
    }
    // The driver's requests are answered, and another driver finds the same device.
    for _ in 0..2 {
        let led = [Event::new(EV_LED, 1, 1), Event::report()];
        vm.input.send_status(&led).unwrap();
        vm.input.no_event(Duration::from_millis(50)).unwrap();
        vm.input.stop().unwrap();
        assert_eq!(vm.input.name().unwrap(), "Test Keyboard");
        vm.input.restart().unwrap();
    }
    let spent = vm.program.cpu_time().unwrap();
    vm.input.no_event(Duration::from_secs(2)).unwrap();
    let spent = vm.program.cpu_time().unwrap() - spent;
    assert!(spent < Duration::from_millis(400), "{spent:?} for nothing");
    assert_eq!(vm.program.stderr().matches("unplugged").count(), 1);
    vm.finish();
    let mut next = again.socket(SocketForm::Connected(5)).spawn().unwrap();
    assert_early_failure(&mut next, &[&path]);
}

/// With `--wait` a guest that starts while the device is away is told what it was, and what is not known yet is an error.
#[test]
fn absent_device_is_described_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("device.json");
    let wait = format!("--wait={}", file.display());
    let device = HostDevice::new(KEYBOARD);
    let described = |program: &mut Program| {
        let memory = Memory::with_size(1 << 20).unwrap();
        let session = program.session().unwrap();
        let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
        let kinds = [EV_KEY, EV_LED, EV_REP];
        let codes = kinds.map(|kind| input.codes(kind).unwrap());
        let description = (input.name().unwrap(), input.devids().unwrap(), codes);
        (input, description)
    };
    let command = device.command(input_program()).arg(&wait);
    let mut program = command.socket(SocketForm::Connected(5)).spawn().unwrap();
    let (input, there) = described(&mut program);
    drop(input);
    assert_clean_exit(&mut program);

    // The mock's library ends the opener of a folder with mock devices: it was there under another name.
    let path = folder.path().join("keyboard").display().to_string();
    let said = std::fs::read_to_string(&file).unwrap();
    let said = said.replace(&device.path(), &path);
    std::fs::write(&file, &said).unwrap();
    let command = || {
        let command = Command::new(input_program()).arg(format!("--evdev-path={path}"));
        command.socket(SocketForm::Connected(5))
    };
    let start = || command().arg(&wait).spawn().unwrap();
    let mut program = start();
    let (mut input, away) = described(&mut program);
    assert_eq!(away, there);
    let led = [Event::new(EV_LED, 1, 1), Event::report()];
    input.send_status(&led).unwrap();
    input.no_event(Duration::from_millis(50)).unwrap();
    // What comes instead is refused.
    std::fs::write(&path, "").unwrap();
    program.wait_stderr("is not an evdev device").unwrap();
    std::fs::remove_file(&path).unwrap();
    drop(input);
    assert_clean_exit(&mut program);

    // What the file says is of another device, of no use, or not there.
    std::fs::write(&file, said.replace(&path, "/dev/input/event9")).unwrap();
    assert_early_failure(&mut start(), &[&path, "no start has found it"]);
    std::fs::write(&file, "{").unwrap();
    let file_name = file.display().to_string();
    assert_early_failure(&mut start(), &[&path, &file_name]);
    std::fs::remove_file(&file).unwrap();
    assert_early_failure(&mut start(), &[&path, "no start has found it"]);
    // By hand, without --wait.
    std::fs::write(&file, said).unwrap();
    let mut program = command().spawn().unwrap();
    assert_early_failure(&mut program, &[&path, "there is no input device"]);
}

/// As with a front-end: one that connects later finds it described.
#[test]
fn unplugged_device_is_waited_for_without_a_front_end() {
    let mut device = HostDevice::new(KEYBOARD);
    let command = device.command(input_program());
    let mut program = command.socket(SocketForm::Path).spawn().unwrap();
    program.wait_stderr("serving on").unwrap();
    let path = device.path();
    device.unplug();
    program.wait_stderr("it is waited for").unwrap();
    let said = program.stderr();
    for word in ["was unplugged", &path, "Test Keyboard"] {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
    let session = program.session().unwrap();
    let memory = Memory::with_size(1 << 20).unwrap();
    let mut input = Input::start(session, &memory, InputOptions::default()).unwrap();
    assert_eq!(input.name().unwrap(), "Test Keyboard");
    drop(input);
    assert_clean_exit(&mut program);
}
