// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Viewers whose messages are wrong, or right ones that nobody expects.

use std::io::Write as _;

use super::*;

/// Up to 64 bytes of payload are sent back (RFB, Fence extension).
#[test]
fn fences_with_too_much_payload_end_the_viewer() {
    let mut console = Console::start();
    for length in [65_u8, 128, 255] {
        let mut bytes = vec![message::FENCE, 0, 0, 0];
        bytes.extend(0x8000_0001_u32.to_be_bytes());
        bytes.push(length);
        bytes.extend(vec![0xaa; length.into()]);
        console.assert_refused(&bytes);
    }
    console.finish();
}

#[test]
fn fences_of_unknown_flags_are_answered_without_them() {
    let (console, mut viewer) = Console::with_viewer(&[encoding::RAW, encoding::FENCE]);
    let mut bytes = vec![message::FENCE, 0, 0, 0];
    bytes.extend(u32::MAX.to_be_bytes());
    bytes.extend([3, 1, 2, 3]);
    // SyncNext is one of the flags: the answer waits for the message after the fence, a PointerEvent.
    bytes.extend([5, 0, 0, 0, 0, 0]);
    viewer.send(&bytes);
    loop {
        let [kind, _, _, _, a, b, c, d, length] = viewer.read();
        assert_eq!(kind, message::FENCE);
        let flags = u32::from_be_bytes([a, b, c, d]);
        let mut payload = vec![0; length.into()];
        viewer.stream.read_exact(&mut payload).unwrap();
        // The server's own question, which says that it knows fences.
        if flags & 0x8000_0000 != 0 {
            continue;
        }
        assert_eq!(flags & !0b111, 0, "{flags:#x}");
        assert_eq!(payload, [1, 2, 3]);
        break;
    }
    console.finish();
}

#[test]
fn continuous_updates_of_impossible_places_harm_nobody() {
    let (mut console, mut viewer) =
        Console::with_viewer(&[encoding::RAW, encoding::CONTINUOUS_UPDATES]);
    for [x, y, width, height] in [
        [u16::MAX; 4],
        [0; 4],
        [639, 479, u16::MAX, u16::MAX],
        [0, 0, 640, 480],
    ] {
        for on in [1, 0, 1] {
            let mut bytes = vec![message::CONTINUOUS_UPDATES, on];
            bytes.extend([x, y, width, height].iter().flat_map(|n| n.to_be_bytes()));
            viewer.send(&bytes);
        }
        console.assert_served();
    }
    console.finish();
}

/// The format of an answer is the one that was last set before the request.
#[test]
fn format_changed_between_request_and_answer_keeps_updates_whole() {
    let (mut console, mut viewer) = Console::with_viewer(&[encoding::RAW, encoding::DESKTOP_SIZE]);
    for _ in 0..20 {
        viewer.send(&pixel_format(8, 8, true, [7, 7, 3], [0, 3, 6]));
        viewer.send(&update_request(false, 0, 0, 64, 64));
        viewer.send(&pixel_format(16, 16, true, [31, 63, 31], [11, 5, 0]));
        viewer.send(&update_request(false, 0, 0, 32, 32));
        viewer.send(&pixel_format(32, 24, true, [255; 3], [16, 8, 0]));
        viewer.send(&update_request(false, 0, 0, 640, 480));
    }
    console.assert_served();
    drop(viewer);
    // A viewer that waits for each answer gets exactly its bytes.
    let mut viewer = console.viewer();
    viewer.set_encodings(&[encoding::RAW]);
    for (bits, bytes) in [(8, 1), (16, 2), (32, 4), (8, 1)] {
        let (max, shift) = match bits {
            8 => ([7, 7, 3], [0, 3, 6]),
            16 => ([31, 63, 31], [11, 5, 0]),
            _ => ([255; 3], [16, 8, 0]),
        };
        viewer.send(&pixel_format(bits, bits.min(24), true, max, shift));
        viewer.send(&update_request(false, 0, 0, 16, 16));
        let [kind, _, c0, c1] = viewer.read();
        assert_eq!(kind, 0);
        let mut area = 0;
        for _ in 0..u16::from_be_bytes([c0, c1]) {
            let [_, _, _, _, w0, w1, h0, h1, encoding @ ..] = viewer.read::<12>();
            assert_eq!(i32::from_be_bytes(encoding), encoding::RAW);
            let pixels = usize::from(u16::from_be_bytes([w0, w1]))
                * usize::from(u16::from_be_bytes([h0, h1]));
            let mut rest = vec![0; pixels * bytes];
            viewer.stream.read_exact(&mut rest).unwrap();
            area += pixels;
        }
        assert_eq!(area, 16 * 16);
    }
    console.finish();
}

/// A palette's colors come before its pixels (RFC 6143, 7.6.2), or the viewer is told to go.
#[test]
fn formats_with_a_palette_get_one_or_the_end() {
    let (console, mut viewer) = Console::with_viewer(&[encoding::RAW]);
    viewer.send(&pixel_format(8, 8, false, [0; 3], [0; 3]));
    viewer.send(&update_request(false, 0, 0, 4, 4));
    let mut kind = [0];
    match viewer.stream.read_exact(&mut kind) {
        Ok(()) => assert_eq!(kind, [1], "SetColourMapEntries"),
        Err(_) => console.vnc.wait_stderr("viewer").map(drop).unwrap(),
    }
    console.finish();
}

#[test]
fn messages_of_qemu_that_are_unknown_end_the_viewer() {
    let mut console = Console::start();
    for kind in [2_u8, 3, 77, 255] {
        console.assert_refused(&[&[message::QEMU, kind][..], &[0xff; 32]].concat());
    }
    console.finish();
}

#[test]
fn keys_and_places_that_do_not_exist_harm_nobody() {
    let (mut console, mut viewer) = Console::with_viewer(&[encoding::RAW, encoding::QEMU_KEY]);
    for code in [
        0,
        1,
        0xfe,
        0xff,
        0x100,
        0x1ff,
        0xe05d,
        0xffff,
        1 << 31,
        u32::MAX,
    ] {
        viewer.send(&key(true, code));
        let mut bytes = vec![message::QEMU, 0, 0, 1];
        bytes.extend(code.to_be_bytes());
        bytes.extend(code.to_be_bytes());
        viewer.send(&bytes);
    }
    for (x, y) in [(u16::MAX, u16::MAX), (640, 480), (0, u16::MAX)] {
        for buttons in 0..=255 {
            viewer.send(&pointer(buttons, x, y));
        }
    }
    console.assert_served();
    // It is still there.
    viewer.set_encodings(&[encoding::RAW, encoding::DESKTOP_SIZE]);
    viewer.send(&update_request(false, 0, 0, 640, 480));
    viewer.update();
    console.finish();
}

/// Each message, cut off at each of its bytes: the viewer is gone, and that is all.
#[test]
fn viewers_that_vanish_within_a_message_leave_nothing() {
    let messages = [
        pixel_format(32, 24, true, [255; 3], [16, 8, 0]),
        set_encodings(&[encoding::RAW, encoding::ZRLE]),
        update_request(false, 0, 0, 640, 480),
        key(true, 0x61),
        pointer(1, 5, 5),
        cut_text(5, b"hello"),
    ]
    .concat();
    let mut console = Console::start();
    let before = console.settled();
    for length in 0..messages.len() {
        let mut viewer = console.viewer();
        viewer.send(&messages[..length]);
    }
    console.assert_served();
    console.wait_left(&before);
    console.finish();
}

/// Bytes without sense, before and after the handshake.
#[test]
fn noise_ends_only_its_own_connection() {
    let mut console = Console::start();
    let mut state = 1;
    for n in 0..200 {
        let mut stream = console.connect();
        let _ = stream.write_all(&noise(&mut state, 1 + n));
        let mut viewer = console.viewer();
        let bytes = noise(&mut state, 8 * n + 1);
        viewer.send(&bytes);
        if n % 20 == 0 {
            console.assert_served();
        }
    }
    console.finish();
}
