// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Several displays of one device, each at its own pace.

use std::collections::BTreeMap;

use super::*;
use crate::gpu::resource::PIXEL_LEN;

const CONSOLE: DisplayId = DisplayId::console(1);
const LATER: DisplayId = DisplayId::console(2);
const SIZE: u32 = 100;
const ALL: Rect = Rect::sized(SIZE, SIZE);

/// What a display shows: the pixels of scanout 0, and the cursor.
#[derive(Debug, Default, PartialEq, Eq)]
struct Picture {
    pixels: BTreeMap<(u32, u32), [u8; PIXEL_LEN]>,
    cursor: Option<(Position, u8)>,
}

impl Picture {
    /// Takes as many updates as the display has time for.
    fn update(&mut self, scanouts: &mut Scanouts, id: DisplayId, most: usize) {
        let mut pending = scanouts.pending_updates(id).unwrap();
        for update in std::iter::from_fn(|| pending.take_next(false)).take(most) {
            self.apply(update);
        }
    }

    fn apply(&mut self, update: Update) {
        match update {
            Update::Scanout { .. } => self.pixels.clear(),
            Update::Pixels {
                rect,
                pixels,
                source_rect,
                ..
            } => {
                let pixels = pixels.read(&source_rect);
                let mut pixels = pixels.chunks_exact(PIXEL_LEN);
                for y in rect.y..rect.y + rect.height {
                    for (x, pixel) in (rect.x..rect.x + rect.width).zip(&mut pixels) {
                        self.pixels.insert((x, y), pixel.try_into().unwrap());
                    }
                }
            }
            Update::Cursor {
                position, shape, ..
            } => self.cursor = Some((position, shape.pixels[0])),
            Update::CursorPosition { position, .. } => {
                let shape = self.cursor.map_or(0, |(_, shape)| shape);
                self.cursor = Some((position, shape));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn draw(scanouts: &mut Scanouts, image: &SharedImage, rect: Rect, color: u8) {
    let row = vec![color; rect.width as usize * PIXEL_LEN];
    for y in rect.y..rect.y + rect.height {
        image.lock().merge_row(rect.x, y, &row);
    }
    change(scanouts, image, rect);
}

#[test]
fn displays_at_different_paces_end_with_the_same_picture() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    let (mut fast, mut slow, mut late) = Default::default();
    scanouts.attach_display(CONSOLE);
    scanouts.show(0, ScanoutSource::of_pixels(&image, ALL));
    for step in 0..200 {
        let at = |factor: u32| step * factor % 90;
        draw(
            &mut scanouts,
            &image,
            rect(at(7), at(3), 10, 6),
            step as u8 + 1,
        );
        if step % 3 != 0 {
            scanouts.flush(&image, &rect(0, 0, SIZE, 50 + step % 50));
        }
        let position = Position {
            x: step,
            y: 1,
            visible: step % 2 == 0,
        };
        let pixels = Box::new([step as u8; 64 * 64 * PIXEL_LEN]);
        let shape = Shape {
            hot_x: 0,
            hot_y: 0,
            pixels,
        };
        match step % 5 {
            0 => scanouts.set_cursor_shape(0, position, shape),
            _ => scanouts.move_cursor(0, position),
        }
        Picture::update(&mut fast, &mut scanouts, DisplayId::VMM, usize::MAX);
        if step % 10 == 0 {
            Picture::update(&mut slow, &mut scanouts, CONSOLE, 1);
        }
        if step == 120 {
            scanouts.attach_display(LATER);
            let readback = scanouts.next_readback().unwrap();
            scanouts.readback_done(&readback, true);
            assert_eq!(scanouts.next_readback(), None);
        }
        if step > 120 {
            Picture::update(&mut late, &mut scanouts, LATER, 2);
        }
    }
    scanouts.flush(&image, &ALL);
    for (picture, id) in [
        (&mut fast, DisplayId::VMM),
        (&mut slow, CONSOLE),
        (&mut late, LATER),
    ] {
        picture.update(&mut scanouts, id, usize::MAX);
    }
    assert_eq!(fast.pixels.len(), ALL.area() as usize);
    for ((x, y), pixel) in &fast.pixels {
        assert_eq!(image.lock().bytes(*x, *y, PIXEL_LEN), pixel, "{x},{y}");
    }
    assert!(fast == slow, "the slow display differs");
    assert!(fast == late, "the display that came later differs");
}

#[test]
fn unflushed_damage_sent_to_a_new_display_is_sent_to_the_others_too() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    scanouts.show(0, ScanoutSource::of_pixels(&image, ALL));
    scanouts.flush(&image, &ALL);
    sent(&mut scanouts);
    change(&mut scanouts, &image, rect(1, 2, 3, 4));
    scanouts.attach_display(CONSOLE);
    assert_eq!(sent(&mut scanouts), []);
    let readback = scanouts.next_readback().unwrap();
    scanouts.readback_done(&readback, true);
    let damage = rect(1, 2, 3, 4);
    assert_eq!(sent(&mut scanouts), [(0, damage, Some(damage))]);
    scanouts.flush(&image, &ALL);
    assert_eq!(sent(&mut scanouts), []);
}

#[test]
fn displays_that_are_gone_have_no_updates() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    scanouts.attach_display(CONSOLE);
    scanouts.show(0, ScanoutSource::of_pixels(&image, ALL));
    scanouts.flush(&image, &ALL);
    for id in [CONSOLE, DisplayId::VMM] {
        scanouts.detach_display(id);
    }
    assert!(scanouts.pending_updates(CONSOLE).is_none());
    assert!(scanouts.pending_updates(DisplayId::VMM).is_none());
    // While nobody looks nothing is read back.
    assert!(scanouts.region_to_flush(&image, &ALL).is_empty());
    let active = scanouts.active_scanouts().map(|scanout| scanout.shown);
    assert_eq!(active.collect::<Vec<_>>(), [Shown::Nowhere]);
    // One that comes back is shown all, once it is read back.
    scanouts.attach_display(DisplayId::VMM);
    assert_eq!(sent(&mut scanouts), [(0, ALL, None)]);
    let readback = scanouts.next_readback().unwrap();
    scanouts.readback_done(&readback, true);
    assert_eq!(sent(&mut scanouts), [(0, ALL, Some(ALL))]);
}

#[test]
fn one_display_is_sent_pixels_while_another_has_the_dmabuf() {
    use crate::gpu::resource::{Dmabuf, MODIFIER_LINEAR};
    use rustix::fs::{MemfdFlags, memfd_create};

    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    let dmabuf = Dmabuf {
        fd: memfd_create("dmabuf", MemfdFlags::CLOEXEC).unwrap(),
        size: Size::new(SIZE, SIZE),
        stride: SIZE * 4,
        fourcc: 0,
        modifier: MODIFIER_LINEAR,
        y_0_top: true,
    };
    scanouts.attach_display(CONSOLE);
    scanouts.set_dmabuf_support(CONSOLE, DmabufSupport::None);
    let source = ScanoutSource {
        dmabuf: Some(dmabuf.into()),
        ..ScanoutSource::of_pixels(&image, ALL)
    };
    scanouts.show(0, source);
    for flushed in [ALL, rect(5, 5, 2, 2)] {
        // What the console shows is read back.
        assert_eq!(
            scanouts.region_to_flush(&image, &flushed).rects(),
            [flushed]
        );
        change(&mut scanouts, &image, flushed);
        scanouts.flush(&image, &flushed);
        let mut console = scanouts.pending_updates(CONSOLE).unwrap();
        let updates = std::iter::from_fn(|| console.take_next(false));
        let rects = updates.filter_map(|update| match update {
            Update::Pixels { rect, .. } => Some(rect),
            Update::Scanout { .. } => None,
            other => panic!("{other:?}"),
        });
        assert_eq!(rects.collect::<Vec<_>>(), [flushed]);
        // The VMM's display waits for the renderer.
        assert!(scanouts.take_update(false).is_none());
        scanouts.await_drawing(None);
        scanouts.drawing_done();
        let vmm = std::iter::from_fn(|| scanouts.take_update(false)).last();
        assert!(matches!(vmm, Some(Update::DmabufDamage { rect, .. }) if rect == flushed));
    }
    let active = scanouts.active_scanouts().map(|scanout| scanout.shown);
    assert_eq!(active.collect::<Vec<_>>(), [Shown::Pixels]);
    scanouts.detach_display(CONSOLE);
    assert!(scanouts.region_to_flush(&image, &ALL).is_empty());
}
