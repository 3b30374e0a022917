// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;

fn queue(size: u16) -> Queue {
    Queue::new(&Memory::with_size(1 << 20).unwrap(), size, false).unwrap()
}

/// Plays the device: uses the chain `id`.
fn put_used(queue: &Queue, index: u16, id: u32, len: u32) {
    let slot = u64::from(index % queue.size());
    let [_, _, used] = queue.addresses();
    queue
        .memory
        .write(used + 4 + 8 * slot, &id.to_le_bytes())
        .unwrap();
    queue
        .memory
        .write(used + 8 + 8 * slot, &len.to_le_bytes())
        .unwrap();
    queue.memory.store(used + 2, index.wrapping_add(1)).unwrap();
}

#[test]
fn chain_is_written_as_the_specification_has_it() {
    let mut queue = queue(4);
    let head = queue
        .add(&[
            Buffer::readable(0x10, 1),
            Buffer::readable(0x20, 2),
            Buffer::writable(0x30, 3),
        ])
        .unwrap();
    assert_eq!(head, 0);
    let mut table = [0; 48];
    queue.memory.read(queue.descriptors, &mut table).unwrap();
    assert_eq!(
        table[..16],
        [0x10, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, 0]
    );
    assert_eq!(
        table[16..32],
        [0x20, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 2, 0]
    );
    assert_eq!(
        table[32..],
        [0x30, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0]
    );
    assert!(
        queue.publish().unwrap(),
        "a device that suppresses nothing wants a kick"
    );
    let mut available = [0; 6];
    queue.memory.read(queue.available, &mut available).unwrap();
    assert_eq!(available, [0, 0, 1, 0, 0, 0]);
}

#[test]
fn descriptors_are_free_again_once_used() {
    let mut queue = queue(4);
    for round in 0..100_u16 {
        let head = queue.add(&[Buffer::readable(0, 1); 3]).unwrap();
        let full = queue.add(&[Buffer::readable(0, 1); 2]);
        assert!(matches!(full, Err(Error::QueueFull { free: 1, wanted: 2 })));
        queue.publish().unwrap();
        put_used(&queue, round, head.into(), 7);
        assert_eq!(queue.take_used().unwrap(), Some(Used { head, len: 7 }));
        assert_eq!(queue.free(), 4);
        assert_eq!(queue.outstanding(), 0);
    }
}

#[test]
fn queue_reports_chains_the_device_invents() {
    let mut queue = queue(4);
    put_used(&queue, 0, 2, 0);
    assert!(matches!(queue.take_used(), Err(Error::Protocol(_))));
    put_used(&queue, 1, 70_000, 0);
    assert!(matches!(queue.take_used(), Err(Error::Protocol(_))));
}

#[test]
fn wait_times_out_and_names_what_was_missing() {
    let mut queue = queue(4);
    let error = queue.wait_used(Duration::from_millis(5)).unwrap_err();
    assert!(
        error.is_timeout() && error.to_string().contains("use a chain"),
        "{error}"
    );
}

#[test]
fn event_indices_wrap() {
    assert!(need_event(0, 1, 0));
    assert!(!need_event(1, 1, 0));
    assert!(need_event(0xffff, 0, 0xffff));
    assert!(need_event(0, 2, 0xfffe));
    assert!(!need_event(5, 2, 0xfffe));
}

#[test]
fn buffers_fall_into_pieces() {
    let pieces: Vec<_> = Buffer::writable(100, 10).pieces(4).collect();
    let piece = Buffer::writable;
    assert_eq!(pieces, [piece(100, 4), piece(104, 4), piece(108, 2)]);
    assert_eq!(Buffer::readable(1, 0).pieces(4).count(), 0);
}
