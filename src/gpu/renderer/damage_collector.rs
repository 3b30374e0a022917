// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Collects the pixels that a copy changed.

use std::ops::Range;

use crate::geometry::Rect;
use crate::gpu::region::Region;

/// Most unchanged rows between two changes that are still joined to one rectangle.
const JOINED_ROWS: u32 = 16;

/// Joins changed rows to rectangles and adds these to a region, the last one when it is dropped.
pub(super) struct DamageCollector<'a> {
    region: &'a mut Region,
    open: Option<Rect>,
}

impl<'a> DamageCollector<'a> {
    pub(super) fn new(region: &'a mut Region) -> Self {
        Self { region, open: None }
    }

    /// Adds the pixels `columns` of row `y`. Rows come in ascending order.
    pub(super) fn add_row(&mut self, y: u32, columns: Range<u32>) {
        let row = Rect {
            x: columns.start,
            y,
            width: columns.end.saturating_sub(columns.start),
            height: 1,
        };
        self.open = Some(match self.open.take() {
            Some(open) if y.saturating_sub(open.y.saturating_add(open.height)) <= JOINED_ROWS => {
                open.around(&row)
            }
            Some(open) => {
                self.region.add(open);
                row
            }
            None => row,
        });
    }
}

impl Drop for DamageCollector<'_> {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            self.region.add(open);
        }
    }
}
