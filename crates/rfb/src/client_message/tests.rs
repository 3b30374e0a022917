// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::PixelFormatError;

fn every_message() -> Vec<ClientMessage> {
    let rect = Rect::new(1, 2, 0xffff, 0x1234);
    let fence = Fence::new(Fence::REQUEST | Fence::BLOCK_BEFORE, &[7; 64]).expect("a fence");
    vec![
        ClientMessage::SetPixelFormat(PixelFormat::RGB565),
        ClientMessage::FramebufferUpdateRequest {
            incremental: true,
            rect,
        },
        ClientMessage::KeyEvent {
            down: true,
            keysym: 0xff0d,
        },
        ClientMessage::QemuExtendedKeyEvent {
            down: false,
            keysym: 0x61,
            keycode: 0x9c,
        },
        ClientMessage::PointerEvent {
            buttons: 0b101_0101,
            x: 3,
            y: 0x8000,
        },
        ClientMessage::EnableContinuousUpdates { enable: true, rect },
        ClientMessage::Fence(fence),
        ClientMessage::SetDesktopSize {
            width: 1920,
            height: 1080,
            screens: vec![
                Screen {
                    id: 0x0102_0304,
                    rect,
                    flags: 9,
                };
                255
            ],
        },
        ClientMessage::PointerEvent {
            buttons: 0b1_1000_0001,
            x: 3,
            y: 4,
        },
    ]
}

fn parser() -> ClientMessageParser {
    let mut parser = ClientMessageParser::default();
    parser.set_extended_mouse_buttons(true);
    parser
}

/// Everything in `bytes`, which arrive in pieces of `step`.
fn parse(bytes: &[u8], step: usize) -> Result<Vec<ClientMessage>, ClientMessageError> {
    let (mut parser, mut messages, mut left) = (parser(), Vec::new(), Vec::new());
    for piece in bytes.chunks(step) {
        left.extend_from_slice(piece);
        let mut input = &left[..];
        while let Some(message) = parser.next(&mut input)? {
            messages.push(message);
        }
        assert!(input.len() <= ClientMessageParser::MAX_LEFT);
        left = input.to_vec();
    }
    assert!(left.is_empty(), "{left:?}");
    Ok(messages)
}

#[test]
fn each_message_means_the_same_however_it_arrives() {
    let mut bytes = Vec::new();
    for message in every_message() {
        message.write(&mut bytes);
        write_cut_text(b"some text", &mut bytes);
    }
    for step in [1, 2, 3, 7, 64, 10_000] {
        assert_eq!(parse(&bytes, step), Ok(every_message()), "{step}");
    }
}

#[test]
fn messages_are_those_of_the_specification() {
    let event = ClientMessage::QemuExtendedKeyEvent {
        down: true,
        keysym: 0x61,
        keycode: 0x1e,
    };
    let bytes = [255, 0, 0, 1, 0, 0, 0, 0x61, 0, 0, 0, 0x1e];
    assert_eq!(parse(&bytes, 64), Ok(vec![event]));
    let request = ClientMessage::FramebufferUpdateRequest {
        incremental: false,
        rect: Rect::new(1, 2, 3, 4),
    };
    let bytes = [3, 0, 0, 1, 0, 2, 0, 3, 0, 4];
    assert_eq!(parse(&bytes, 64), Ok(vec![request]));
}

#[test]
fn the_eighth_button_is_a_marker_only_when_agreed() {
    let bytes = [5, 0x81, 0, 1, 0, 2];
    let mut plain = ClientMessageParser::default();
    let event = plain.next(&mut &bytes[..]);
    let buttons = |buttons| ClientMessage::PointerEvent {
        buttons,
        x: 1,
        y: 2,
    };
    assert_eq!(event, Ok(Some(buttons(0x81))));
    assert_eq!(parser().next(&mut &bytes[..]), Ok(None));
    let bytes = [5, 0x81, 0, 1, 0, 2, 3];
    assert_eq!(parser().next(&mut &bytes[..]), Ok(Some(buttons(0x181))));
}

#[test]
fn encodings_beyond_counting_leave_what_is_known() {
    let mut many = vec![Encoding(77_777); usize::from(u16::MAX) - 1];
    many.push(Encoding::TIGHT);
    let mut bytes = Vec::new();
    write_set_encodings(&many, &mut bytes);
    let set: EncodingSet = [Encoding::TIGHT].into_iter().collect();
    assert_eq!(
        parse(&bytes, 1000),
        Ok(vec![ClientMessage::SetEncodings(set)])
    );
    let none = ClientMessage::SetEncodings(EncodingSet::default());
    assert_eq!(parse(&[2, 0, 0, 0], 1), Ok(vec![none]));
}

#[test]
fn a_cut_text_of_any_length_is_skipped() {
    // The Extended Clipboard's lengths are negative: -1, and the least.
    for (len, is_one) in [
        (u32::MAX, true),
        (1 << 31, false),
        (i32::MAX.unsigned_abs(), false),
    ] {
        let mut parser = ClientMessageParser::default();
        let header = [&[6, 0, 0, 0][..], &len.to_be_bytes()].concat();
        assert_eq!(parser.next(&mut &header[..]), Ok(None));
        let piece = [0xff; 60_000];
        let mut input = &piece[..];
        let next = parser.next(&mut input);
        if is_one {
            // The rest is a message again, of type 255.
            assert_eq!(next, Err(ClientMessageError::UnknownQemuType(0xff)));
        } else {
            assert_eq!((next, input.len()), (Ok(None), 0));
        }
    }
}

#[test]
fn what_cannot_go_on_is_an_error() {
    let next = |bytes: &[u8]| ClientMessageParser::default().next(&mut &bytes[..]);
    assert_eq!(next(&[1]), Err(ClientMessageError::UnknownType(1)));
    assert_eq!(next(&[255, 1]), Err(ClientMessageError::UnknownQemuType(1)));
    let mut fence = [0; 9];
    fence[0] = 248;
    fence[8] = 65;
    assert_eq!(next(&fence), Err(ClientMessageError::FenceLen(65)));
    let mut format = [0; 20];
    format[4] = 12;
    let error = PixelFormatError::BitsPerPixel(12);
    assert_eq!(next(&format), Err(ClientMessageError::PixelFormat(error)));
}
