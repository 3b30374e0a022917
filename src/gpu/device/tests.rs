// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The device with real guest memory, virtqueues and descriptors, event by event.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use vhost_user_backend::VringT;

use super::queue_turn::MAX_TURN_REQUESTS;
use super::testing::machine::*;
use super::tokens::DISPLAY;
use super::*;
use crate::gpu::protocol::{DisplayInfo, Header, Response, command, response};

mod cursor_order;
mod displays;
mod dmabufs;
mod fences;
mod host_memory;
mod partial_requests;
mod resumed;

const CREATE: u32 = command::RESOURCE_CREATE_2D;

#[test]
fn requests_complete_without_a_display() {
    let mut machine = Machine::started();
    machine.show();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[2, 2, 1, 1]), 24);
    machine.event(CONTROL_QUEUE);
    // A slow processor needs more than one turn.
    machine.run();
    let response = machine.response().unwrap();
    assert_eq!(
        DisplayInfo::decode_response(&response).unwrap(),
        DisplayInfo::default()
    );
    assert_eq!(machine.kind(), Some(response::OK_NODATA));
    assert_eq!(machine.response(), None);
}

#[test]
fn control_queue_waits_for_the_display_and_the_cursor_queue_does_not() {
    let mut machine = Machine::started();
    let mut front_end = machine.plug_settled_display();
    front_end.messages();
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(front_end.messages(), [DISPLAY_INFO]);
    assert_eq!(machine.kind(), Some(response::OK_NODATA));
    assert_eq!(machine.response(), None);

    let hide = request(command::MOVE_CURSOR, &[0, 1, 1, 0, 0, 0, 0, 0]);
    machine.submit(CURSOR_QUEUE, &hide, 0);
    machine.event(CURSOR_QUEUE);
    assert_eq!(machine.completed(CURSOR_QUEUE), Some((0, 0)));
    machine.event(CONTROL_QUEUE);
    machine.run();
    assert_eq!(machine.response(), None);

    let modes = DisplayInfo::default();
    let reply = Response::DisplayInfo(Box::new(modes)).encode(&Header::default());
    front_end.reply(DISPLAY_INFO, &reply);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert_eq!(machine.kind(), Some(response::ERR_INVALID_RESOURCE_ID));
}

#[test]
fn disconnected_and_silent_displays_do_not_block_the_guest() {
    let info = request(command::GET_DISPLAY_INFO, &[]);
    let mut machine = Machine::started();
    let front_end = machine.plug_settled_display();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(machine.response(), None);
    assert_eq!(machine.watches_display(), 1);
    drop(front_end);
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert_eq!(machine.watches_display(), 0);

    let _silent = machine.plug_display();
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    assert_eq!(machine.response(), None);
    let began = Instant::now();
    machine.run_for(10_000);
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    assert!(began.elapsed() >= Duration::from_millis(2900));
}

#[test]
fn paused_guest_keeps_what_it_set_up() {
    let mut machine = Machine::started();
    let mut old = machine.plug_settled_display();
    machine.show();
    assert_eq!(old.messages()[1..], [SCANOUT, UPDATE]);
    for _ in 0..3 {
        drop(old);
        machine.run();
        machine.stop();
        let mut new = machine.plug_settled_display();
        // Whose driver it is shows only once the virtqueues start.
        assert_eq!(new.messages().len(), 1);
        machine.start(machine.drivers[0].next_available);
        assert_eq!(new.messages(), [SCANOUT, UPDATE]);
        let flush = machine.control(command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0]);
        assert_eq!(flush, response::OK_NODATA);
        old = new;
    }
}

#[test]
fn new_driver_finds_nothing_of_the_old_one() {
    let mut machine = Machine::started();
    machine.show();
    machine.stop();
    let mut front_end = machine.plug_settled_display();
    machine.start(0);
    assert_eq!(front_end.messages().len(), 1);
    machine.show();
    assert_eq!(front_end.messages(), [SCANOUT, UPDATE]);
}

#[test]
fn wrapped_index_of_a_paused_guest_is_told_from_a_new_driver() {
    for (reads_config, expected) in [
        (false, response::ERR_INVALID_RESOURCE_ID),
        (true, response::OK_NODATA),
    ] {
        let mut machine = Machine::started();
        machine.show();
        machine.gpu.get_config(0, 16);
        // As if 65536 requests had been made since.
        machine.vrings[0].set_queue_next_avail(0);
        machine.drivers[0].next_available = 0;
        machine.write(machine.drivers[0].available + 2, &[0; 2]);
        machine.event(CONTROL_QUEUE);
        machine.stop();
        if reads_config {
            machine.gpu.get_config(8, 4);
        }
        machine.start(0);
        assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), expected);
    }
}

#[test]
fn queue_reset_keeps_what_the_driver_set_up() {
    let mut machine = Machine::started();
    machine.show();
    machine.vrings[0].set_queue_ready(false);
    machine.gpu.stop_vring(0).unwrap();
    machine.event(CURSOR_QUEUE);
    machine.start(0);
    let known = machine.control(CREATE, &[1, 2, 1, 1]);
    assert_eq!(known, response::ERR_INVALID_RESOURCE_ID);
}

#[test]
fn pending_query_survives_a_pause() {
    let mut machine = Machine::started();
    assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), response::OK_NODATA);
    let _old = machine.plug_settled_display();
    let info = request(command::GET_DISPLAY_INFO, &[]);
    machine.submit(CONTROL_QUEUE, &info, 408);
    machine.event(CONTROL_QUEUE);
    machine.stop();
    assert_eq!(machine.vrings[0].queue_next_avail(), 1);
    machine.run();
    assert_eq!(machine.response(), None);

    // The virtqueues go on at the request that was not answered.
    for vring in &machine.vrings {
        vring.set_queue_ready(true);
    }
    machine.event(CONTROL_QUEUE);
    drop(machine.plug_display());
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_DISPLAY_INFO));
    let known = machine.control(CREATE, &[1, 2, 1, 1]);
    assert_eq!(known, response::ERR_INVALID_RESOURCE_ID);
}

#[test]
fn stopped_virtqueues_are_not_touched() {
    let mut machine = Machine::started();
    assert_eq!(machine.control(CREATE, &[1, 2, 1, 1]), response::OK_NODATA);
    machine.stop();
    machine.submit(CONTROL_QUEUE, &request(CREATE, &[2, 2, 1, 1]), 24);
    for token in [CONTROL_QUEUE, CURSOR_QUEUE, DISPLAY, TIMER, WAKE, 0x7fff] {
        machine.event(token);
    }
    machine.run();
    assert_eq!(machine.response(), None);
}

#[test]
fn device_reset_drops_everything() {
    let mut machine = Machine::started();
    machine.show();
    machine.gpu.reset_device();
    machine.show();
}

#[test]
fn full_control_queue_yields_to_the_others() {
    let mut machine = Machine::started();
    for _ in 0..128 {
        machine.submit(CONTROL_QUEUE, &request(CREATE, &[1, 2, 1, 1]), 24);
    }
    machine.event(CONTROL_QUEUE);
    let count = |machine: &mut Machine| std::iter::from_fn(|| machine.response()).count();
    // Fewer where the machine is busy: a turn is limited in time, too.
    let first = count(&mut machine);
    assert!((1..=MAX_TURN_REQUESTS).contains(&first), "{first}");
    machine.run();
    assert_eq!(count(&mut machine), 128 - first);
}

#[test]
fn requests_of_many_descriptors_yield_to_the_others() {
    const INDIRECT: u16 = 4;
    const TABLE: u64 = 0x30_0000;
    const COUNT: u16 = u16::MAX;
    const REQUESTS: usize = 8;
    let mut machine = Machine::started();
    let heap = machine.heap(0, 0);
    machine.write(heap, &request(command::RESOURCE_UNREF, &[1, 0]));
    let mut table = Vec::new();
    for next in 1..=COUNT {
        let (addr, len, flags) = match next {
            1 => (heap, 32_u32, NEXT),
            COUNT => (heap + 0x200, 24, WRITE),
            _ => (heap, 1, NEXT),
        };
        table.extend(addr.to_le_bytes());
        table.extend(len.to_le_bytes());
        table.extend(flags.to_le_bytes());
        table.extend(next.to_le_bytes());
    }
    machine.write(TABLE, &table);
    machine.descriptor(CONTROL_QUEUE, 0, (TABLE, table.len() as u32), INDIRECT, 0);
    for _ in 0..REQUESTS {
        machine.publish(CONTROL_QUEUE, 0);
    }
    machine.event(CONTROL_QUEUE);
    let mut done = 0;
    while machine.completed(CONTROL_QUEUE).is_some() {
        done += 1;
    }
    assert!((1..REQUESTS).contains(&done), "{done}");
    machine.run();
    while machine.completed(CONTROL_QUEUE).is_some() {
        done += 1;
    }
    assert_eq!(done, REQUESTS);
}

#[test]
fn request_may_be_split_anywhere() {
    let whole = request(CREATE, &[1, 2, 1, 1]);
    for at in 1..whole.len() {
        let mut machine = Machine::started();
        let heap = machine.heap(0, 0);
        machine.write(heap, &whole);
        let rest = (whole.len() - at) as u32;
        machine.descriptor(0, 0, (heap, at as u32), NEXT, 1);
        machine.descriptor(0, 1, (heap + at as u64, rest), NEXT, 2);
        // The response's room as well.
        machine.descriptor(0, 2, (heap + 0x200, 7), NEXT | WRITE, 3);
        machine.descriptor(0, 3, (heap + 0x207, 17), WRITE, 0);
        machine.publish(CONTROL_QUEUE, 0);
        machine.event(CONTROL_QUEUE);
        assert_eq!(machine.kind(), Some(response::OK_NODATA), "{at}");
    }
}

#[test]
fn response_that_does_not_fit_is_an_error_or_nothing() {
    let info = request(command::GET_DISPLAY_INFO, &[]);
    for (room, len) in [(0, 0), (23, 0), (24, 24), (407, 24), (408, 408), (500, 408)] {
        let mut machine = Machine::started();
        machine.submit(CONTROL_QUEUE, &info, room);
        machine.event(CONTROL_QUEUE);
        machine.run();
        assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, len)), "{room}");
        let kind = machine.read(machine.heap(0, 0) + 0x200, 4);
        let expected = match len {
            0 => 0,
            24 => response::ERR_UNSPEC,
            _ => response::OK_DISPLAY_INFO,
        };
        assert_eq!(kind, expected.to_le_bytes());
    }
}

#[test]
fn descriptors_outside_the_memory_are_not_followed() {
    let outside = MEMORY as u64 - 8;
    let cases = [
        ((outside, 40), (0x1000, 24), 24),
        ((u64::MAX - 3, 40), (0x1000, 24), 24),
        ((0x1000, 0x8000_0000), (0x2000, 24), 24),
        // Longer than a chain may be in all (virtio 1.2, 2.7.5.2).
        ((0x1000, u32::MAX), (0x2000, 24), 0),
        ((0x1000, 40), (outside, 24), 0),
        ((0x1000, 0), (0x2000, 24), 24),
    ];
    for (readable, writable, len) in cases {
        let mut machine = Machine::started();
        machine.descriptor(0, 0, readable, NEXT, 1);
        machine.descriptor(0, 1, writable, WRITE, 0);
        machine.publish(CONTROL_QUEUE, 0);
        machine.event(CONTROL_QUEUE);
        machine.run();
        assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, len)));
    }
    // A chain that loops, one that leaves the table, and a head that is none.
    let mut machine = Machine::started();
    machine.descriptor(0, 0, (0x1000, 1), NEXT, 0);
    machine.descriptor(0, 1, (0x1000, 1), NEXT, 60000);
    for head in [0, 1, 60000] {
        machine.publish(CONTROL_QUEUE, head);
        machine.event(CONTROL_QUEUE);
        machine.run();
    }
    assert_eq!(machine.completed(CONTROL_QUEUE), Some((0, 0)));
}

#[test]
fn random_requests_all_complete() {
    let mut machine = Machine::started();
    let mut front_end = machine.plug_settled_display();
    let mut seed: u64 = 1;
    let mut random = move || {
        // Knuth's multiplier; which numbers come does not matter, that they repeat does.
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1);
        (seed >> 33) as u32
    };
    let commands = [
        CREATE,
        command::RESOURCE_UNREF,
        command::SET_SCANOUT,
        command::RESOURCE_FLUSH,
        command::TRANSFER_TO_HOST_2D,
        command::RESOURCE_ATTACH_BACKING,
        command::RESOURCE_DETACH_BACKING,
        command::RESOURCE_ASSIGN_UUID,
        command::UPDATE_CURSOR,
        command::MOVE_CURSOR,
    ];
    for _ in 0..20_000 {
        let command = commands[random() as usize % commands.len()];
        let words: Vec<u32> = (0..random() % 20)
            .map(|_| match random() % 8 {
                0 => random(),
                1 => u32::MAX,
                2 => 64,
                other => random() % (other * 4),
            })
            .collect();
        let queue = (random() % 2) as u16;
        machine.submit(queue, &request(command, &words), random() % 60);
        machine.event(queue);
        machine.run();
        assert!(machine.completed(queue).is_some());
        front_end.messages();
    }
}

#[test]
fn status_line_names_the_active_scanouts() {
    let mut machine = Machine::started();
    machine.show();
    let steps = [
        (CREATE, &[2, 2, 1, 1][..], None),
        (
            command::SET_SCANOUT,
            &[0, 0, 8, 4, 1, 1],
            Some("16x16 + 8x4"),
        ),
        (command::RESOURCE_FLUSH, &[0, 0, 16, 16, 1, 0], None),
        (command::RESOURCE_UNREF, &[1, 0], Some("")),
    ];
    let told = machine.program.take_status();
    assert_eq!(told.as_deref(), Some("16x16"));
    for (command, words, expected) in steps {
        machine.control(command, words);
        let told = machine.program.take_status();
        assert_eq!(told.as_deref(), expected);
    }
}

#[test]
fn configuration_can_be_read_in_parts() {
    let mut gpu = Machine::new().gpu;
    let whole = gpu.get_config(0, 16);
    assert_eq!(whole[8..12], 1_u32.to_le_bytes());
    assert_eq!(gpu.get_config(9, 3), whole[9..12]);
    assert_eq!(gpu.get_config(0, 20).len(), 20);
    assert!(gpu.get_config(u32::MAX, u32::MAX).is_empty());
    gpu.set_config(0, &whole).unwrap();
    gpu.set_config(4, &[1, 0, 0, 0]).unwrap();
    assert!(gpu.set_config(u32::MAX, &[0; 4]).is_err());
}

#[test]
fn newer_display_socket_replaces_the_older() {
    let mut machine = Machine::started();
    let (socket, ours) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    // With this it stays open, whatever the device does.
    let _duplicate = ours.try_clone().unwrap();
    machine
        .gpu
        .set_gpu_socket(ours.into())
        .expect("a GPU has a display");
    assert_eq!(FrontEnd(socket).messages(), [FEATURES]);
    assert_eq!(machine.watches_display(), 1);
    let _new = machine.plug_display();
    assert_eq!(machine.watches_display(), 1);
}
