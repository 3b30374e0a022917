// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Reads the pixels of a resource back, in bands of whole rows.

use crate::geometry::Rect;
use crate::gpu::protocol::Box3;
use crate::gpu::resource::to_display_order;
use crate::gpu::resource::{PIXEL_LEN, ResourceError};

use super::library::Library;
use super::resources::Resource;

/// Most bytes of a band with more than one row.
const BAND_LEN: u32 = 4 << 20;

/// Reads pixels back, and keeps its buffer for the next time.
#[derive(Debug, Default)]
pub(super) struct PixelReader {
    band: Vec<u8>,
}

impl PixelReader {
    /// Reads `rect` of `resource` in the display's order of bytes. `take` gets the rectangle and the
    /// pixels of each band.
    ///
    /// # Errors
    /// If the resource is no picture, or the library cannot read it.
    pub(super) fn read(
        &mut self,
        library: &mut Library,
        resource: &Resource,
        rect: Rect,
        mut take: impl FnMut(Rect, &[u8]),
    ) -> Result<(), ResourceError> {
        let id = resource.id();
        let format = resource.check_picture()?;
        let stride = rect.width.saturating_mul(PIXEL_LEN as u32);
        let rows = BAND_LEN.checked_div(stride).unwrap_or(0).max(1);
        let mut done = 0;
        while done < rect.height {
            let height = rows.min(rect.height.saturating_sub(done));
            let part = Rect {
                y: rect.y.saturating_add(done),
                height,
                ..rect
            };
            let len = part.area() as usize * PIXEL_LEN;
            self.band.resize(len, 0);
            library
                .read(id, &flat_box(part), stride, &mut self.band)
                .map_err(|_| ResourceError::Refused(id))?;
            to_display_order(format, &mut self.band);
            take(part, &self.band);
            done = done.saturating_add(height);
        }
        Ok(())
    }

    /// Frees the buffer.
    pub(super) fn clear(&mut self) {
        self.band = Vec::new();
    }
}

/// `rect` of the first slice of a resource.
pub(super) fn flat_box(rect: Rect) -> Box3 {
    Box3 {
        x: rect.x,
        y: rect.y,
        z: 0,
        width: rect.width,
        height: rect.height,
        depth: 1,
    }
}
