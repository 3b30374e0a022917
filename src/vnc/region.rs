//! A region of a few rectangles.

use crate::geometry::Rect;

/// A set of pixels, as at most [`Region::MAX_RECTS`] rectangles, no two of which overlap. A set that would need more
/// grows: rectangles near each other become one around them. It never loses a pixel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    rects: Vec<Rect>,
}

impl Region {
    /// Most rectangles of a region.
    pub(crate) const MAX_RECTS: usize = 32;

    /// Whether it has no pixel.
    pub(crate) fn is_empty(&self) -> bool {
        self.rects.is_empty()
    }

    /// Its rectangles.
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
        let mut rect = rect;
        self.rects.retain(|r| !rect.contains(r));
        // A neighbour with the same edges: text that is written line by line stays one rectangle.
        while let Some(at) = self.rects.iter().position(|r| r.joined(&rect).is_some()) {
            rect = rect.around(&self.rects.swap_remove(at));
        }
        let mut pieces = vec![rect];
        for old in &self.rects {
            pieces = pieces.iter().flat_map(|piece| piece.without(old)).collect();
        }
        self.rects.append(&mut pieces);
        while self.rects.len() > Self::MAX_RECTS {
            self.merge_two();
        }
    }

    /// Replaces two rectangles by the one around them: those where it adds the fewest pixels.
    fn merge_two(&mut self) {
        let mut best: Option<(u64, usize, usize)> = None;
        for (i, first) in self.rects.iter().enumerate() {
            for (j, second) in self.rects.iter().enumerate().skip(i + 1) {
                let around = first.around(second).area();
                let waste = around.saturating_sub(first.area() + second.area());
                if best.is_none_or(|(least, ..)| waste < least) {
                    best = Some((waste, i, j));
                }
            }
        }
        let Some((_, i, j)) = best else { return };
        // The larger index first: the smaller one stays valid.
        let second = self.rects.swap_remove(j);
        let first = self.rects.swap_remove(i);
        let mut around = first.around(&second);
        // Whatever it touches becomes part of it, so that none overlap and there are fewer.
        while let Some(at) = self
            .rects
            .iter()
            .position(|r| r.intersection(&around).is_some())
        {
            around = around.around(&self.rects.swap_remove(at));
        }
        self.rects.push(around);
    }

    /// Moves the pixels within `clip` to a new region.
    pub(crate) fn take_within(&mut self, clip: &Rect) -> Self {
        let mut taken = Self::default();
        let mut rest = Self::default();
        for rect in std::mem::take(&mut self.rects) {
            match rect.intersection(clip) {
                None => rest.add(rect),
                Some(common) => {
                    taken.add(common);
                    for piece in rect.without(clip) {
                        rest.add(piece);
                    }
                }
            }
        }
        *self = rest;
        taken
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

    fn area(region: &Region) -> u64 {
        region.rects().iter().map(Rect::area).sum()
    }

    #[test]
    fn region_stays_small_and_loses_no_pixel() {
        let mut region = Region::default();
        for i in 0..1000 {
            region.add(rect(i * 3, i * 2, 1, 1));
        }
        assert!(region.rects().len() <= Region::MAX_RECTS);
        assert!((0..1000).all(|i| covers(&region, i * 3, i * 2)));
        // The rest of the diagonal's square is not in it.
        assert!(area(&region) < 3000 * 2000 / 10);
    }

    #[test]
    fn no_pixel_is_in_two_rectangles() {
        let mut region = Region::default();
        let mut pixels = [[false; 64]; 64];
        // A fixed sequence of numbers that looks random.
        let mut seed = 1_u32;
        let mut next = |limit: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) % limit
        };
        for _ in 0..20 {
            let (x, y) = (next(48), next(48));
            let added = rect(x, y, next(16) + 1, next(16) + 1);
            region.add(added);
            for row in &mut pixels[y as usize..added.bottom() as usize] {
                row[x as usize..added.right() as usize].fill(true);
            }
        }
        for (y, row) in pixels.iter().enumerate() {
            for (x, set) in row.iter().enumerate() {
                let pixel = rect(x as u32, y as u32, 1, 1);
                let holders = region.rects().iter().filter(|r| r.contains(&pixel));
                let holders = holders.count();
                assert!(holders <= 1, "{x},{y}");
                assert!(!set || holders == 1, "{x},{y}");
            }
        }
    }

    #[test]
    fn lines_below_each_other_become_one_rectangle() {
        let mut region = Region::default();
        for line in 0..40 {
            region.add(rect(0, line * 16, 640, 16));
        }
        assert_eq!(region.rects(), [rect(0, 0, 640, 640)]);
    }

    #[test]
    fn take_within_leaves_the_rest() {
        let mut region = Region::default();
        region.add(rect(0, 0, 10, 10));
        let taken = region.take_within(&rect(3, 4, 2, 3));
        assert_eq!(taken.rects(), [rect(3, 4, 2, 3)]);
        for y in 0..10 {
            for x in 0..10 {
                let inside = (3..5).contains(&x) && (4..7).contains(&y);
                assert_eq!(covers(&region, x, y), !inside, "{x},{y}");
            }
        }
    }
}
