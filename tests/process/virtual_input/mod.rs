// SPDX-License-Identifier: Apache-2.0 OR MIT
//! vhost-user-input with `--virtual`: consoles send events over the events socket, a guest's driver gets them.

mod clients;
mod console_input;
mod starts;
mod successors;

use std::time::Duration;

use frontend::events::EventsClient;
use frontend::input::{AbsInfo, Event, Input, InputOptions};
use frontend::{Command, Memory, Program};
use harness::mock::codes::*;

use crate::common::{assert_clean_exit, input_program};

const VHOST_USER: &str = "vhost-user";
const EVENTS: &str = "events";
const KEY_A: u16 = 30;

/// A program that a service manager passes both sockets.
fn command(device: &str) -> Command {
    Command::new(input_program())
        .arg(format!("--virtual={device}"))
        .activated(&[VHOST_USER, EVENTS])
}

/// A running program, and the guest's driver.
struct Vm {
    input: Input,
    program: Program,
}

impl Vm {
    fn start(device: &str) -> Self {
        Self::with(device, InputOptions::default())
    }

    fn with(device: &str, options: InputOptions) -> Self {
        let mut vm = Self::connect(device, options);
        vm.input.run().unwrap();
        vm
    }

    /// With a driver that does not run yet.
    fn connect(device: &str, options: InputOptions) -> Self {
        let mut program = command(device).spawn().unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let input = Input::connect(program.session().unwrap(), &memory, options).unwrap();
        Self { input, program }
    }

    /// A console that the program has accepted: a keyboard's is told the LEDs.
    fn console(&self) -> EventsClient {
        EventsClient::connect(&self.program.further_path(EVENTS)).unwrap()
    }

    fn finish(self) {
        let Self { input, mut program } = self;
        drop(input);
        assert_clean_exit(&mut program);
    }
}

fn key(code: u16, value: i32) -> Event {
    Event::new(EV_KEY, code, value)
}

fn report(event: Event) -> [Event; 2] {
    [event, Event::report()]
}

fn leds(on: [i32; 3]) -> Vec<Event> {
    let leds = (0..).zip(on).map(|(code, on)| Event::new(EV_LED, code, on));
    leds.chain([Event::report()]).collect()
}

#[test]
fn keyboard_has_all_keys_and_leds() {
    let mut vm = Vm::start("keyboard");
    let input = &mut vm.input;
    assert_eq!(input.name().unwrap(), "vhost-user keyboard");
    assert_eq!(input.devids().unwrap(), [6, 0, 1, 1]);
    let keys: Vec<u16> = (1..=83).chain(85..=194).chain(200..=248).collect();
    assert_eq!(input.codes(EV_KEY).unwrap(), keys);
    assert_eq!(input.codes(EV_LED).unwrap(), [0, 1, 2]);
    assert_eq!(input.codes(EV_REP).unwrap(), [0, 1]);
    for none in [EV_REL, EV_ABS, EV_MSC, EV_SW, EV_SND] {
        assert!(input.codes(none).unwrap().is_empty(), "type {none}");
    }
    assert!(input.properties().unwrap().is_empty());
    vm.finish();
}

#[test]
fn tablet_has_axes_buttons_and_wheels() {
    let mut vm = Vm::start("tablet");
    let input = &mut vm.input;
    assert_eq!(input.name().unwrap(), "vhost-user tablet");
    assert_eq!(input.devids().unwrap(), [6, 0, 2, 1]);
    assert_eq!(
        input.codes(EV_KEY).unwrap(),
        [0x110, 0x111, 0x112, 0x113, 0x114]
    );
    assert_eq!(input.codes(EV_REL).unwrap(), [6, 8, 11, 12]);
    assert_eq!(input.codes(EV_ABS).unwrap(), [0, 1]);
    let range = AbsInfo {
        max: 32767,
        ..AbsInfo::default()
    };
    for axis in [0, 1] {
        assert_eq!(input.abs_info(axis).unwrap(), Some(range));
    }
    assert!(input.codes(EV_LED).unwrap().is_empty());
    assert!(input.properties().unwrap().is_empty());
    vm.finish();
}

#[test]
fn events_of_consoles_arrive() {
    let mut vm = Vm::start("tablet");
    let mut consoles = [vm.console(), vm.console()];
    for n in 0..20 {
        let moved = [
            Event::new(EV_ABS, 0, n),
            Event::new(EV_ABS, 1, 100 + n),
            Event::new(EV_REL, 8, 1),
            Event::new(EV_REL, 11, 120),
            Event::report(),
        ];
        consoles[n as usize % 2].send(&moved).unwrap();
        assert_eq!(vm.input.next_report().unwrap(), moved);
    }
    vm.finish();
}

#[test]
fn leds_reach_every_console() {
    let mut vm = Vm::start("keyboard");
    let mut one = vm.console();
    assert_eq!(one.next_report().unwrap(), leds([0, 0, 0]));
    let caps = report(Event::new(EV_LED, 1, 1));
    vm.input.send_status(&caps).unwrap();
    assert_eq!(one.next_report().unwrap(), leds([0, 1, 0]));
    let mut two = vm.console();
    assert_eq!(two.next_report().unwrap(), leds([0, 1, 0]));
    vm.input
        .send_status(&report(Event::new(EV_LED, 0, 1)))
        .unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(console.next_report().unwrap(), leds([1, 1, 0]));
    }
    // A guest that is gone leaves no LED on.
    vm.input.stop().unwrap();
    for console in [&mut one, &mut two] {
        assert_eq!(console.next_report().unwrap(), leds([0, 0, 0]));
    }
    vm.finish();
}

/// What is pressed when a driver begins, it is told; also the next one.
#[test]
fn new_driver_gets_what_is_pressed() {
    let mut vm = Vm::connect("keyboard", InputOptions::default());
    let mut console = vm.console();
    console.next_report().unwrap();
    console.send(&report(key(KEY_A, 1))).unwrap();
    // The program has read it once it has read what came later: it closes this connection.
    let mut other = vm.console();
    other.next_report().unwrap();
    other.send(&report(key(0, 1))).unwrap();
    other.wait_closed().unwrap();
    vm.input.run().unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
    vm.input.stop().unwrap();
    vm.input.restart().unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
    console.send(&report(key(KEY_A, 0))).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 0)));
    vm.finish();
}

/// The program reads no faster than the guest: nothing that was typed is lost, though far more than fits anywhere.
#[test]
fn slow_driver_gets_every_report_in_order() {
    let options = InputOptions {
        queue_size: 4,
        refill: false,
        ..InputOptions::default()
    };
    let mut vm = Vm::with("keyboard", options);
    let mut console = vm.console();
    console.next_report().unwrap();
    let tap = |n: u32| {
        let code = 2 + (n % 40) as u16;
        [key(code, 1), Event::report(), key(code, 0), Event::report()]
    };
    const TAPS: u32 = 20_000;
    let typist = std::thread::spawn(move || {
        for n in 0..TAPS {
            console.send(&tap(n)).unwrap();
        }
        console
    });
    for n in 0..TAPS {
        for expected in tap(n) {
            vm.input.give(1).unwrap();
            assert_eq!(
                vm.input.next_event(Duration::from_secs(60)).unwrap(),
                expected,
                "of tap {n}"
            );
        }
    }
    let mut console = typist.join().unwrap();
    console.send(&report(key(KEY_A, 1))).unwrap();
    vm.input.give(2).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
    let stderr = vm.program.stderr();
    assert!(!stderr.contains("dropped"), "{stderr}");
    vm.finish();
}

/// A guest that takes nothing keeps neither the status queue nor other consoles waiting.
#[test]
fn guest_that_takes_no_events_still_sets_leds() {
    let options = InputOptions {
        refill: false,
        ..InputOptions::default()
    };
    let mut vm = Vm::with("keyboard", options);
    let mut flood = vm.console();
    flood.next_report().unwrap();
    let taps = [
        key(KEY_A, 1),
        Event::report(),
        key(KEY_A, 0),
        Event::report(),
    ]
    .repeat(4096);
    flood.send(&taps[..4096]).unwrap();
    let mut other = vm.console();
    other.next_report().unwrap();
    vm.input
        .send_status(&report(Event::new(EV_LED, 2, 1)))
        .unwrap();
    assert_eq!(other.next_report().unwrap(), leds([0, 0, 1]));
    // It begins anew, and gets what is pressed then; nothing of the past.
    drop(flood);
    vm.input.stop().unwrap();
    vm.input.restart().unwrap();
    other.send(&report(key(31, 1))).unwrap();
    vm.input.give(64).unwrap();
    loop {
        let got = vm.input.next_report().unwrap();
        if got == report(key(31, 1)) {
            break;
        }
        assert!(got.iter().all(|event| event.value == 0), "{got:?}");
    }
    vm.finish();
}
