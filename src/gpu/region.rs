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
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// A rectangle in pixels (virtio 1.2, 5.7.6.8, `struct virtio_gpu_rect`). A driver may send any
/// numbers: check [`Rect::lies_within`] before arithmetic.
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
    /// `width` by `height` pixels at the origin.
    pub(crate) const fn sized(width: u32, height: u32) -> Self {
        Self {
            x: 0,
            y: 0,
            width,
            height,
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

    /// Whether it lies within an image of `size`; it may touch the edges.
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
        Self::from_edges(
            self.x.min(other.x),
            self.y.min(other.y),
            self.right().max(other.right()),
            self.bottom().max(other.bottom()),
        )
    }

    /// The same pixels relative to the upper left corner of `origin`, which contains them.
    pub(crate) fn relative_to(&self, origin: &Self) -> Self {
        Self {
            x: self.x.saturating_sub(origin.x),
            y: self.y.saturating_sub(origin.y),
            ..*self
        }
    }

    /// The inverse of [`Rect::relative_to`].
    pub(crate) fn absolute_in(&self, origin: &Self) -> Self {
        Self {
            x: self.x.saturating_add(origin.x),
            y: self.y.saturating_add(origin.y),
            ..*self
        }
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
}

impl From<Size> for Rect {
    fn from(size: Size) -> Self {
        Self::sized(size.width, size.height)
    }
}

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
    fn lies_within_accepts_any_numbers() {
        assert!(rect(0, 0, 4, 4).lies_within(Size::new(4, 4)));
        assert!(rect(4, 4, 0, 0).lies_within(Size::new(4, 4)));
        assert!(!rect(1, 0, 4, 4).lies_within(Size::new(4, 4)));
        assert!(!rect(0, 1, 4, 4).lies_within(Size::new(4, 4)));
        assert!(!rect(u32::MAX, 0, 1, 1).lies_within(Size::new(4, 4)));
        assert!(!rect(1, u32::MAX, 1, u32::MAX).lies_within(Size::new(u32::MAX, u32::MAX)));
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
