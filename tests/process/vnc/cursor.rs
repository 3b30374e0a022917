// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The guest's pointer, with viewers that draw it and with those that do not.

use rfb::Encoding;

use super::{Console, Viewer, assert_shows};

const SIZE: (u16, u16) = (100, 80);

/// A cursor of 64 by 64 pixels, of which the first two are seen: an opaque one and one that is half transparent.
fn cursor() -> Vec<u8> {
    let mut pixels = vec![0; 64 * 64 * 4];
    pixels[..8].copy_from_slice(&[10, 20, 30, 255, 100, 0, 0, 128]);
    pixels
}

fn wait_for_cursor(viewer: &mut Viewer, seen: impl Fn(&rfb::Cursor) -> bool) {
    let cursor_is = |viewer: &Viewer| viewer.cursor().is_some_and(&seen);
    viewer.wait_until(cursor_is).unwrap();
}

#[test]
fn viewer_that_draws_the_cursor_gets_its_shape() {
    for encoding in [Encoding::CURSOR_WITH_ALPHA, Encoding::CURSOR] {
        let pixels = vec![200; 100 * 80 * 4];
        let (_console, mut gpu, mut viewer) =
            Console::showing(SIZE, &pixels, &[Encoding::RAW, encoding]);
        assert_eq!(viewer.cursor(), None, "its own is better than none");
        gpu.cursor((5, 6), (1, 0), &cursor());
        wait_for_cursor(&mut viewer, |cursor| cursor.width() == 2);
        let shape = viewer.cursor().unwrap();
        assert_eq!((shape.height(), shape.hotspot()), (1, (1, 0)));
        assert_eq!(shape.pixels()[0], 0xff1e_140a);
        if encoding == Encoding::CURSOR_WITH_ALPHA {
            assert_eq!(shape.pixels()[1], 0x8000_0064);
        }
        // It is not in the picture.
        assert_shows(&mut viewer, SIZE, &pixels);
        gpu.move_cursor(false, (5, 6));
        wait_for_cursor(&mut viewer, |cursor| cursor.width() == 0);
        gpu.move_cursor(true, (5, 6));
        wait_for_cursor(&mut viewer, |cursor| cursor.width() == 2);
    }
}

#[test]
fn viewer_that_draws_none_sees_the_cursor_in_the_picture() {
    for encoding in [Encoding::RAW, Encoding::ZRLE] {
        let pixels = vec![200; 100 * 80 * 4];
        let (_console, mut gpu, mut viewer) = Console::showing(SIZE, &pixels, &[encoding]);
        let with_cursor_at = |x: usize, y: usize| {
            let mut pixels = pixels.clone();
            let start = (y * 100 + x) * 4;
            pixels[start..start + 4].copy_from_slice(&[10, 20, 30, 0]);
            if x < 99 {
                pixels[start + 4..start + 8].copy_from_slice(&[200, 100, 100, 0]);
            }
            pixels
        };
        gpu.cursor((5, 6), (1, 0), &cursor());
        assert_shows(&mut viewer, SIZE, &with_cursor_at(5, 6));
        gpu.move_cursor(true, (99, 79));
        assert_shows(&mut viewer, SIZE, &with_cursor_at(99, 79));
        gpu.update(0, 0, 100, 80, &pixels);
        viewer.request(false, viewer.frame().rect()).unwrap();
        viewer.wait_for_update().unwrap();
        assert_shows(&mut viewer, SIZE, &with_cursor_at(99, 79));
        gpu.move_cursor(false, (99, 79));
        assert_shows(&mut viewer, SIZE, &pixels);
    }
}
