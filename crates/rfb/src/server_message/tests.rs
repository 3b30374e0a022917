// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::{Cursor, Fence, Screen, ServerMessageError};

fn read_update(bytes: &[u8], format: PixelFormat) -> Vec<PseudoRect> {
    let mut reader = bytes;
    let message = ServerMessage::read(&mut reader).expect("a message");
    let ServerMessage::FramebufferUpdate(count) = message else {
        panic!("{message:?}");
    };
    let mut rects = Vec::new();
    for _ in 0..count {
        let (rect, encoding) = read_rect_header(&mut reader).expect("a header");
        let read = PseudoRect::read(&mut reader, rect, encoding, format);
        rects.push(read.expect("a rectangle").expect("a known rectangle"));
    }
    assert!(reader.is_empty());
    rects
}

#[test]
fn every_pseudo_rectangle_is_read_as_it_was_written() {
    let screen = Screen {
        id: 5,
        rect: Rect::new(1, 2, 3, 4),
        flags: 6,
    };
    let cursor = Cursor::new((1, 2), 9, 2, vec![0xff11_2233; 18]).expect("a cursor");
    let leds = LedState {
        scroll: false,
        num: true,
        caps: true,
    };
    let mut out = Vec::new();
    let mut update = Update::begin(&mut out);
    write_desktop_size(640, 480, &mut out);
    write_extended_desktop_size(
        DesktopSizeReason::OtherViewer,
        DesktopSizeStatus::InvalidLayout,
        (640, 480),
        &[screen, screen],
        &mut out,
    );
    write_cursor(&cursor, PixelFormat::XRGB8888, &mut out);
    write_cursor_with_alpha(&cursor, &mut out);
    write_desktop_name("vm1", &mut out);
    write_qemu_led_state(leds, &mut out);
    write_vmware_led_state(leds, &mut out);
    write_qemu_extended_key_event(&mut out);
    write_extended_mouse_buttons(&mut out);
    write_last_rect(&mut out);
    assert!(update.count(10));
    assert_eq!(update.finish(&mut out), 10);
    assert_eq!(
        read_update(&out, PixelFormat::XRGB8888),
        [
            PseudoRect::DesktopSize {
                width: 640,
                height: 480
            },
            PseudoRect::ExtendedDesktopSize {
                reason: 2,
                status: 3,
                width: 640,
                height: 480,
                screens: vec![screen, screen],
            },
            PseudoRect::Cursor(cursor.clone()),
            PseudoRect::Cursor(cursor),
            PseudoRect::DesktopName("vm1".to_owned()),
            PseudoRect::LedState(leds),
            PseudoRect::LedState(leds),
            PseudoRect::QemuExtendedKeyEvent,
            PseudoRect::ExtendedMouseButtons,
            PseudoRect::LastRect,
        ]
    );
}

#[test]
fn a_cursor_has_a_mask_and_colours_without_alpha() {
    let pixels = vec![
        0xff40_2010,
        0x8020_1008,
        0x7f10_0804,
        0,
        0,
        0,
        0,
        0,
        0xffff_ffff,
    ];
    let cursor = Cursor::new((0, 0), 9, 1, pixels).expect("a cursor");
    let mut out = Vec::new();
    write_cursor(&cursor, PixelFormat::XRGB8888, &mut out);
    let payload = &out[12..];
    assert_eq!(payload[..8], [0x10, 0x20, 0x40, 0, 0x10, 0x20, 0x40, 0]);
    assert_eq!(payload[36..], [0b1100_0000, 0b1000_0000]);
    // An overflowing colour, which no guest's driver makes and any guest can.
    assert_eq!(
        Cursor::new((0, 0), 1, 1, vec![0x80ff_ffff]).map(|cursor| {
            let mut out = Vec::new();
            write_cursor(&cursor, PixelFormat::XRGB8888, &mut out);
            out.split_off(12)
        }),
        Some(vec![255, 255, 255, 0, 0x80])
    );
}

#[test]
fn a_hidden_pointer_is_a_cursor_without_pixels() {
    let mut out = Vec::new();
    let mut update = Update::begin(&mut out);
    write_cursor(&Cursor::default(), PixelFormat::RGB565, &mut out);
    write_cursor_with_alpha(&Cursor::default(), &mut out);
    assert!(update.count(2));
    update.finish(&mut out);
    let hidden = PseudoRect::Cursor(Cursor::default());
    assert_eq!(
        read_update(&out, PixelFormat::RGB565),
        [hidden.clone(), hidden]
    );
}

#[test]
fn a_cursor_beyond_the_limit_is_not_read() {
    for (encoding, bytes) in [
        (Encoding::CURSOR, &[][..]),
        (Encoding::CURSOR_WITH_ALPHA, &[0; 4]),
    ] {
        let rect = Rect::of_size(u16::MAX, u16::MAX);
        let mut reader = bytes;
        let read = PseudoRect::read(&mut reader, rect, encoding, PixelFormat::XRGB8888);
        assert!(
            matches!(read, Err(ServerMessageError::TooLarge { .. })),
            "{read:?}"
        );
    }
}

#[test]
fn other_messages_are_read_as_they_were_written() {
    let fence = Fence::new(Fence::REQUEST | 7, b"abc").expect("a fence");
    let mut out = Vec::new();
    write_bell(&mut out);
    write_end_of_continuous_updates(&mut out);
    fence.write(&mut out);
    write_colour_map(&mut out);
    out.extend_from_slice(&[3, 0, 0, 0, 0, 0, 0, 2, b'h', b'i']);
    out.extend_from_slice(&[3, 0, 0, 0, 255, 255, 255, 254, b'h', b'i']);
    let mut reader = &out[..];
    let mut next = || ServerMessage::read(&mut reader).expect("a message");
    assert_eq!(next(), ServerMessage::Bell);
    assert_eq!(next(), ServerMessage::EndOfContinuousUpdates);
    assert_eq!(next(), ServerMessage::Fence(fence));
    let ServerMessage::SetColourMapEntries { first: 0, colours } = next() else {
        panic!("not the colour map");
    };
    assert_eq!(colours.len(), 256);
    assert_eq!(colours[0b0100_0111], [0xffff, 0, 0x5555]);
    assert_eq!(next(), ServerMessage::ServerCutText(b"hi".to_vec()));
    assert_eq!(next(), ServerMessage::ServerCutText(Vec::new()));
    assert!(reader.is_empty());
    assert_eq!(fence.answer().flags, 7);
}

#[test]
fn more_rectangles_than_a_message_takes_are_refused() {
    let mut out = vec![1, 2, 3];
    let mut update = Update::begin(&mut out);
    assert!(update.count(UNTIL_LAST_RECT - 1));
    assert!(!update.count(1));
    assert_eq!(update.finish(&mut out), UNTIL_LAST_RECT - 1);
    let mut out = vec![1, 2, 3];
    assert_eq!(Update::begin(&mut out).finish(&mut out), 0);
    assert_eq!(out, [1, 2, 3], "an empty update is none");
}

#[test]
fn what_cannot_go_on_is_an_error() {
    let read = |bytes: &[u8]| ServerMessage::read(&mut &bytes[..]);
    assert!(matches!(
        read(&[77]),
        Err(ServerMessageError::UnknownType(77))
    ));
    let mut fence = [0; 300];
    fence[0] = 248;
    fence[8] = 65;
    assert!(matches!(
        read(&fence),
        Err(ServerMessageError::FenceLen(65))
    ));
    assert!(matches!(read(&[0, 0, 0]), Err(ServerMessageError::Io(_))));
    let endless = [3, 0, 0, 0, 0x7f, 255, 255, 255, 1];
    assert!(matches!(read(&endless), Err(ServerMessageError::Io(_))));
}
