// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A GPU and a viewer of the console, both hostile.

use rfb::{
    Channel, ClientMessage, Encoding, Fence, PixelFormat, Rect, Screen, write_cut_text,
    write_set_encodings,
};
use vhost_user_backends::vnc::testing::Console;

use crate::bytes::Bytes;

/// Most bytes in memory of its own that the console keeps for a viewer: those that may wait, a slice of pixels and what
/// encodings add to it, and messages.
const KEPT_MAX: usize = 2 << 20;

/// Messages of both in any order, mostly ones that mean something.
///
/// # Panics
/// Where a promise is broken.
pub fn console(data: &[u8]) {
    let mut bytes = Bytes::new(data);
    let mut console = Console::new().expect("sockets");
    let (mut has_gpu, mut has_viewer) = (true, console.viewer_sends(b"RFB 003.008\n\x01\x01"));
    let mut steps = 0;
    while !bytes.is_empty() && steps < 200 && (has_gpu || has_viewer) {
        steps += 1;
        let mut message = Vec::new();
        match bytes.u8() % 8 {
            0..3 if has_gpu => {
                of_gpu(&mut bytes, &mut message);
                has_gpu = console.gpu_sends(&message);
            }
            3..7 if has_viewer => {
                of_viewer(&mut bytes, &mut message);
                has_viewer = console.viewer_sends(&message);
            }
            _ => {
                let limit = usize::from(bytes.u16()) * 16;
                console.viewer_reads(limit);
                has_viewer = has_viewer && console.viewer_sends(&[]);
            }
        }
        assert!(
            console.kept() <= KEPT_MAX,
            "{} bytes are kept",
            console.kept()
        );
    }
}

fn of_gpu(bytes: &mut Bytes<'_>, out: &mut Vec<u8>) {
    let mut push = |request: u32, fields: &[u32], pixels: usize| {
        let size = 4 * fields.len() + pixels;
        for word in [request, 0, size as u32].iter().chain(fields) {
            out.extend_from_slice(&word.to_ne_bytes());
        }
        // Each message draws something else, parts of which are equal to what was there.
        let seed = fields
            .iter()
            .fold(0_u32, |all, field| all.wrapping_add(*field));
        out.extend((0..pixels as u32).map(|n| seed.wrapping_add(n / 24 * 40) as u8));
    };
    let side = [0, 1, 63, 64, 65, 200, 2049];
    match bytes.u8() % 8 {
        0 => push(7, &[0, bytes.mostly(&side), bytes.mostly(&side)], 0),
        1..4 => {
            let (x, y) = (bytes.u8(), bytes.u8());
            let (width, height) = (bytes.u8(), bytes.u8());
            let pixels = usize::from(width) * usize::from(height) * 4;
            push(8, &[0, x, y, width, height].map(u32::from), pixels);
        }
        4 => push(
            6,
            &[0, bytes.mostly(&side), bytes.mostly(&side), 1, 2],
            64 * 64 * 4,
        ),
        5 => push(4, &[0, bytes.mostly(&side), bytes.mostly(&side)], 0),
        6 => push(5, &[0, bytes.mostly(&side), bytes.mostly(&side)], 0),
        _ => out.extend_from_slice(bytes.some(64)),
    }
}

fn of_viewer(bytes: &mut Bytes<'_>, out: &mut Vec<u8>) {
    let any_rect = |bytes: &mut Bytes<'_>| {
        let mut side = || bytes.mostly(&[0, 1, 64, 200, 1024]) as u16;
        Rect::new(side(), side(), side(), side())
    };
    let message = match bytes.u8() % 10 {
        0 => {
            let [red, green, blue] = [0; 3].map(|_| Channel {
                max: bytes.mostly(&[0, 1, 7, 31, 255]) as u16,
                shift: bytes.u8() % 33,
            });
            let bits = bytes.of(&[8, 16, 32]);
            let big_endian = bytes.u8() & 1 != 0;
            let format =
                PixelFormat::true_colour(bits, bytes.u8() % 33, big_endian, [red, green, blue]);
            match format {
                Ok(format) => ClientMessage::SetPixelFormat(format),
                Err(_) => return,
            }
        }
        1 => {
            let known = [
                0, 1, 7, 16, -223, -224, -239, -258, -261, -307, -308, -312, -313, -314,
            ];
            let count = bytes.u8() % 8;
            let encodings: Vec<_> = (0..count).map(|_| Encoding(bytes.of(&known))).collect();
            return write_set_encodings(&encodings, out);
        }
        2..5 => ClientMessage::FramebufferUpdateRequest {
            incremental: bytes.u8() & 1 != 0,
            rect: any_rect(bytes),
        },
        5 => ClientMessage::EnableContinuousUpdates {
            enable: bytes.u8() & 1 != 0,
            rect: any_rect(bytes),
        },
        6 => match Fence::new(bytes.u32(), bytes.some(64)) {
            Some(fence) => ClientMessage::Fence(fence),
            None => return,
        },
        7 => {
            let rect = any_rect(bytes);
            ClientMessage::SetDesktopSize {
                width: rect.width,
                height: rect.height,
                screens: vec![
                    Screen {
                        rect,
                        ..Screen::default()
                    };
                    usize::from(bytes.u8() % 3)
                ],
            }
        }
        8 => return write_cut_text(bytes.some(600), out),
        _ => return out.extend_from_slice(bytes.some(64)),
    };
    message.write(out);
}
