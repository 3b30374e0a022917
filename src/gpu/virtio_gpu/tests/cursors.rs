// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Commands of the cursor queue.

use super::*;

#[test]
fn cursors_are_shaped_moved_and_hidden() {
    let mut guest = Guest::with_resource();
    guest
        .memory
        .write_slice(&[6; 16384], GuestAddress(0))
        .unwrap();
    guest.ok(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    let update = command::UPDATE_CURSOR;
    let ok = response::OK_NODATA;
    assert_eq!(guest.cursor(update, &[2, 10, 20, 0, 1, 3, 4, 0]), ok);
    // A cursor is what the resource was at that time.
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    let updates = guest.updates();
    let [
        Update::Cursor {
            id: 2,
            position,
            shape,
        },
    ] = &updates[..]
    else {
        panic!("{updates:?}");
    };
    let visible = true;
    assert_eq!(
        *position,
        Position {
            x: 10,
            y: 20,
            visible
        }
    );
    assert_eq!((shape.hot_x, shape.hot_y), (3, 4));
    assert!(shape.pixels.iter().all(|b| *b == 6));

    let move_cursor = command::MOVE_CURSOR;
    for (command, id) in [(move_cursor, 1), (move_cursor, 0), (update, 0)] {
        assert_eq!(guest.cursor(command, &[2, 5, 6, 0, id, 0, 0, 0]), ok);
        let updates = guest.updates();
        let [Update::CursorPosition { id: 2, position }] = &updates[..] else {
            panic!("{updates:?}");
        };
        assert_eq!(position.visible, id != 0);
    }
}

#[test]
fn cursors_need_a_scanout_and_a_resource_of_their_size() {
    let mut guest = Guest::new();
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, 64, 65]);
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 32, 128]);
    let update = command::UPDATE_CURSOR;
    for (words, expected) in [
        ([16, 0, 0, 0, 1, 0, 0, 0], response::ERR_INVALID_SCANOUT_ID),
        ([0, 0, 0, 0, 1, 0, 0, 0], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 0, 2, 0, 0, 0], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 0, 3, 0, 0, 0], response::ERR_INVALID_RESOURCE_ID),
    ] {
        assert_eq!(guest.cursor(update, &words), expected, "{words:?}");
    }
    let short = guest.cursor(command::MOVE_CURSOR, &[0, 0]);
    assert_eq!(short, response::ERR_INVALID_PARAMETER);
    assert!(guest.updates().is_empty());
}
