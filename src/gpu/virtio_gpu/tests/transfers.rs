// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Backings and transfers, and their execution in parts.

use super::*;
use crate::gpu::renderer::ENTRY_COST;

#[test]
fn backings_are_attached_once_and_from_the_guests_memory() {
    let mut guest = Guest::new();
    let attach = command::RESOURCE_ATTACH_BACKING;
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
    let end = MEMORY as u32;
    let wrong: [(&[u32], u32); 6] = [
        (&[2, 1, 0, 0, 16, 0], response::ERR_INVALID_RESOURCE_ID),
        (&[1, 2, 0, 0, 16, 0], response::ERR_INVALID_PARAMETER),
        (&[1, u32::MAX, 0, 0, 16, 0], response::ERR_INVALID_PARAMETER),
        (&[1, 1, end, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (&[1, 1, end - 4, 0, 5, 0], response::ERR_INVALID_PARAMETER),
        (
            &[1, 1, u32::MAX, u32::MAX, u32::MAX, 0],
            response::ERR_INVALID_PARAMETER,
        ),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(attach, words), expected, "{words:?}");
    }
    assert_eq!(
        guest.control(command::RESOURCE_DETACH_BACKING, &[1, 0]),
        response::ERR_UNSPEC
    );
    guest.ok(attach, &[1, 1, end - 4, 0, 4, 0]);
    assert_eq!(
        guest.control(attach, &[1, 1, 0, 0, 4, 0]),
        response::ERR_UNSPEC
    );
    guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);
    guest.ok(attach, &[1, 0]);
}

/// In several steps, and with what is found in the request at each of them.
#[test]
fn long_lists_of_entries_are_read_in_parts() {
    const STEP: usize = (MAX_STEP_WORK / ENTRY_COST) as usize;
    let mut guest = Guest::with_budget(64 << 20);
    let attach = |count: u32, entries: u32, first: u32| {
        let mut words = vec![1, count];
        for i in 0..entries {
            words.extend([(i % 2) * 8 + first, 0, 1, 0]);
        }
        request(command::RESOURCE_ATTACH_BACKING, &words)
    };
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
    let steps = |guest: &mut Guest, bytes: &[u8]| {
        let mut steps = 0;
        loop {
            match guest.execute_with_header(QueueKind::Control, bytes) {
                (_, CommandResult::Incomplete) => steps += 1,
                (header, CommandResult::Complete(response)) => {
                    return (steps, kind(&response.encode(&header)));
                }
                (_, other) => panic!("{other:?}"),
            }
        }
    };
    let count = 3 * STEP as u32 + 1;
    let short = steps(&mut guest, &attach(count, count - 1, 0));
    assert_eq!(short, (3, response::ERR_INVALID_PARAMETER));
    let whole = steps(&mut guest, &attach(count, count, 0));
    assert_eq!(whole, (3, response::OK_NODATA));
    guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);

    // Another request in between begins from its own start.
    let long = attach(count, count, 0);
    for other in [
        attach(count - 1, count - 1, 0),
        request(command::RESOURCE_FLUSH, &[0, 0, 1, 1, 1, 0]),
    ] {
        assert_eq!(
            guest.execute(QueueKind::Control, &long),
            CommandResult::Incomplete
        );
        let (_, answer) = steps(&mut guest, &other);
        assert_eq!(answer, response::OK_NODATA);
        let _ = guest.control(command::RESOURCE_DETACH_BACKING, &[1, 0]);
        assert_eq!(steps(&mut guest, &long), (3, response::OK_NODATA));
        guest.ok(command::RESOURCE_DETACH_BACKING, &[1, 0]);
    }
    assert_eq!(
        guest.execute(QueueKind::Control, &long),
        CommandResult::Incomplete
    );
    guest.state.drop_partial();
    assert_eq!(steps(&mut guest, &long), (3, response::OK_NODATA));
}

/// A transfer of more pieces than are looked at in one go.
#[test]
fn long_transfers_are_executed_in_parts() {
    let mut guest = Guest::with_budget(64 << 20);
    let side: u32 = 512;
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, side, side]);
    // Byte by byte, each pixel's last byte first.
    let bytes = side * side * 4;
    let mut words = vec![1, bytes];
    for i in 0..bytes {
        words.extend([i ^ 3, 0, 1, 0]);
    }
    let attach = request(command::RESOURCE_ATTACH_BACKING, &words);
    while guest.execute(QueueKind::Control, &attach) == CommandResult::Incomplete {}
    let pixel = |i: u32| [i as u8, (i >> 8) as u8, 7, 9];
    let pixels: Vec<u8> = (0..side * side).flat_map(pixel).collect();
    guest.memory.write_slice(&pixels, GuestAddress(0)).unwrap();
    guest.ok(command::SET_SCANOUT, &[0, 0, side, side, 0, 1]);
    let transfer = request(
        command::TRANSFER_TO_HOST_2D,
        &[0, 0, side, side, 0, 0, 1, 0],
    );
    let mut parts = 1;
    while guest.execute(QueueKind::Control, &transfer) == CommandResult::Incomplete {
        parts += 1;
    }
    assert!(parts > 4, "{parts}");
    let image = guest.state.renderer.image_or_create(1).unwrap();
    let image = image.lock();
    for y in 0..side {
        let row = image.bytes(0, y, side as usize * 4);
        for (x, found) in (0..side).zip(row.chunks(4)) {
            let mut expected = pixel(y * side + x);
            expected.reverse();
            assert_eq!(found, expected, "{x}, {y}");
        }
    }
}

#[test]
fn transfers_lie_within_resource_and_backing() {
    let mut guest = Guest::with_resource();
    let transfer = command::TRANSFER_TO_HOST_2D;
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 8, 8]);
    let wrong = [
        ([0, 0, 1, 1, 0, 0, 9, 0], response::ERR_INVALID_RESOURCE_ID),
        ([0, 0, 1, 1, 0, 0, 2, 0], response::ERR_UNSPEC),
        ([0, 0, 65, 1, 0, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        ([0, 64, 1, 1, 0, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [u32::MAX, 0, 2, 1, 0, 0, 1, 0],
            response::ERR_INVALID_PARAMETER,
        ),
        ([0, 0, 64, 64, 1, 0, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [0, 0, 1, 1, u32::MAX, u32::MAX, 1, 0],
            response::ERR_INVALID_PARAMETER,
        ),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(transfer, &words), expected, "{words:?}");
        assert_eq!(guest.work, 0);
    }
    guest.ok(transfer, &[0, 0, 64, 64, 0, 0, 1, 0]);
    assert!((LEN.into()..3 * u64::from(LEN)).contains(&guest.work));
    guest.ok(transfer, &[64, 64, 0, 0, 0, 0, 1, 0]);
    guest.ok(transfer, &[63, 63, 1, 1, LEN - 4, 0, 1, 0]);
}
