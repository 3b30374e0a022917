// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A cursor whose pixels are transferred by the control queue, and the requests that it waits for.

use super::*;

const CURSOR: u32 = 5;
const PIXELS: u64 = 0x38_0000;
const LEN: u32 = 64 * 64 * 4;
const CURSOR_UPDATE: u32 = 6;
const SHAPE: [u32; 8] = [0, 1, 2, 0, CURSOR, 0, 0, 0];
const TRANSFER: [u32; 8] = [0, 0, 64, 64, 0, 0, CURSOR, 0];

/// With a resource of a cursor's size, whose pages hold `byte`.
fn machine_with_cursor(byte: u8) -> Machine {
    let mut machine = Machine::started();
    let new = [CURSOR, 1, 64, 64];
    assert_eq!(machine.control(CREATE, &new), response::OK_NODATA);
    let backing = [CURSOR, 1, PIXELS as u32, 0, LEN, 0];
    let attached = machine.control(command::RESOURCE_ATTACH_BACKING, &backing);
    assert_eq!(attached, response::OK_NODATA);
    machine.write(PIXELS, &[byte; LEN as usize]);
    machine
}

fn submit_transfer(machine: &mut Machine) {
    let transfer = request(command::TRANSFER_TO_HOST_2D, &TRANSFER);
    machine.submit(CONTROL_QUEUE, &transfer, 24);
}

fn submit_shape(machine: &mut Machine) {
    machine.submit(CURSOR_QUEUE, &request(command::UPDATE_CURSOR, &SHAPE), 0);
}

/// A byte of the last cursor that the display was sent.
fn shape(front_end: &mut FrontEnd) -> Option<u8> {
    front_end
        .payloads()
        .into_iter()
        .rfind(|(kind, _)| *kind == CURSOR_UPDATE)
        .and_then(|(_, payload)| payload.last().copied())
}

#[test]
fn cursor_has_the_pixels_transferred_before_it() {
    let mut machine = machine_with_cursor(7);
    let mut front_end = machine.plug_settled_display();
    // Whichever kick comes first, and where one of them has not come yet.
    for (byte, events) in [
        (1, &[CURSOR_QUEUE][..]),
        (2, &[CURSOR_QUEUE, CONTROL_QUEUE]),
        (3, &[CONTROL_QUEUE, CURSOR_QUEUE]),
    ] {
        machine.write(PIXELS, &[byte; LEN as usize]);
        submit_transfer(&mut machine);
        submit_shape(&mut machine);
        for event in events {
            machine.event(*event);
        }
        machine.run();
        assert_eq!(shape(&mut front_end), Some(byte));
        assert!(machine.completed(CURSOR_QUEUE).is_some());
        assert_eq!(machine.kind(), Some(response::OK_NODATA));
    }
}

#[test]
fn moves_wait_only_for_cursor_requests_before_them() {
    let mut machine = machine_with_cursor(1);
    for _ in 0..MAX_TURN_REQUESTS + 5 {
        submit_transfer(&mut machine);
    }
    let submit_move = |machine: &mut Machine| {
        let words = [0, 1, 1, 0, CURSOR, 0, 0, 0];
        machine.submit(CURSOR_QUEUE, &request(command::MOVE_CURSOR, &words), 0);
    };
    submit_move(&mut machine);
    submit_shape(&mut machine);
    submit_move(&mut machine);
    machine.event(CURSOR_QUEUE);
    let mut done = 0;
    while machine.completed(CURSOR_QUEUE).is_some() {
        done += 1;
    }
    assert_eq!(done, 1, "the first move is done, the shape waits");
    machine.run();
    while machine.completed(CURSOR_QUEUE).is_some() {
        done += 1;
    }
    assert_eq!(done, 3);
}

/// What comes after the cursor request is not waited for: each pass over the control queue finds
/// as many new requests as it has done.
#[test]
fn endless_control_queue_does_not_block_the_cursor() {
    let mut machine = machine_with_cursor(1);
    for _ in 0..2 * MAX_TURN_REQUESTS {
        submit_nothing(&mut machine);
    }
    submit_shape(&mut machine);
    machine.event(CURSOR_QUEUE);
    let mut passes = 1;
    while machine.completed(CURSOR_QUEUE).is_none() {
        while machine.completed(CONTROL_QUEUE).is_some() {
            submit_nothing(&mut machine);
        }
        machine.event(WAKE);
        passes += 1;
        assert!(passes < 100, "the cursor waits for ever");
    }
}

fn submit_nothing(machine: &mut Machine) {
    let nothing = request(command::RESOURCE_UNREF, &[77, 0]);
    machine.submit(CONTROL_QUEUE, &nothing, 24);
}

/// Whatever is wrong with the control queue.
#[test]
fn stuck_control_queue_does_not_block_the_cursor() {
    let breaks: [fn(&mut Machine); 4] = [
        // Not enabled by the front-end.
        |machine| machine.vrings[0].set_enabled(false),
        // More requests than it has entries.
        |machine| {
            let avail = machine.drivers[0].available + 2;
            machine.write(avail, &0x7000_u16.to_le_bytes());
        },
        // Its requests taken back after they were seen.
        |machine| {
            machine.event(CURSOR_QUEUE);
            let avail = machine.drivers[0].available + 2;
            let next = machine.vrings[0].queue_next_avail();
            machine.write(avail, &next.to_le_bytes());
        },
        // Outside the memory.
        |machine| {
            let outside = MEMORY as u64 - 8;
            let avail = machine.drivers[0].available;
            machine.vrings[0]
                .set_queue_info(machine.drivers[0].descriptors, avail, outside)
                .unwrap();
        },
    ];
    for (n, damage) in breaks.into_iter().enumerate() {
        let mut machine = machine_with_cursor(1);
        for _ in 0..MAX_TURN_REQUESTS + 1 {
            submit_transfer(&mut machine);
        }
        submit_shape(&mut machine);
        damage(&mut machine);
        machine.event(CURSOR_QUEUE);
        machine.run();
        assert!(machine.completed(CURSOR_QUEUE).is_some(), "case {n}");
    }
}

#[test]
fn pending_query_delays_the_cursor_until_it_expires() {
    let mut machine = machine_with_cursor(1);
    let mut front_end = machine.plug_settled_display();
    for ends_by_answer in [true, false] {
        machine.write(PIXELS, &[u8::from(ends_by_answer) + 8; LEN as usize]);
        let info = request(command::GET_DISPLAY_INFO, &[]);
        machine.submit(CONTROL_QUEUE, &info, 408);
        submit_transfer(&mut machine);
        submit_shape(&mut machine);
        machine.event(CURSOR_QUEUE);
        machine.run();
        assert!(machine.completed(CURSOR_QUEUE).is_none());
        if ends_by_answer {
            let reply = Response::DisplayInfo(Box::default()).encode(&Header::default());
            front_end.reply(DISPLAY_INFO, &reply);
            machine.run();
        } else {
            machine.run_for(10_000);
        }
        assert!(machine.completed(CURSOR_QUEUE).is_some());
        assert_eq!(
            shape(&mut front_end),
            Some(u8::from(ends_by_answer) + 8),
            "{ends_by_answer}"
        );
    }
}

#[test]
fn stopped_control_queue_ends_the_wait_of_the_cursor() {
    let mut machine = machine_with_cursor(1);
    let mut front_end = machine.plug_settled_display();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    submit_shape(&mut machine);
    machine.event(CURSOR_QUEUE);
    assert!(machine.completed(CURSOR_QUEUE).is_none());
    // As a guest that is paused.
    machine.vrings[0].set_queue_ready(false);
    machine.gpu.stop_vring(0).unwrap();
    machine.run();
    machine.vrings[0].set_queue_ready(true);
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert!(
        machine.completed(CURSOR_QUEUE).is_none(),
        "the query waits again"
    );
    let reply = Response::DisplayInfo(Box::default()).encode(&Header::default());
    // To the first one, and to the one that is asked again.
    front_end.reply(DISPLAY_INFO, &reply);
    front_end.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert!(machine.completed(CURSOR_QUEUE).is_some());
}
