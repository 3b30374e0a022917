// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The process is killed, and the next one goes on: consoles and guest notice nothing.

use std::sync::mpsc;
use std::thread;

use frontend::manager::{Service, ServiceOptions};

use super::*;

/// A service under a manager that keeps descriptors, and the guest's driver.
struct Kept {
    input: Input,
    service: Service,
}

impl Kept {
    fn start(device: &str, options: InputOptions) -> Self {
        let service = ServiceOptions::new(input_program())
            .arg(format!("--virtual={device}"))
            .sockets(&[VHOST_USER, EVENTS])
            .start()
            .unwrap();
        let memory = Memory::with_size(1 << 20).unwrap();
        let input = Input::start(service.session().unwrap(), &memory, options).unwrap();
        Self { input, service }
    }

    /// A console that is served: it was told the LEDs.
    fn console(&self, on: [i32; 3]) -> EventsClient {
        let mut console = EventsClient::connect(&self.service.path(EVENTS)).unwrap();
        assert_eq!(console.next_report().unwrap(), leds(on));
        console
    }

    /// A key goes through, either way.
    fn types(&mut self, console: &mut EventsClient, code: u16) {
        for value in [1, 0] {
            console.send(&report(key(code, value))).unwrap();
            assert_eq!(self.input.next_report().unwrap(), report(key(code, value)));
        }
    }

    fn finish(self) {
        let Self { input, mut service } = self;
        drop(input);
        let (status, _) = service.settle().unwrap();
        assert!(status.success(), "{status}; log: {}", service.log());
    }
}

const QEMU_10: InputOptions = InputOptions {
    queue_size: 4,
    ..DEFAULT
};
const DEFAULT: InputOptions = InputOptions {
    features: frontend::features::EVENT_IDX | frontend::features::INDIRECT_DESC,
    queue_size: 64,
    access: frontend::input::ConfigAccess::Whole,
    refill: true,
};

/// Which key is typed as the number `n`.
fn typed(n: u16) -> u16 {
    2 + n % 80
}

#[test]
fn typed_keys_arrive_once_however_often_the_process_is_killed() {
    const KEYS: u16 = 600;
    for options in [QEMU_10, DEFAULT] {
        let Kept {
            mut input,
            mut service,
        } = Kept::start("keyboard", options);
        let mut console = EventsClient::connect(&service.path(EVENTS)).unwrap();
        assert_eq!(console.next_report().unwrap(), leds([0, 0, 0]));
        thread::scope(|scope| {
            let typist = scope.spawn(move || {
                for n in 0..KEYS {
                    for value in [1, 0] {
                        console.send(&report(key(typed(n), value))).unwrap();
                    }
                    // The pace of a fast typist, and more.
                    thread::sleep(Duration::from_millis(3));
                }
                console
            });
            let input = &mut input;
            let (told, arrived) = mpsc::channel();
            let guest = scope.spawn(move || {
                for n in 0..KEYS {
                    for value in [1, 0] {
                        let report = input.next_report().unwrap();
                        assert_eq!(report, super::report(key(typed(n), value)), "key {n}");
                    }
                    let _ = told.send(());
                }
            });
            let mut kills = 0;
            // A process that has reported a key got somewhere. One that is killed before, because a key of the one before it
            // arrived late, is no harm: the virtqueue has room for 16 keys, and only the twentieth gives up.
            while arrived.recv().is_ok() {
                while arrived.try_recv().is_ok() {}
                service.kill_and_start().unwrap();
                kills += 1;
            }
            assert!(kills > 5, "{kills} kills");
            guest.join().unwrap();
            typist.join().unwrap()
        });
        input.no_event(Duration::from_millis(100)).unwrap();
        Kept { input, service }.finish();
    }
}

#[test]
fn events_cut_in_two_are_joined_by_the_successor() {
    let mut kept = Kept::start("keyboard", QEMU_10);
    let mut console = kept.console([0, 0, 0]);
    let events = [key(29, 1), key(56, 1), key(14, 1), key(15, 1), key(16, 1)];
    let bytes: Vec<u8> = events
        .into_iter()
        .chain([Event::report()])
        .flat_map(|event| {
            let [kind, code] = [event.kind, event.code].map(u16::to_le_bytes);
            [
                kind.to_vec(),
                code.to_vec(),
                event.value.to_le_bytes().to_vec(),
            ]
            .concat()
        })
        .collect();
    for cut in 0..bytes.len() {
        let (before, after) = bytes.split_at(cut);
        console.send_bytes(before).unwrap();
        if cut % 2 == 0 {
            kept.service.kill_and_start().unwrap();
        } else {
            // With the rest received by nobody yet.
            kept.service.kill().unwrap();
        }
        console.send_bytes(after).unwrap();
        if cut % 2 != 0 {
            kept.service.start().unwrap();
        }
        let told = kept.input.next_report().unwrap();
        assert_eq!(
            told,
            [&events[..], &[Event::report()]].concat(),
            "cut at {cut}"
        );
        let released = events.map(|event| key(event.code, 0));
        console
            .send(&[&released[..], &[Event::report()]].concat())
            .unwrap();
        let told = kept.input.next_report().unwrap();
        assert_eq!(told, [&released[..], &[Event::report()]].concat());
    }
    kept.finish();
}

#[test]
fn key_held_over_a_kill_stays_pressed_until_it_is_released() {
    let mut kept = Kept::start("keyboard", DEFAULT);
    let mut console = kept.console([0, 0, 0]);
    for _ in 0..4 {
        console.send(&report(key(KEY_A, 1))).unwrap();
        assert_eq!(kept.input.next_report().unwrap(), report(key(KEY_A, 1)));
        kept.service.kill_and_start().unwrap();
        kept.input.no_event(Duration::from_millis(50)).unwrap();
        console.send(&report(key(KEY_A, 0))).unwrap();
        assert_eq!(kept.input.next_report().unwrap(), report(key(KEY_A, 0)));
    }
    // Another console presses it too, and is gone while no process lives.
    let mut other = kept.console([0, 0, 0]);
    other.send(&report(key(KEY_A, 1))).unwrap();
    assert_eq!(kept.input.next_report().unwrap(), report(key(KEY_A, 1)));
    console.send(&report(key(KEY_A, 1))).unwrap();
    kept.types(&mut console, 31);
    kept.service.kill().unwrap();
    drop(other);
    kept.service.start().unwrap();
    kept.types(&mut console, 31);
    kept.service.kill().unwrap();
    drop(console);
    kept.service.start().unwrap();
    assert_eq!(kept.input.next_report().unwrap(), report(key(KEY_A, 0)));
    kept.finish();
}

#[test]
fn leds_stay_as_the_guest_set_them() {
    let mut kept = Kept::start("keyboard", DEFAULT);
    let mut console = kept.console([0, 0, 0]);
    let caps = report(Event::new(EV_LED, 1, 1));
    kept.input.send_status(&caps).unwrap();
    assert_eq!(console.next_report().unwrap(), leds([0, 1, 0]));
    kept.service.kill_and_start().unwrap();
    // Perhaps more than once.
    assert_eq!(console.next_report().unwrap(), leds([0, 1, 0]));
    kept.console([0, 1, 0]);
    kept.input
        .send_status(&report(Event::new(EV_LED, 0, 1)))
        .unwrap();
    loop {
        let told = console.next_report().unwrap();
        if told == leds([1, 1, 0]) {
            break;
        }
        assert_eq!(told, leds([0, 1, 0]));
    }
    kept.finish();
}

#[test]
fn planned_restarts_are_not_noticed_either() {
    let mut kept = Kept::start("tablet", QEMU_10);
    let mut console = EventsClient::connect(&kept.service.path(EVENTS)).unwrap();
    for n in 0..10 {
        let moved = [Event::new(EV_ABS, 0, n + 1), Event::report()];
        console.send(&moved).unwrap();
        assert_eq!(kept.input.next_report().unwrap(), moved);
        console.send(&report(key(0x110, (n + 1) % 2))).unwrap();
        let told = kept.input.next_report().unwrap();
        assert_eq!(told, report(key(0x110, (n + 1) % 2)));
        let status = kept.service.restart().unwrap();
        assert!(Service::is_success(status), "{status}");
    }
    kept.finish();
}

/// There is room for four, all of which are kept.
#[test]
fn places_of_consoles_are_kept() {
    let mut kept = Kept::start("keyboard", DEFAULT);
    let mut consoles = [(); 4].map(|()| kept.console([0, 0, 0]));
    kept.service.kill_and_start().unwrap();
    for (code, console) in (30..).zip(&mut consoles) {
        kept.types(console, code);
    }
    let mut fifth = EventsClient::connect(&kept.service.path(EVENTS)).unwrap();
    assert!(fifth.next_report().is_err());
    let [one, ..] = consoles;
    drop(one);
    kept.service.kill_and_start().unwrap();
    let mut another = kept.console([0, 0, 0]);
    kept.types(&mut another, 40);
    kept.finish();
}
