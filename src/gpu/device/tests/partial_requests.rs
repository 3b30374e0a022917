// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests that are executed in parts: the other queue has its turn in between, and a stop in between
//! loses nothing.

use super::*;
use crate::gpu::renderer::{ENTRY_COST, MAX_STEP_WORK};

const INDIRECT: u16 = 4;
const TABLE: u64 = 0x30_0000;
const ENTRIES: u64 = 0x31_0000;
/// Entries that lie in the memory, again and again.
const LEN: u32 = 0x8_0000;
/// Entries of three steps.
const COUNT: u32 = (MAX_STEP_WORK / ENTRY_COST) as u32 * 3;

/// Submits a list of [`COUNT`] entries of a byte each, for resource 1 of 256x256 pixels.
fn submit_long_list(machine: &mut Machine) {
    let new = machine.control(CREATE, &[1, 2, 256, 256]);
    assert_eq!(new, response::OK_NODATA);
    let entry = |n: u32| [u64::from(n % 2) * 8, 1].map(u64::to_le_bytes);
    let list: Vec<u8> = (0..LEN / 16).flat_map(entry).flatten().collect();
    machine.write(ENTRIES, &list);
    let heap = machine.heap(0, 9);
    let head = request(command::RESOURCE_ATTACH_BACKING, &[1, COUNT]);
    machine.write(heap, &head);
    let mut buffers = vec![(heap, head.len() as u32)];
    buffers.extend(vec![(ENTRIES, LEN); (COUNT * 16 / LEN) as usize]);
    let mut table = Vec::new();
    for (next, (addr, len)) in (1_u16..).zip(&buffers) {
        table.extend(addr.to_le_bytes());
        table.extend(len.to_le_bytes());
        table.extend(NEXT.to_le_bytes());
        table.extend(next.to_le_bytes());
    }
    table.extend((heap + 0x200).to_le_bytes());
    table.extend(24_u32.to_le_bytes());
    table.extend(WRITE.to_le_bytes());
    table.extend([0; 2]);
    machine.write(TABLE, &table);
    let table = (TABLE, table.len() as u32);
    machine.descriptor(CONTROL_QUEUE, 18, table, INDIRECT, 0);
    machine.publish(CONTROL_QUEUE, 18);
}

fn move_cursor(machine: &mut Machine) -> bool {
    let words = [0, 1, 1, 0, 0, 0, 0, 0];
    machine.submit(CURSOR_QUEUE, &request(command::MOVE_CURSOR, &words), 0);
    machine.event(CURSOR_QUEUE);
    machine.completed(CURSOR_QUEUE).is_some()
}

#[test]
fn long_list_and_long_transfer_yield_to_the_cursor() {
    let mut machine = Machine::started();
    submit_long_list(&mut machine);
    for _ in 0..2 {
        machine.event(CONTROL_QUEUE);
        assert_eq!(machine.response(), None);
    }
    assert!(move_cursor(&mut machine));
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_NODATA));

    // Each of its pixels lies in four pieces.
    let transfer = [0, 0, 256, 256, 0, 0, 1, 0];
    let transfer = request(command::TRANSFER_TO_HOST_2D, &transfer);
    machine.submit(CONTROL_QUEUE, &transfer, 24);
    machine.event(CONTROL_QUEUE);
    assert_eq!(machine.response(), None);
    assert!(move_cursor(&mut machine));
    machine.run();
    assert_eq!(machine.kind(), Some(response::OK_NODATA));
}

#[test]
fn queue_stopped_within_a_long_list_resumes_it() {
    for is_paused in [true, false] {
        let mut machine = Machine::started();
        submit_long_list(&mut machine);
        machine.event(CONTROL_QUEUE);
        assert_eq!(machine.response(), None);
        machine.stop();
        if !is_paused {
            // A new driver finds neither the resource nor the list.
            machine.start(0);
            submit_long_list(&mut machine);
        } else {
            for vring in &machine.vrings {
                vring.set_queue_ready(true);
            }
        }
        machine.event(CONTROL_QUEUE);
        machine.run();
        assert_eq!(machine.kind(), Some(response::OK_NODATA));
        let detached = machine.control(command::RESOURCE_DETACH_BACKING, &[1, 0]);
        assert_eq!(detached, response::OK_NODATA);
    }
}
