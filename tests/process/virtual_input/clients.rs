// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Consoles that end, and hostile ones.

use std::process::{Command as Process, Stdio};

use super::*;

/// With kill -9, while keys are pressed.
#[test]
fn killed_console_leaves_no_key_pressed() {
    let mut vm = Vm::start("keyboard");
    let mut console = vm.console();
    console.next_report().unwrap();
    console
        .send(&[key(29, 1), key(56, 1), Event::report()])
        .unwrap();
    assert_eq!(
        vm.input.next_report().unwrap(),
        [key(29, 1), key(56, 1), Event::report()]
    );
    // Another process is the only one that has the connection.
    let mut holder = Process::new("sleep");
    holder
        .arg("600")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(
            console.into_stream(),
        )));
    let mut holder_process = holder.spawn().unwrap();
    drop(holder);
    let mut other = vm.console();
    other.next_report().unwrap();
    other.send(&report(key(KEY_A, 1))).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
    holder_process.kill().unwrap();
    holder_process.wait().unwrap();
    assert_eq!(
        vm.input.next_report().unwrap(),
        [key(29, 0), key(56, 0), Event::report()]
    );
    other.send(&report(key(KEY_A, 0))).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 0)));
    vm.finish();
}

/// Noise ends the connection that sent it, and nothing else. The log stays short.
#[test]
fn noise_ends_its_connection_and_nothing_else() {
    let mut vm = Vm::start("keyboard");
    let mut console = vm.console();
    console.next_report().unwrap();
    console.send(&report(key(KEY_A, 1))).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 1)));
    // Xorshift.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let mut hostile = vm.console();
        hostile.next_report().unwrap();
        let noise: Vec<u8> = (0..40)
            .flat_map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()
            })
            .collect();
        hostile.send_bytes(&noise).unwrap();
        hostile.wait_closed().unwrap();
    }
    console.send(&report(key(KEY_A, 0))).unwrap();
    assert_eq!(vm.input.next_report().unwrap(), report(key(KEY_A, 0)));
    let stderr = vm.program.stderr();
    assert!(
        stderr.contains("which is no event of this device"),
        "{stderr}"
    );
    let complaints = stderr.matches("disconnected a program").count();
    assert!((1..100).contains(&complaints), "{complaints} messages");
    vm.finish();
}

#[test]
fn endless_report_ends_its_connection() {
    let mut vm = Vm::start("tablet");
    let mut hostile = vm.console();
    hostile
        .send(&[Event::new(EV_REL, 8, 1)].repeat(65))
        .unwrap();
    hostile.wait_closed().unwrap();
    let mut console = vm.console();
    console.send(&report(Event::new(EV_REL, 8, 1))).unwrap();
    assert_eq!(
        vm.input.next_report().unwrap(),
        report(Event::new(EV_REL, 8, 1))
    );
    vm.finish();
}

#[test]
fn fifth_console_is_turned_away_until_another_leaves() {
    let vm = Vm::start("keyboard");
    let mut consoles: Vec<_> = (0..4).map(|_| vm.console()).collect();
    for console in &mut consoles {
        console.next_report().unwrap();
    }
    vm.console().wait_closed().unwrap();
    consoles.pop();
    // The program may see the new one before it sees the other one leave.
    let deadline = frontend::Deadline::default();
    let another = deadline.until("a place for another console", || {
        let mut console = vm.console();
        Ok(console.next_report().is_ok().then_some(console))
    });
    drop(another.unwrap());
    vm.finish();
}

/// One that sends without end and never reads its LEDs.
#[test]
fn flood_does_not_starve_another_console_or_the_leds() {
    let mut vm = Vm::start("tablet");
    let mut flood = vm.console();
    let mut console = vm.console();
    let moves: Vec<Event> = (0..4096)
        .flat_map(|n| [Event::new(EV_ABS, 0, n), Event::report()])
        .collect();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = stop.clone();
    let flooder = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            flood.send(&moves).unwrap();
        }
    });
    for n in 0..50 {
        let value = (n + 1) % 2;
        console.send(&report(key(0x110, value))).unwrap();
        while vm.input.next_report().unwrap() != report(key(0x110, value)) {}
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    // The flooder may wait for room: the guest goes on to take events.
    while !flooder.is_finished() {
        match vm.input.next_event(Duration::from_millis(20)) {
            Err(e) if !e.is_timeout() => panic!("{e}"),
            _ => {}
        }
    }
    flooder.join().unwrap();
    vm.finish();
}
