// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A VMM that connects to another process when its backend ended, while the guest's driver runs on.

use rustix::process::Signal;

use super::*;

/// Events of a key that is pressed and released so often that they fill all buffers of a queue.
fn fill(buffers: u16) -> Vec<Event> {
    let values = [1, 0].into_iter().cycle();
    let reports = values.map(|value| [Event::new(EV_KEY, 31, value), Event::report()]);
    reports.take(usize::from(buffers / 2)).flatten().collect()
}

/// Cloud Hypervisor says that a virtqueue begins after all that the driver made available. All of the driver's event
/// buffers lie before that, and it makes none available but for one that is used.
#[test]
fn keyboard_of_cloud_hypervisor_works_after_its_program_was_killed() {
    let vmm = FrontEnd::CloudHypervisor;
    let mut keyboard = Keyboard::connect_by(SocketForm::Path, vmm);
    keyboard.serves_a_driver(vmm, false);
    for _ in 0..2 {
        keyboard.program.signal(Signal::KILL).unwrap();
        keyboard.program.wait_exit(DEFAULT_LIMIT).unwrap();
        keyboard.device.wait_grab(false);
        keyboard.device.forget();
        // What the driver asks for meanwhile is done as well.
        let led = [Event::new(EV_LED, 2, 1), Event::report()];
        keyboard.input.submit_status(&led).unwrap();

        let command = keyboard.device.command(input_program());
        keyboard.program = command.socket(SocketForm::Path).spawn().unwrap();
        let mut session = keyboard.program.session().unwrap();
        // The program tries it at its start, which may come after the connection.
        for held in [true, false] {
            keyboard.device.wait_grab(held);
        }
        let input = &keyboard.input;
        vmm.reconnect(
            &mut session,
            input.offer.protocol_features,
            (&keyboard.memory, input.features()),
            &[&input.events, &input.status],
        )
        .unwrap();
        keyboard.input.session = session;
        keyboard.device.wait_led(2, 1);
        keyboard.input.wait_status(led.len()).unwrap();
        keyboard.serves();

        // Every buffer is the device's still. Some may go to what an LED's change reports.
        let typed = fill(vmm.queue_size());
        let events = &keyboard.input.events;
        for some in typed.chunks(32) {
            // The host's device keeps few events that nobody reads.
            let before = events.used_index().unwrap();
            keyboard.device.send(some);
            let taken = Deadline::after(DEFAULT_LIMIT).until("buffers to be used", || {
                let used = events.used_index()?;
                let all = used == events.next_available();
                let enough = usize::from(used.wrapping_sub(before)) >= some.len();
                Ok((all || enough).then_some(()))
            });
            taken.unwrap();
        }
        assert_eq!(events.used_index().unwrap(), events.next_available());
        let mut seen = Vec::new();
        while seen.len() < typed.len() {
            let report = keyboard.input.next_report().unwrap();
            if report[0].kind == EV_KEY {
                seen.extend(report);
            }
        }
        assert_eq!(seen, typed);
    }
    keyboard.finish();
}
