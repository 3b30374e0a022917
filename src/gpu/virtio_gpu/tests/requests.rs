// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Requests as bytes: their lengths, their commands and their fences.

use super::*;

#[test]
fn requests_of_any_length_are_answered() {
    let commands = [
        (command::RESOURCE_CREATE_2D, vec![7, BGRX, 1, 1]),
        (command::RESOURCE_UNREF, vec![1, 0]),
        (command::SET_SCANOUT, vec![0, 0, 1, 1, 0, 1]),
        (command::RESOURCE_FLUSH, vec![0, 0, 1, 1, 1, 0]),
        (command::TRANSFER_TO_HOST_2D, vec![0, 0, 1, 1, 0, 0, 1, 0]),
        (command::RESOURCE_ATTACH_BACKING, vec![1, 1, 0, 0, 4, 0]),
        (command::RESOURCE_DETACH_BACKING, vec![1, 0]),
        (command::GET_EDID, vec![0, 0]),
        (command::RESOURCE_ASSIGN_UUID, vec![1, 0]),
    ];
    for (command, words) in commands {
        let whole = request(command, &words);
        for len in 0..whole.len() {
            let mut guest = Guest::with_resource();
            let padding = 4;
            let (header, result) = guest.execute_with_header(QueueKind::Control, &whole[..len]);
            if let CommandResult::Complete(response) = result {
                let response = response.encode(&header);
                assert_eq!(response.len() % 4, 0);
                let short = len + padding < whole.len() || len < HEADER_LEN;
                // A command may end with padding that nobody reads.
                let kind = kind(&response);
                assert!(
                    !short
                        || kind == response::ERR_INVALID_PARAMETER
                        || kind == response::ERR_UNSPEC,
                    "{command:#x} cut to {len}: {kind:#x}"
                );
            }
        }
    }
}

#[test]
fn unknown_commands_are_unspecified_errors() {
    let mut guest = Guest::new();
    for command in [0, 0x10e, 0x200, 0x207, 0x300, 0x301, 0x1100, u32::MAX] {
        assert_eq!(guest.control(command, &[0; 16]), response::ERR_UNSPEC);
        assert!(guest.error.take().is_some());
    }
    assert_eq!(
        guest.cursor(command::RESOURCE_CREATE_2D, &[1, BGRX, 1, 1]),
        response::ERR_UNSPEC
    );
    assert_eq!(
        guest.control(command::GET_CAPSET_INFO, &[0, 0]),
        response::ERR_INVALID_PARAMETER
    );
}

#[test]
fn fences_are_returned_with_success_and_with_failure() {
    let mut guest = Guest::new();
    for words in [[1, BGRX, 1, 1], [1, BGRX, 1, 1]] {
        let mut bytes = request(command::RESOURCE_CREATE_2D, &words);
        bytes[4] = 1;
        bytes[8..16].copy_from_slice(&77_u64.to_le_bytes());
        bytes[16] = 5;
        let response = guest.done(QueueKind::Control, &bytes);
        let mut expected = bytes[..HEADER_LEN].to_vec();
        expected[..4].copy_from_slice(&response[..4]);
        assert_eq!(*response, expected);
    }
}

#[test]
fn new_drivers_find_no_resources() {
    let mut guest = Guest::with_resource();
    guest.ok(command::SET_SCANOUT, &[0, 0, 64, 64, 0, 1]);
    guest.state.reset();
    assert_eq!(guest.state.scanouts.active_scanouts().count(), 0);
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, WIDTH, HEIGHT]);
}
