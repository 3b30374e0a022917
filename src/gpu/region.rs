// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A region of a few rectangles.

use crate::geometry::Rect;

/// A set of pixels, as at most [`Region::MAX_RECTS`] rectangles. A set that would need more grows to
/// one rectangle around all of them; it never loses a pixel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    rects: Vec<Rect>,
}

impl Region {
    /// Most rectangles of a region.
    pub(crate) const MAX_RECTS: usize = 16;

    /// Whether it has no pixel.
    pub(crate) fn is_empty(&self) -> bool {
        self.rects.is_empty()
    }

    /// The smallest rectangle that contains it.
    pub(crate) fn bounds(&self) -> Rect {
        let around = |all: Rect, rect: &Rect| all.around(rect);
        match self.rects.split_first() {
            Some((first, rest)) => rest.iter().fold(*first, around),
            None => Rect::default(),
        }
    }

    /// Its rectangles, which may overlap.
    pub(crate) fn rects(&self) -> &[Rect] {
        &self.rects
    }

    /// Removes all pixels.
    pub(crate) fn clear(&mut self) {
        self.rects.clear();
    }

    /// Adds the pixels of `rect`.
    pub(crate) fn add(&mut self, rect: Rect) {
        if rect.is_empty() || self.rects.iter().any(|r| r.contains(&rect)) {
            return;
        }
        self.rects.retain(|r| !rect.contains(r));
        if self.rects.len() < Self::MAX_RECTS {
            self.rects.push(rect);
        } else {
            let around = self.rects.iter().fold(rect, |all, r| all.around(r));
            self.rects.clear();
            self.rects.push(around);
        }
    }

    /// Removes and returns one rectangle.
    pub(crate) fn pop(&mut self) -> Option<Rect> {
        self.rects.pop()
    }

    /// Moves the pixels within `clip` to `into`.
    pub(crate) fn take_within(&mut self, clip: &Rect, into: &mut Self) {
        let mut rest = Self::default();
        let mut whole = Vec::new();
        for rect in self.rects.drain(..) {
            match rect.intersection(clip) {
                None => whole.push(rect),
                Some(common) => {
                    into.add(common);
                    for piece in rect.without(clip) {
                        whole.push(piece);
                    }
                }
            }
        }
        for rect in whole {
            rest.add(rect);
        }
        *self = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    fn covers(region: &Region, x: u32, y: u32) -> bool {
        let pixel = rect(x, y, 1, 1);
        region.rects().iter().any(|r| r.contains(&pixel))
    }

    #[test]
    fn regions_stay_small_and_lose_no_pixel() {
        let mut region = Region::default();
        for i in 0..1000 {
            region.add(rect(i * 3, i * 2, 1, 1));
        }
        assert!(region.rects().len() <= Region::MAX_RECTS);
        assert!((0..1000).all(|i| covers(&region, i * 3, i * 2)));
    }

    #[test]
    fn contained_rectangles_add_nothing() {
        let mut region = Region::default();
        region.add(rect(2, 2, 2, 2));
        region.add(rect(0, 0, 10, 10));
        region.add(rect(5, 5, 1, 1));
        assert_eq!(region.rects(), [rect(0, 0, 10, 10)]);
    }

    #[test]
    fn take_within_leaves_the_rest() {
        let mut region = Region::default();
        region.add(rect(0, 0, 10, 10));
        let mut taken = Region::default();
        region.take_within(&rect(3, 4, 2, 3), &mut taken);
        assert_eq!(taken.rects(), [rect(3, 4, 2, 3)]);
        for y in 0..10 {
            for x in 0..10 {
                let inside = (3..5).contains(&x) && (4..7).contains(&y);
                assert_eq!(covers(&region, x, y), !inside, "{x},{y}");
            }
        }
    }
}
