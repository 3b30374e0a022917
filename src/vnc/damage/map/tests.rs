// SPDX-License-Identifier: Apache-2.0 OR MIT

use super::*;
use crate::vnc::damage::merging::MAX_RECTS;
use crate::vnc::test_random::Random;

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

impl Random {
    fn rect(&mut self, size: Size) -> Rect {
        // Also beyond the picture, also empty.
        let (x, y) = (self.below(size.width + 9), self.below(size.height + 9));
        let (width, height) = (self.below(size.width / 2), self.below(size.height / 2));
        rect(x, y, width, height)
    }
}

/// The same as a map, one piece after the other.
#[derive(Clone)]
struct Model {
    size: Size,
    pieces: Vec<bool>,
}

impl Model {
    fn new(size: Size) -> Self {
        let count = size.width.div_ceil(PIECE) * size.height;
        Self {
            size,
            pieces: vec![false; count as usize],
        }
    }

    /// All pieces by their pixels.
    fn places(&self) -> impl Iterator<Item = (usize, Rect)> + use<> {
        let size = self.size;
        let columns = size.width.div_ceil(PIECE);
        (0..columns * size.height).map(move |n| {
            let (x, y) = (n % columns * PIECE, n / columns);
            (n as usize, rect(x, y, PIECE.min(size.width - x), 1))
        })
    }

    fn set(&mut self, is_in: impl Fn(&Rect) -> bool, to: bool) {
        for (n, place) in self.places() {
            if is_in(&place) {
                self.pieces[n] = to;
            }
        }
    }

    fn add(&mut self, rect: &Rect) {
        self.set(|place| place.intersection(rect).is_some(), true);
    }
}

fn assert_same(map: &DamageMap, model: &Model) {
    for (n, place) in model.places() {
        let words = map.rows_of(place.y..place.y + 1).next().unwrap();
        let piece = place.x / PIECE;
        let bit = words[(piece / WORD) as usize] >> (piece % WORD) & 1;
        assert_eq!(bit == 1, model.pieces[n], "{place:?}");
    }
    assert_eq!(map.is_empty(), !model.pieces.contains(&true));
    // Nothing beside the picture either.
    let count: u32 = map.words.iter().map(|word| word.count_ones()).sum();
    let expected = model.pieces.iter().filter(|piece| **piece).count();
    assert_eq!(count as usize, expected);
}

#[test]
fn no_piece_is_lost_or_found_whatever_is_added_and_taken() {
    let mut random = Random(7);
    for round in 0..8 {
        let size = Size::new(1 + random.below(700), 1 + random.below(40));
        let (mut map, mut model) = (DamageMap::new(size), Model::new(size));
        for _ in 0..30 {
            let area = random.rect(size);
            match random.below(6) {
                0 | 1 => {
                    map.add(&area);
                    model.add(&area);
                }
                2 => {
                    let (y, piece) = (random.below(size.height), random.below(size.width) / PIECE);
                    map.add_word(y, (piece / WORD) as usize, 1 << (piece % WORD));
                    model.add(&rect(piece * PIECE, y, 1, 1));
                }
                3 => {
                    // Of another picture, which may be larger or smaller.
                    let size = Size::new(1 + random.below(900), 1 + random.below(50));
                    let mut other = DamageMap::new(size);
                    let mut others = Model::new(size);
                    for _ in 0..3 {
                        let area = random.rect(size);
                        other.add(&area);
                        others.add(&area);
                    }
                    map.add_all(&other);
                    for (n, place) in others.places() {
                        if others.pieces[n] {
                            model.add(&place);
                        }
                    }
                }
                4 if round % 3 == 0 => {
                    map.clear();
                    model = Model::new(size);
                }
                _ => take(&mut map, &mut model, &area, &mut random),
            }
            assert_same(&map, &model);
        }
        take(&mut map, &mut model, &size.into(), &mut random);
        assert!(map.is_empty());
    }
}

fn take(map: &mut DamageMap, model: &mut Model, within: &Rect, random: &mut Random) {
    let merging = [Merging::FINE, Merging::COARSE][random.below(2) as usize];
    let rects = map.take_rects(within, merging);
    assert!(rects.len() <= MAX_RECTS);
    let mut covered = vec![0; model.pieces.len()];
    for rect in &rects {
        assert!(rect.lies_within(model.size) && !rect.is_empty(), "{rect:?}");
        let ends_piece = |x: u32| x % PIECE == 0 || x == model.size.width;
        assert!(ends_piece(rect.x) && ends_piece(rect.right()), "{rect:?}");
        for y in rect.y..rect.bottom() {
            let row = (y * model.size.width.div_ceil(PIECE)) as usize;
            let pieces = (rect.x / PIECE) as usize..rect.right().div_ceil(PIECE) as usize;
            covered[row..][pieces]
                .iter_mut()
                .for_each(|count| *count += 1);
        }
    }
    for (n, place) in model.places() {
        assert!(covered[n] <= 1, "twice: {place:?}");
        let taken = model.pieces[n] && place.intersection(within).is_some();
        assert!(!taken || covered[n] == 1, "lost: {place:?}");
    }
    model.set(|place| place.intersection(within).is_some(), false);
}

#[test]
fn large_areas_are_one_rectangle() {
    let size = Size::new(1921, 1080);
    for merging in [Merging::FINE, Merging::COARSE] {
        assert_eq!(
            DamageMap::full(size).take_rects(&size.into(), merging),
            [size.into()]
        );
        let mut map = DamageMap::new(size);
        let window = rect(400, 100, 800, 700);
        map.add(&window);
        // Some pieces of a moving picture are equal by chance.
        let mut random = Random(3);
        for _ in 0..2000 {
            let (x, y) = (100 + random.below(200), 100 + random.below(700));
            map.remove(y..y + 1, &(x..x + 1));
        }
        assert_eq!(map.take_rects(&size.into(), merging), [window]);
    }
}

#[test]
fn small_changes_stay_small() {
    let size = Size::new(1920, 1080);
    for merging in [Merging::FINE, Merging::COARSE] {
        let mut map = DamageMap::new(size);
        let changes = [
            rect(700, 500, 64, 64),
            rect(1800, 1060, 96, 8),
            rect(0, 0, 4, 1),
        ];
        changes.iter().for_each(|change| map.add(change));
        let mut rects = map.take_rects(&size.into(), merging);
        rects.sort_by_key(|rect| rect.area());
        assert_eq!(rects, [changes[2], changes[1], changes[0]], "{merging:?}");
    }
}

#[test]
fn unchanged_pixels_are_few_where_they_cost() {
    let size = Size::new(1920, 1080);
    let mut map = DamageMap::new(size);
    // A triangle, in which each row is a little longer.
    for y in 0..1000 {
        map.add(&rect(0, y, y + 1, 1));
    }
    let changed: u32 = map.words.iter().map(|word| word.count_ones()).sum();
    let rects = map.take_rects(&size.into(), Merging::FINE);
    let sent: u64 = rects.iter().map(Rect::area).sum();
    let changed = u64::from(changed * PIECE);
    assert!(
        sent >= changed && sent - changed <= sent / 8,
        "{sent}, {changed}"
    );
    assert!(rects.len() <= 300, "{}", rects.len());
}

#[test]
fn pieces_that_lie_as_badly_as_they_can_are_few_rectangles() {
    // Single pieces and gaps of any width, each row or band unlike the one above.
    let patterns = [
        (u64::MAX / 3, 1),
        (u64::MAX / 3, 2),
        (0x8421_0842_1084_2108, 1),
        (0x0820_8208_2082_0820, 1),
        (0x0000_4000_0200_0010, 8),
        (1, 64),
    ];
    for (width, height) in [(1920, 1080), (16_384, 2048), (2048, 16_384)] {
        let size = Size::new(width, height);
        for (pattern, rows) in patterns {
            let mut map = DamageMap::full(size);
            let stride = map.stride;
            for (y, row) in map.words.chunks_exact_mut(stride).enumerate() {
                let shift = (y / rows % 2) as u32;
                row.iter_mut()
                    .for_each(|word| *word &= u64::rotate_left(pattern, shift));
            }
            let before = map.words.clone();
            let rects = map.take_rects(&size.into(), Merging::FINE);
            assert!(rects.len() <= MAX_RECTS, "{}", rects.len());
            assert!(map.is_empty());
            rects.iter().for_each(|rect| map.add(rect));
            let lost = before
                .iter()
                .zip(&map.words)
                .any(|(before, now)| before & !now != 0);
            assert!(!lost, "{size}: {pattern:x}, {rows}");
        }
    }
}
