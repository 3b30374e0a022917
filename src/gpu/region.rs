//! Rectangles of pixels, and small sets of them.

/// A rectangle in pixels (`struct virtio_gpu_rect`). What a driver sends may be anything;
/// [`Rect::lies_within`] comes before arithmetic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rect {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl Rect {
    /// `width` by `height` pixels at the origin.
    pub const fn sized(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
        }
    }

    /// Whether there is no pixel in it.
    pub fn is_empty(&self) -> bool {
        self.width == 0 || self.height == 0
    }

    /// The pixels in it.
    pub fn area(&self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    fn right(&self) -> u32 {
        self.x.saturating_add(self.width)
    }

    fn bottom(&self) -> u32 {
        self.y.saturating_add(self.height)
    }

    fn from_edges(x: u32, y: u32, right: u32, bottom: u32) -> Self {
        Self {
            x,
            y,
            width: right.saturating_sub(x),
            height: bottom.saturating_sub(y),
        }
    }

    /// Whether all of it lies within `width` by `height` pixels, its edges included.
    pub fn lies_within(&self, width: u32, height: u32) -> bool {
        self.x.checked_add(self.width).is_some_and(|r| r <= width)
            && self.y.checked_add(self.height).is_some_and(|b| b <= height)
    }

    /// What both have; `None` where they have no pixel in common.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let common = Self::from_edges(
            self.x.max(other.x),
            self.y.max(other.y),
            self.right().min(other.right()),
            self.bottom().min(other.bottom()),
        );
        (!common.is_empty()).then_some(common)
    }

    /// The least rectangle around both.
    pub fn around(&self, other: &Self) -> Self {
        Self::from_edges(
            self.x.min(other.x),
            self.y.min(other.y),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    /// The same pixels, counted from the corner of `origin`, in which they lie.
    pub fn relative_to(&self, origin: &Self) -> Self {
        Self {
            x: self.x.saturating_sub(origin.x),
            y: self.y.saturating_sub(origin.y),
            ..*self
        }
    }

    /// The same pixels, where they were counted from the corner of `origin`.
    pub fn absolute_in(&self, origin: &Self) -> Self {
        Self {
            x: self.x.saturating_add(origin.x),
            y: self.y.saturating_add(origin.y),
            ..*self
        }
    }

    fn contains(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// What is left of it without `hole`, in at most four pieces.
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
}

/// A set of pixels as a few rectangles. It grows towards a rectangle around all of it, never loses
/// a pixel, and never holds more than [`Region::MAX_RECTS`] rectangles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    rects: Vec<Rect>,
}

impl Region {
    /// Most rectangles a region consists of.
    pub const MAX_RECTS: usize = 16;

    /// Whether there is no pixel in it.
    pub fn is_empty(&self) -> bool {
        self.rects.is_empty()
    }

    /// The least rectangle around all of it.
    pub fn bounds(&self) -> Rect {
        let around = |all: Rect, rect: &Rect| all.around(rect);
        match self.rects.split_first() {
            Some((first, rest)) => rest.iter().fold(*first, around),
            None => Rect::default(),
        }
    }

    /// The rectangles it consists of; a pixel may lie in more than one.
    pub fn rects(&self) -> &[Rect] {
        &self.rects
    }

    /// Forgets all of it.
    pub fn clear(&mut self) {
        self.rects.clear();
    }

    /// Adds the pixels of `rect`.
    pub fn add(&mut self, rect: Rect) {
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

    /// Takes some rectangle out of it.
    pub fn pop(&mut self) -> Option<Rect> {
        self.rects.pop()
    }

    /// Moves what lies within `clip` to `into`.
    pub fn take_within(&mut self, clip: &Rect, into: &mut Self) {
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
    fn bounds_hold_for_any_number() {
        assert!(rect(0, 0, 4, 4).lies_within(4, 4));
        assert!(rect(4, 4, 0, 0).lies_within(4, 4));
        assert!(!rect(1, 0, 4, 4).lies_within(4, 4));
        assert!(!rect(0, 1, 4, 4).lies_within(4, 4));
        assert!(!rect(u32::MAX, 0, 1, 1).lies_within(4, 4));
        assert!(!rect(1, u32::MAX, 1, u32::MAX).lies_within(u32::MAX, u32::MAX));
    }

    #[test]
    fn intersections_are_exact() {
        assert_eq!(
            rect(0, 0, 10, 10).intersection(&rect(5, 6, 10, 10)),
            Some(rect(5, 6, 5, 4))
        );
        assert_eq!(rect(0, 0, 5, 5).intersection(&rect(5, 0, 5, 5)), None);
        assert_eq!(rect(0, 0, 5, 5).intersection(&rect(2, 2, 0, 1)), None);
    }

    #[test]
    fn a_region_stays_small_and_loses_nothing() {
        let mut region = Region::default();
        for i in 0..1000 {
            region.add(rect(i * 3, i * 2, 1, 1));
        }
        assert!(region.rects().len() <= Region::MAX_RECTS);
        assert!((0..1000).all(|i| covers(&region, i * 3, i * 2)));
    }

    #[test]
    fn what_is_inside_another_adds_nothing() {
        let mut region = Region::default();
        region.add(rect(2, 2, 2, 2));
        region.add(rect(0, 0, 10, 10));
        region.add(rect(5, 5, 1, 1));
        assert_eq!(region.rects(), [rect(0, 0, 10, 10)]);
    }

    #[test]
    fn taking_a_part_leaves_the_rest() {
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
