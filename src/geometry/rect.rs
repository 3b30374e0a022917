// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A rectangle in pixels.

use super::Size;

/// A rectangle in pixels. Guests, GPUs and viewers may send any numbers: edges beyond `u32` are cut off, and
/// [`Rect::lies_within`] tells whether there are any.
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

    /// The smallest rectangle that contains both. One without pixels adds nothing.
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

    /// Whether it has all pixels of `other`, which has some.
    pub(crate) fn contains(&self, other: &Self) -> bool {
        self.intersection(other) == Some(*other)
    }

    /// The rest of it without `hole`, in at most four pieces.
    pub(crate) fn without(&self, hole: &Self) -> impl Iterator<Item = Self> + use<> {
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
    fn nothing_is_added_to_what_is_around() {
        let some = rect(5, 6, 10, 10);
        assert_eq!(some.around(&rect(0, 0, 0, 9)), some);
        assert_eq!(rect(90, 90, 1, 0).around(&some), some);
        assert_eq!(some.around(&rect(20, 3, 1, 1)), rect(5, 3, 16, 13));
    }

    #[test]
    fn pieces_without_a_hole_have_each_other_pixel_once() {
        let whole = rect(2, 3, 6, 5);
        for hole in [rect(0, 0, 4, 5), rect(3, 4, 2, 2), whole, rect(8, 3, 9, 9)] {
            for (x, y) in (0..12).flat_map(|x| (0..12).map(move |y| (x, y))) {
                let pixel = rect(x, y, 1, 1);
                let count = whole.without(&hole).filter(|r| r.contains(&pixel)).count();
                let left = whole.contains(&pixel) && !hole.contains(&pixel);
                assert_eq!(count, usize::from(left), "{hole:?}: {x},{y}");
            }
        }
    }
}
