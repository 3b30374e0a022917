// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The console's side of the library, at the real devices: what viewers do reaches a guest's driver.

use std::collections::BTreeSet;

use vhost_user_backends::vnc::input::{ConsoleInput, KeyboardLayout, ViewerId};

use super::*;

const VIEWER: ViewerId = ViewerId(1);

fn console(keyboard: Option<&Vm>, tablet: Option<&Vm>) -> ConsoleInput {
    let path = |vm: Option<&Vm>| vm.map(|vm| vm.program.further_path(EVENTS));
    let layout = KeyboardLayout::us();
    let mut console = ConsoleInput::new(path(keyboard), path(tablet), layout).unwrap();
    console.viewer_joined(VIEWER);
    console
}

/// The device has every key that a keycode or a keysym can be: it would close the connection else.
#[test]
fn keyboard_has_every_key_that_viewers_have() {
    let mut vm = Vm::start("keyboard");
    let mut console = console(Some(&vm), None);
    let mut keys = BTreeSet::new();
    let keycodes = (0..=0x1ff).chain(0xe000..=0xe0ff).chain([0xe1_1d45]);
    let keysyms = (0..=0xffff).chain(0x1008_ff00..=0x1008_ffff);
    let typed = keycodes
        .map(|code| (0, code))
        .chain(keysyms.map(|keysym| (keysym, 0)));
    for (keysym, keycode) in typed {
        console.extended_key(VIEWER, keysym, keycode, true);
        console.extended_key(VIEWER, keysym, keycode, false);
        assert_eq!(
            console.deadline(),
            None,
            "{keysym:#x} {keycode:#x} ended the connection"
        );
        // What arrived so far, now and then: the program waits for the guest, and the console for the program.
        if keysym % 64 == 0 && keycode % 4 == 0 {
            console.handle_ready().unwrap();
            while let Ok(event) = vm.input.next_event(Duration::ZERO) {
                keys.extend((event.kind == EV_KEY).then_some(event.code));
            }
        }
    }
    // The last one, which nothing else is: all before it has been judged then.
    console.extended_key(VIEWER, 0, 1, true);
    console.extended_key(VIEWER, 0, 2, true);
    let mut held = BTreeSet::new();
    while held != BTreeSet::from([1, 2]) {
        console.handle_ready().unwrap();
        for event in vm.input.next_report().unwrap() {
            keys.extend((event.kind == EV_KEY).then_some(event.code));
            match (event.kind, event.value) {
                (EV_KEY, 0) => drop(held.remove(&event.code)),
                (EV_KEY, _) => drop(held.insert(event.code)),
                _ => {}
            }
        }
    }
    assert_eq!(console.deadline(), None);
    assert!(keys.len() > 230, "{} keys: {keys:?}", keys.len());
    vm.finish();
}

#[test]
fn pointer_keys_and_leds_make_the_round() {
    let (mut keyboard, mut tablet) = (Vm::start("keyboard"), Vm::start("tablet"));
    let mut console = console(Some(&keyboard), Some(&tablet));
    // A viewer without keycodes and without Shift.
    console.key(VIEWER, u32::from('A'), true);
    console.key(VIEWER, u32::from('A'), false);
    for event in [key(42, 1), key(KEY_A, 1), key(42, 0), key(KEY_A, 0)] {
        assert_eq!(keyboard.input.next_report().unwrap(), report(event));
    }
    console.pointer(VIEWER, 0b1_0000_1001, (1279, 799), (1280, 800));
    let expected = [
        Event::new(EV_ABS, 0, 32767),
        Event::new(EV_ABS, 1, 32767),
        key(0x110, 1),
        key(0x114, 1),
        Event::new(EV_REL, 8, 1),
        Event::new(EV_REL, 11, 120),
        Event::report(),
    ];
    assert_eq!(tablet.input.next_report().unwrap(), expected);
    keyboard
        .input
        .send_status(&report(Event::new(EV_LED, 1, 1)))
        .unwrap();
    let deadline = frontend::Deadline::default();
    let caps = deadline.until("the LED of Caps Lock", || {
        console.handle_ready().unwrap();
        Ok(console.leds().caps_lock.then_some(()))
    });
    caps.unwrap();
    drop(console);
    let released = [key(0x110, 0), key(0x114, 0), Event::report()];
    assert_eq!(tablet.input.next_report().unwrap(), released);
    keyboard.finish();
    tablet.finish();
}
