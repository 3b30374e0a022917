// SPDX-License-Identifier: Apache-2.0 OR MIT
//! GET_DISPLAY_INFO and GET_EDID.

use super::*;

#[test]
fn display_info_is_the_front_ends() {
    let mut guest = Guest::new();
    let bytes = request(command::GET_DISPLAY_INFO, &[]);
    let ask = CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo);
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    let mut modes = DisplayInfo::default();
    modes.0[0].rect = Rect::sized(800, 600);
    guest.reply = Some(DisplayReply::DisplayInfo(Box::new(modes)));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(kind(&response), response::OK_DISPLAY_INFO);
    assert_eq!(DisplayInfo::decode_response(&response).unwrap(), modes);
    // The answer is good once; what it said is remembered for when there is none.
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    guest.reply = Some(DisplayReply::Nothing);
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(DisplayInfo::decode_response(&response).unwrap(), modes);
}

#[test]
fn replies_are_for_one_request_only() {
    let mut guest = Guest::new();
    guest.reply = Some(DisplayReply::Nothing);
    guest.ok(command::RESOURCE_CREATE_2D, &[1, BGRX, 1, 1]);
    let bytes = request(command::GET_DISPLAY_INFO, &[]);
    let outcome = guest.execute(QueueKind::Control, &bytes);
    assert_eq!(
        outcome,
        CommandResult::NeedsDisplay(DisplayQuery::DisplayInfo)
    );
}

#[test]
fn edids_are_the_front_ends_or_generated() {
    let mut guest = Guest::new();
    let bytes = request(command::GET_EDID, &[1, 0]);
    let ask = CommandResult::NeedsDisplay(DisplayQuery::Edid(1));
    assert_eq!(guest.execute(QueueKind::Control, &bytes), ask);
    guest.reply = Some(DisplayReply::Edid(vec![3; 256]));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(kind(&response), response::OK_EDID);
    assert_eq!(response[HEADER_LEN..HEADER_LEN + 4], 256_u32.to_le_bytes());

    let mut modes = DisplayInfo::default();
    modes.0[1] = modes.0[0];
    modes.0[1].rect = Rect::sized(1600, 900);
    let reply = DisplayReply::DisplayInfo(Box::new(modes));
    let expected = LastDisplayInfo::default().edid(1, reply);
    guest.reply = Some(DisplayReply::DisplayInfo(Box::new(modes)));
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(response[HEADER_LEN + 8..][..128], expected);
    guest.reply = Some(DisplayReply::Nothing);
    let response = guest.done(QueueKind::Control, &bytes);
    assert_eq!(response[HEADER_LEN + 8..][..128], expected);

    assert_eq!(
        guest.control(command::GET_EDID, &[16, 0]),
        response::ERR_INVALID_SCANOUT_ID
    );
}
