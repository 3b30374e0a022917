// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What displays are sent, update by update.

use super::*;
use crate::geometry::{Rect, Size};
use crate::gpu::region::Region;
use crate::gpu::resource::{Budget, Image, SharedImage};

fn image() -> SharedImage {
    SharedImage::new(Image::new(Size::new(100, 100), &Budget::new(1 << 20)).unwrap())
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// What is sent, as scanout, place in it and place in the image; sizes as `None`.
fn sent(scanouts: &mut Scanouts) -> Vec<(u32, Rect, Option<Rect>)> {
    std::iter::from_fn(|| scanouts.take_update(false))
        .map(|update| match update {
            Update::Scanout { id, size } => (id, size.into(), None),
            Update::Pixels {
                id,
                rect,
                source_rect,
                ..
            } => (id, rect, Some(source_rect)),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn change(scanouts: &mut Scanouts, image: &SharedImage, rect: Rect) {
    let mut region = Region::default();
    region.add(rect);
    scanouts.add_damage(image, &region);
}

#[test]
fn cursor_is_hidden_also_by_two_resets_at_once() {
    let mut scanouts = Scanouts::with_vmm();
    let position = Position {
        x: 1,
        y: 2,
        visible: true,
    };
    scanouts.move_cursor(0, position);
    assert!(scanouts.take_update(false).is_some());
    scanouts.reset();
    scanouts.reset();
    let update = scanouts.take_update(false);
    let Some(Update::CursorPosition { id: 0, position }) = update else {
        panic!("{update:?}");
    };
    assert!(!position.visible);
    assert!(scanouts.take_update(false).is_none());
}

#[test]
fn two_scanouts_show_parts_in_their_own_coordinates() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    scanouts.show(0, ScanoutSource::of_pixels(&image, rect(0, 0, 50, 100)));
    scanouts.show(1, ScanoutSource::of_pixels(&image, rect(50, 0, 50, 100)));
    scanouts.flush(&image, &Rect::sized(100, 100));
    let whole = Rect::sized(50, 100);
    assert_eq!(
        sent(&mut scanouts),
        [
            (0, whole, None),
            (1, whole, None),
            (0, whole, Some(rect(0, 0, 50, 100))),
            (1, whole, Some(rect(50, 0, 50, 100))),
        ]
    );
    change(&mut scanouts, &image, rect(40, 10, 20, 5));
    assert_eq!(sent(&mut scanouts), []);
    scanouts.flush(&image, &rect(0, 0, 100, 12));
    assert_eq!(
        sent(&mut scanouts),
        [
            (0, rect(40, 10, 10, 2), Some(rect(40, 10, 10, 2))),
            (1, rect(0, 10, 10, 2), Some(rect(50, 10, 10, 2))),
        ]
    );
    scanouts.flush(&image, &rect(55, 0, 45, 100));
    assert_eq!(
        sent(&mut scanouts),
        [(1, rect(5, 12, 5, 3), Some(rect(55, 12, 5, 3)))]
    );
}

#[test]
fn new_source_is_sent_whole_with_its_first_flush() {
    let mut scanouts = Scanouts::with_vmm();
    let (first, second) = (image(), image());
    let all = Rect::sized(100, 100);
    scanouts.show(0, ScanoutSource::of_pixels(&first, all));
    scanouts.flush(&first, &all);
    sent(&mut scanouts);
    scanouts.show(0, ScanoutSource::of_pixels(&second, all));
    change(&mut scanouts, &second, rect(1, 1, 1, 1));
    assert_eq!(sent(&mut scanouts), []);
    scanouts.flush(&second, &rect(1, 1, 1, 1));
    assert_eq!(sent(&mut scanouts), [(0, all, Some(all))]);
}

#[test]
fn flushed_damage_is_sent_although_the_source_is_set_again() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    let all = Rect::sized(100, 100);
    scanouts.show(0, ScanoutSource::of_pixels(&image, all));
    scanouts.flush(&image, &all);
    sent(&mut scanouts);
    change(&mut scanouts, &image, rect(0, 0, 10, 10));
    change(&mut scanouts, &image, rect(50, 50, 1, 1));
    scanouts.flush(&image, &rect(0, 0, 10, 10));
    scanouts.show(0, ScanoutSource::of_pixels(&image, all));
    let flushed = rect(0, 0, 10, 10);
    assert_eq!(sent(&mut scanouts), [(0, flushed, Some(flushed))]);
    scanouts.flush(&image, &all);
    let rest = rect(50, 50, 1, 1);
    assert_eq!(sent(&mut scanouts), [(0, rest, Some(rest))]);
}

#[test]
fn unflushed_damage_waits() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    let all = Rect::sized(100, 100);
    scanouts.show(0, ScanoutSource::of_pixels(&image, all));
    scanouts.flush(&image, &all);
    sent(&mut scanouts);
    change(&mut scanouts, &image, rect(0, 0, 10, 10));
    scanouts.flush(&image, &rect(50, 50, 10, 10));
    assert_eq!(sent(&mut scanouts), []);
    scanouts.flush(&image, &all);
    assert_eq!(
        sent(&mut scanouts),
        [(0, rect(0, 0, 10, 10), Some(rect(0, 0, 10, 10)))]
    );
}

#[test]
fn new_display_is_sent_everything_flushed_before() {
    let mut scanouts = Scanouts::with_vmm();
    let image = image();
    let all = Rect::sized(100, 100);
    scanouts.show(2, ScanoutSource::of_pixels(&image, all));
    scanouts.show(3, ScanoutSource::of_pixels(&image, all));
    scanouts.flush(&image, &all);
    scanouts.show(3, ScanoutSource::of_pixels(&image, rect(0, 0, 10, 10)));
    sent(&mut scanouts);
    scanouts.attach_display(DisplayId::VMM);
    let mut again = sent(&mut scanouts);
    again.sort_by_key(|(id, _, pixels)| (*id, pixels.is_some()));
    assert_eq!(
        again,
        [
            (2, all, None),
            (2, all, Some(all)),
            (3, Rect::sized(10, 10), None),
        ]
    );
}

#[test]
fn destroyed_image_disables_its_scanouts() {
    let mut scanouts = Scanouts::with_vmm();
    let (first, second) = (image(), image());
    let all = Rect::sized(100, 100);
    scanouts.show(0, ScanoutSource::of_pixels(&first, all));
    scanouts.show(1, ScanoutSource::of_pixels(&second, all));
    sent(&mut scanouts);
    scanouts.disable_showing(&first);
    assert_eq!(sent(&mut scanouts), [(0, Rect::default(), None)]);
    let active = ActiveScanout {
        size: Size::new(100, 100),
        shown: Shown::Pixels,
    };
    assert!(scanouts.active_scanouts().eq([active]));
    scanouts.reset();
    assert_eq!(sent(&mut scanouts), [(1, Rect::default(), None)]);
    assert_eq!(scanouts.active_scanouts().count(), 0);
}

#[test]
fn display_is_not_told_of_scanouts_it_never_showed() {
    let mut scanouts = Scanouts::with_vmm();
    scanouts.disable(4);
    scanouts.reset();
    assert_eq!(sent(&mut scanouts), []);
}

fn cursor_updates(scanouts: &mut Scanouts) -> Vec<(bool, Position)> {
    std::iter::from_fn(|| scanouts.take_update(false))
        .map(|update| match update {
            Update::Cursor { position, .. } => (true, position),
            Update::CursorPosition { position, .. } => (false, position),
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn cursor_moves_are_merged() {
    let mut scanouts = Scanouts::with_vmm();
    let at = |x, visible| Position { x, y: 1, visible };
    let shape = Shape {
        hot_x: 0,
        hot_y: 0,
        pixels: Box::new([0; 64 * 64 * 4]),
    };
    for x in 0..100 {
        scanouts.move_cursor(0, at(x, true));
    }
    assert_eq!(cursor_updates(&mut scanouts), [(false, at(99, true))]);
    scanouts.set_cursor_shape(0, at(1, true), shape);
    scanouts.move_cursor(0, at(2, true));
    assert_eq!(cursor_updates(&mut scanouts), [(true, at(2, true))]);
    scanouts.move_cursor(0, at(3, false));
    assert_eq!(cursor_updates(&mut scanouts), [(false, at(3, false))]);
    scanouts.attach_display(DisplayId::VMM);
    let hidden = [(true, at(3, false)), (false, at(3, false))];
    assert_eq!(cursor_updates(&mut scanouts), hidden);
    scanouts.reset();
    assert_eq!(cursor_updates(&mut scanouts), []);
}

mod several_displays;
