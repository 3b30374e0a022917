// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What a display is to show in the end, for the targets in fuzz/.

use super::device_scanout::DeviceScanout;
use super::{DisplayId, Scanouts};
use crate::geometry::Rect;
use crate::gpu::resource::{PIXEL_LEN, PixelSource};

/// What a display shows of a scanout once it was sent everything.
#[derive(Debug, PartialEq, Eq)]
pub enum ExpectedDisplay {
    /// Nothing.
    Disabled,
    /// What was there before, until the next flush, which sends everything.
    Unchanged,
    /// The dmabuf with this inode.
    Dmabuf(u64),
    /// So many columns and rows, and the pixels; `None` where they changed since the last flush.
    Pixels(u32, u32, Vec<Option<u32>>),
}

impl Scanouts {
    /// What a display shows of each scanout once it was sent everything.
    pub(crate) fn expected_display(&self, display: DisplayId) -> Vec<ExpectedDisplay> {
        let expected = |scanout: &DeviceScanout| {
            let Some(source) = scanout.source() else {
                return ExpectedDisplay::Disabled;
            };
            if scanout.next_flush_is_full() {
                return ExpectedDisplay::Unchanged;
            }
            if let Some(dmabuf) = source.dmabuf_for(self.support(display)) {
                let stat = rustix::fs::fstat(&dmabuf.fd);
                return ExpectedDisplay::Dmabuf(stat.map_or(0, |stat| stat.st_ino));
            }
            let (width, height) = (source.rect.width, source.rect.height);
            let image = match &source.pixels {
                PixelSource::Image(image) => image.lock(),
                // The guest writes to them when it likes.
                PixelSource::Blob(_) => {
                    let pixels = vec![None; source.rect.area() as usize];
                    return ExpectedDisplay::Pixels(width, height, pixels);
                }
            };
            let mut pixels = Vec::new();
            for y in 0..source.rect.height {
                let len = source.rect.width as usize * PIXEL_LEN;
                let row = image.bytes(source.rect.x, source.rect.y.saturating_add(y), len);
                let words = row.chunks_exact(PIXEL_LEN).filter_map(<[u8]>::first_chunk);
                pixels.extend((0..).zip(words).map(|(x, word)| {
                    let is_newer = |r: &Rect| {
                        let inside = |at: u32, from: u32, len| at >= from && at - from < len;
                        inside(x, r.x, r.width) && inside(y, r.y, r.height)
                    };
                    let newer = scanout.damage_unflushed().rects().iter().any(is_newer);
                    (!newer).then_some(u32::from_ne_bytes(*word))
                }));
            }
            ExpectedDisplay::Pixels(width, height, pixels)
        };
        self.all().iter().map(expected).collect()
    }
}
