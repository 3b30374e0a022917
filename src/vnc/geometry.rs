//! Sizes and rectangles in pixels, and regions of a few rectangles.

use std::fmt;

/// A size in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    /// Columns.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
}

impl Size {
    /// `width` by `height` pixels.
    pub(crate) const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Whether it has no pixel.
    pub(crate) fn is_empty(self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Number of pixels.
    pub(crate) fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A rectangle in pixels. A GPU or a viewer may send any numbers: edges beyond `u32` are cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rect {
    /// Left edge.
    pub(crate) x: u32,
    /// Upper edge.
    pub(crate) y: u32,
    /// Columns.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
}

impl Rect {
    /// The rectangle between two corners; empty if they are the wrong way round.
    pub(crate) fn from_edges(x: u32, y: u32, right: u32, bottom: u32) -> Self {
        Self {
            x,
            y,
            width: right.saturating_sub(x),
            height: bottom.saturating_sub(y),
        }
    }

    /// Whether it has no pixel.
    pub(crate) fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// Number of pixels.
    pub(crate) fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// The first column to the right of it.
    pub(crate) fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    /// The first row below it.
    pub(crate) fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    /// Whether it lies within a picture of `size`; it may touch the edges.
    pub(crate) fn lies_within(&self, size: Size) -> bool {
        let right = self.x.checked_add(self.width);
        let bottom = self.y.checked_add(self.height);
        right.is_some_and(|right| right <= size.width)
            && bottom.is_some_and(|bottom| bottom <= size.height)
    }

    /// The pixels that both have; `None` if there are none.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        let common = Self::from_edges(
            self.x.max(other.x),
            self.y.max(other.y),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        );
        (!common.is_empty()).then_some(common)
    }

    /// The smallest rectangle that contains both.
    pub(crate) fn around(&self, other: &Self) -> Self {
        if self.is_empty() {
            return *other;
        }
        if other.is_empty() {
            return *self;
        }
        Self::from_edges(
            self.x.min(other.x),
            self.y.min(other.y),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    fn contains(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// The rest of it without `hole`, in at most four pieces.
    fn without(&self, hole: &Self) -> impl Iterator<Item = Self> + use<> {
        let whole = *self;
        let pieces = match self.intersection(hole) {
            None => [whole, Self::default(), Self::default(), Self::default()],
            Some(cut) => [
                Self::from_edges(whole.x, whole.y, whole.right(), cut.y),
                Self::from_edges(whole.x, cut.y, cut.x, cut.bottom()),
                Self::from_edges(cut.right(), cut.y, whole.right(), cut.bottom()),
                Self::from_edges(whole.x, cut.bottom(), whole.right(), whole.bottom()),
            ],
        };
        pieces.into_iter().filter(|piece| !piece.is_empty())
    }

    /// Both as one rectangle, if that has no other pixel.
    fn joined(&self, other: &Self) -> Option<Self> {
        let around = self.around(other);
        let common = self.intersection(other).map_or(0, |common| common.area());
        (around.area() + common == self.area() + other.area()).then_some(around)
    }
}

impl From<Size> for Rect {
    fn from(size: Size) -> Self {
        Self::from_edges(0, 0, size.width, size.height)
    }
}

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
    fn lies_within_accepts_any_numbers() {
        assert!(rect(0, 0, 4, 4).lies_within(Size::new(4, 4)));
        assert!(!rect(1, 0, 4, 4).lies_within(Size::new(4, 4)));
        assert!(!rect(u32::MAX, 0, 1, 1).lies_within(Size::new(4, 4)));
        assert!(!rect(1, u32::MAX, 1, u32::MAX).lies_within(Size::new(u32::MAX, u32::MAX)));
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
