// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::geometry::Rect;
use crate::vnc::damage::Merging;

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

fn add_damage(head: &mut Head, rect: Rect) {
    let picture = head.guest_picture().unwrap();
    let mut damage = DamageMap::new(picture.borrow().size());
    damage.add(&rect);
    head.add_damage(&damage);
}

fn rects(mut damage: DamageMap) -> Vec<Rect> {
    let all = damage.size().into();
    damage.take_rects(&all, Merging::FINE)
}

fn pixel_count(head: &Head) -> usize {
    let picture = head.picture().borrow();
    picture.bytes().iter().filter(|byte| **byte != 0).count()
}

#[test]
fn head_without_pixels_shows_a_text_of_the_former_size() {
    let mut head = Head::new("vm1".to_owned());
    assert!(head.take_changes().picture);
    assert_eq!(head.size(), FIRST_SIZE);
    let unreachable = pixel_count(&head);
    assert!(unreachable > 100);
    head.lose_pixels(HeadState::Waiting);
    assert!(head.take_changes().picture);
    assert_ne!(pixel_count(&head), unreachable);

    head.set_scanout(Size::new(1920, 1080));
    add_damage(&mut head, rect(0, 0, 1920, 1080));
    assert!(head.take_changes().picture);
    assert_eq!(
        (head.state(), head.size()),
        (HeadState::On, Size::new(1920, 1080))
    );
    assert_eq!(head.name(), "vm1");
    assert_eq!(pixel_count(&head), 0);
    head.set_scanout(Size::default());
    assert_eq!(
        (head.state(), head.size()),
        (HeadState::Off, Size::new(1920, 1080))
    );
    assert!(head.take_changes().name);
    assert_eq!(head.name(), "vm1 (off)");
    assert!(head.guest_picture().is_none());
    assert!(pixel_count(&head) > 100);
}

#[test]
fn state_that_stays_changes_nothing() {
    let mut head = Head::new("vm1".to_owned());
    head.set_scanout(Size::new(64, 64));
    add_damage(&mut head, rect(0, 0, 64, 64));
    head.take_changes();
    head.set_scanout(Size::new(64, 64));
    assert!(head.take_changes().is_empty());
    head.lose_pixels(HeadState::Off);
    head.take_changes();
    head.lose_pixels(HeadState::Off);
    assert!(head.take_changes().is_empty());
}

#[test]
fn next_picture_is_shown_with_its_first_pixels() {
    let (small, large) = (Size::new(64, 64), Size::new(640, 480));
    let mut head = Head::new("vm1".to_owned());
    head.lose_pixels(HeadState::Waiting);
    head.set_scanout(small);
    head.take_changes();
    assert_eq!(head.state(), HeadState::Waiting);
    assert_eq!(head.guest_picture().unwrap().borrow().size(), small);
    add_damage(&mut head, rect(0, 0, 8, 8));
    assert_eq!((head.state(), head.size()), (HeadState::On, small));
    assert!(head.take_changes().picture);

    // A mode that the guest takes back before it draws.
    head.set_scanout(large);
    assert_eq!(head.size(), small);
    head.set_scanout(small);
    add_damage(&mut head, rect(0, 0, 8, 8));
    assert!(!head.take_changes().picture);
    assert_eq!(head.size(), small);

    for gone in [HeadState::Off, HeadState::Off, HeadState::Unreachable] {
        head.set_scanout(large);
        head.lose_pixels(gone);
        assert!(head.guest_picture().is_none());
    }
}

#[test]
fn picture_beyond_the_limits_is_refused_with_a_text() {
    let mut head = Head::new("vm1".to_owned());
    let size = Size::new(u32::MAX, u32::MAX);
    head.set_scanout(size);
    assert_eq!(head.state(), HeadState::TooLarge(size));
    assert_eq!(head.size(), FIRST_SIZE);
    assert!(head.guest_picture().is_none());
}

#[test]
fn moved_cursor_says_what_it_covered() {
    let mut head = Head::new("vm1".to_owned());
    head.set_scanout(Size::new(640, 480));
    add_damage(&mut head, rect(0, 0, 640, 480));
    head.take_changes();
    let mut sent = [0; SENT_CURSOR_LEN];
    sent[3] = 255;
    head.set_cursor_shape(CursorShape::from_sent(&sent, 0, 0), 10, 20);
    let changes = head.take_changes();
    assert!(changes.cursor_shape && !changes.picture && changes.damage.is_empty());
    assert!(changes.cursor_left.is_empty());
    head.move_cursor(true, 11, 20);
    let changes = head.take_changes();
    assert!(!changes.cursor_shape);
    assert_eq!(rects(changes.cursor_left), [rect(8, 20, 4, 1)]);
    head.move_cursor(true, 11, 20);
    assert!(head.take_changes().is_empty());
    head.move_cursor(false, 11, 20);
    let changes = head.take_changes();
    assert!(changes.cursor_shape);
    assert_eq!(rects(changes.cursor_left), [rect(8, 20, 4, 1)]);
    // A guest that hides what is hidden, elsewhere.
    head.move_cursor(false, 1, 2);
    assert!(head.take_changes().is_empty());
}

#[test]
fn next_gpu_takes_what_was_kept() {
    let mut head = Head::new("vm1".to_owned());
    head.keep_pixels();
    assert!(!head.is_kept(), "there is nothing to keep");
    let size = Size::new(64, 64);
    let mut sent = [0; SENT_CURSOR_LEN];
    sent[3] = 255;
    for is_cursor_new in [true, false] {
        head.set_scanout(size);
        add_damage(&mut head, rect(0, 0, 64, 64));
        head.set_cursor_shape(CursorShape::from_sent(&sent, 0, 0), 10, 20);
        head.take_changes();
        head.keep_pixels();
        assert!(head.is_kept());
        assert_eq!(head.state(), HeadState::On);
        if is_cursor_new {
            head.move_cursor(true, 10, 20);
        }
        head.set_scanout(size);
        assert!(!head.is_kept());
        let changes = head.take_changes();
        assert!(!changes.picture && !changes.name);
        assert_eq!(changes.cursor_shape, !is_cursor_new);
    }
    head.keep_pixels();
    head.lose_pixels(HeadState::Unreachable);
    assert!(!head.is_kept());
}

/// Sizes of which four take the whole budget.
const QUARTER: Size = Size::new(8192, 4096);
const SMALL: Size = Size::new(1, 1);

/// Sets the size and draws a pixel, unless the picture is refused.
fn show(head: &mut Head, size: Size) {
    head.set_scanout(size);
    if head.guest_picture().is_some() {
        add_damage(head, rect(0, 0, 1, 1));
    }
}

fn states(heads: &[Head]) -> Vec<bool> {
    let states = heads.iter().map(Head::state);
    states.map(|state| state == HeadState::On).collect()
}

#[test]
fn heads_share_the_memory_for_their_pictures() {
    let mut heads = Head::all((0..16).map(|number| number.to_string()));
    for head in &mut heads {
        show(head, QUARTER);
    }
    let on = |count: usize| (0..16).map(|n| n < count).collect::<Vec<_>>();
    assert_eq!(states(&heads), on(4));
    assert_eq!(heads[4].state(), HeadState::TooLarge(QUARTER));
    assert!(heads[4].guest_picture().is_none());
    show(&mut heads[4], SMALL);
    assert_eq!(states(&heads), on(4), "not one pixel is left");
    // A picture makes room for the one that replaces it, and a text needs none.
    show(&mut heads[0], Size::new(4096, 8192));
    assert_eq!(states(&heads), on(4));
    heads[1].set_scanout(Size::default());
    show(&mut heads[4], QUARTER);
    show(&mut heads[1], QUARTER);
    let mut expected = on(5);
    expected[1] = false;
    assert_eq!(states(&heads), expected);
    // What is lost with the GPU is there for the next one, in any order.
    for head in &mut heads {
        head.lose_pixels(HeadState::Unreachable);
    }
    for head in heads.iter_mut().rev() {
        show(head, Size::new(3840, 2160));
    }
    assert_eq!(states(&heads), on(16));
}
