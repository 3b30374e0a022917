// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Resources and their UUIDs.

use super::*;

#[test]
fn resources_are_created_within_bounds() {
    let mut guest = Guest::new();
    let create = command::RESOURCE_CREATE_2D;
    for format in [1, 2, 3, 4, 67, 68, 121, 134] {
        guest.ok(create, &[format, format, 3, 5]);
    }
    let wrong = [
        ([0, BGRX, 1, 1], response::ERR_INVALID_RESOURCE_ID),
        ([1, BGRX, 1, 1], response::ERR_INVALID_RESOURCE_ID),
        ([9, 0, 1, 1], response::ERR_INVALID_PARAMETER),
        ([9, 5, 1, 1], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 0, 1], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 1, 0], response::ERR_INVALID_PARAMETER),
        (
            [9, BGRX, u32::MAX, u32::MAX],
            response::ERR_INVALID_PARAMETER,
        ),
        ([9, BGRX, 0x4000_0001, 4], response::ERR_INVALID_PARAMETER),
        ([9, BGRX, 1024, 1024], response::ERR_OUT_OF_MEMORY),
    ];
    for (words, expected) in wrong {
        assert_eq!(guest.control(create, &words), expected, "{words:?}");
        guest.error.take().unwrap();
    }
    guest.ok(command::RESOURCE_UNREF, &[1, 0]);
    assert_eq!(
        guest.control(command::RESOURCE_UNREF, &[1, 0]),
        response::ERR_INVALID_RESOURCE_ID
    );
}

#[test]
fn resources_keep_their_uuid() {
    let mut guest = Guest::with_resource();
    guest.ok(command::RESOURCE_CREATE_2D, &[2, BGRX, 1, 1]);
    let mut uuid = |id| {
        let bytes = request(command::RESOURCE_ASSIGN_UUID, &[id, 0]);
        let response = guest.done(QueueKind::Control, &bytes);
        assert_eq!(kind(&response), response::OK_RESOURCE_UUID);
        let uuid: [u8; 16] = response[HEADER_LEN..].try_into().unwrap();
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (4, 2));
        uuid
    };
    assert_eq!(uuid(1), uuid(1));
    assert_ne!(uuid(1), uuid(2));
    assert_eq!(
        guest.control(command::RESOURCE_ASSIGN_UUID, &[3, 0]),
        response::ERR_INVALID_RESOURCE_ID
    );
}
