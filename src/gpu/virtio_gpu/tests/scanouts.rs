// SPDX-License-Identifier: Apache-2.0 OR MIT
//! SET_SCANOUT and RESOURCE_FLUSH.

use super::*;

#[test]
fn damage_reaches_the_scanouts_that_show_it() {
    let mut guest = Guest::with_resource();
    guest.ok(command::SET_SCANOUT, &[0, 0, 32, 64, 0, 1]);
    guest.ok(command::SET_SCANOUT, &[32, 0, 32, 64, 15, 1]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    assert_eq!(guest.updates().len(), 4);
    guest
        .memory
        .write_slice(&[5; 4], GuestAddress(36 * 4))
        .unwrap();
    guest.ok(command::TRANSFER_TO_HOST_2D, &[0, 0, 64, 64, 0, 0, 1, 0]);
    guest.ok(command::RESOURCE_FLUSH, &[0, 0, 64, 64, 1, 0]);
    let updates = guest.updates();
    let [
        Update::Pixels {
            id: 15,
            rect,
            source_rect,
            pixels,
        },
    ] = &updates[..]
    else {
        panic!("{updates:?}");
    };
    assert_eq!((rect.x, rect.y, rect.width, rect.height), (4, 0, 1, 1));
    assert_eq!(pixels.read(source_rect), [5; 4]);
}

#[test]
fn scanouts_lie_within_their_resource() {
    let mut guest = Guest::with_resource();
    let set = command::SET_SCANOUT;
    let wrong = [
        ([0, 0, 64, 64, 16, 1], response::ERR_INVALID_SCANOUT_ID),
        (
            [0, 0, 64, 64, u32::MAX, 0],
            response::ERR_INVALID_SCANOUT_ID,
        ),
        ([0, 0, 64, 64, 0, 2], response::ERR_INVALID_RESOURCE_ID),
        ([1, 0, 64, 64, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 64, 65, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, u32::MAX, 64, 2, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 0, 64, 0, 1], response::ERR_INVALID_PARAMETER),
        ([0, 0, 64, 0, 0, 1], response::ERR_INVALID_PARAMETER),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(set, &words), expected, "{words:?}");
    }
    assert!(guest.updates().is_empty());
    for scanout in 0..MAX_SCANOUTS as u32 {
        guest.ok(set, &[1, 1, 63, 63, scanout, 1]);
    }
    assert_eq!(guest.updates().len(), MAX_SCANOUTS);
    guest.ok(set, &[9, 9, 9, 9, 3, 0]);
    assert!(matches!(
        guest.updates()[..],
        [Update::Scanout {
            id: 3,
            size: Size {
                width: 0,
                height: 0
            }
        }]
    ));
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(guest.updates().len(), MAX_SCANOUTS - 1);
    for (words, expected) in [
        ([0, 0, 64, 64, 1, 0], response::ERR_INVALID_RESOURCE_ID),
        ([0, 0, 64, 64, 0, 0], response::ERR_INVALID_RESOURCE_ID),
    ] {
        let flush = command::RESOURCE_FLUSH;
        assert_eq!(guest.control(flush, &words), expected);
    }
}

#[test]
fn flushes_lie_within_their_resource() {
    let mut guest = Guest::with_resource();
    let flush = command::RESOURCE_FLUSH;
    for rect in [
        [0, 0, 65, 1],
        [1, 0, 64, 1],
        [0, 64, 1, 1],
        [u32::MAX, 0, 1, 1],
    ] {
        let [x, y, width, height] = rect;
        assert_eq!(
            guest.control(flush, &[x, y, width, height, 1, 0]),
            response::ERR_INVALID_PARAMETER
        );
    }
    guest.ok(flush, &[64, 64, 0, 0, 1, 0]);
}
