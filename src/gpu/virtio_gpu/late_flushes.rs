// SPDX-License-Identifier: Apache-2.0 OR MIT
//! Flushes of blobs that the host's GPU still draws in. They are done when the GPU has finished; the worker does not
//! wait for it.

use std::time::{Duration, Instant};

use crate::geometry::Rect;
use crate::gpu::region::Region;
use crate::gpu::resource::{Blob, BlobHandle};
use crate::gpu::scanout::Scanouts;

/// A GPU that draws for longer is not waited for: what is there is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// The time between two looks whether it is over.
const PAUSE: Duration = Duration::from_millis(4);

/// A flush that was not done yet.
#[derive(Debug)]
struct LateFlush {
    blob: BlobHandle,
    rect: Rect,
    /// When it is done in any case.
    until: Instant,
}

/// The flushes that were not done yet: one at most for each scanout.
#[derive(Debug, Default)]
pub(super) struct LateFlushes {
    flushes: Vec<LateFlush>,
    looked: Option<Instant>,
}

impl LateFlushes {
    /// Flushes `rect` of `blob`, now or later.
    pub(super) fn flush(&mut self, scanouts: &mut Scanouts, blob: &Blob, rect: Rect, now: Instant) {
        let handle = blob.handle();
        if !scanouts.is_shown(&handle) {
            return;
        }
        let before = self.flushes.iter().position(|late| late.blob.is(&handle));
        let before = before.map(|at| self.flushes.swap_remove(at));
        let rect = before
            .as_ref()
            .map_or(rect, |before| before.rect.around(&rect));
        let until = before.map_or(now + PATIENCE, |before| before.until);
        if handle.is_drawn() || now >= until {
            flush(scanouts, &handle, rect);
            return;
        }
        // Those that are shown no more make room.
        self.flushes.retain(|late| scanouts.is_shown(&late.blob));
        self.flushes.push(LateFlush {
            blob: handle,
            rect,
            until,
        });
    }

    /// Does those whose blobs are drawn, or whose time is over.
    pub(super) fn follow(&mut self, scanouts: &mut Scanouts, now: Instant) {
        if self.flushes.is_empty() {
            return;
        }
        self.looked = Some(now);
        self.flushes.retain(|late| {
            let is_due = late.blob.is_drawn() || now >= late.until;
            if is_due {
                flush(scanouts, &late.blob, late.rect);
            }
            !is_due
        });
    }

    /// When [`LateFlushes::follow`] is due.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let looked = self.looked.unwrap_or(now);
        (!self.flushes.is_empty()).then(|| looked + PAUSE)
    }

    /// Forgets all of them.
    pub(super) fn clear(&mut self) {
        self.flushes.clear();
    }
}

/// Flushes a part of a blob, of which every pixel may have changed.
fn flush(scanouts: &mut Scanouts, blob: &BlobHandle, rect: Rect) {
    let mut changed = Region::default();
    changed.add(rect);
    scanouts.add_damage(blob, &changed);
    scanouts.flush(blob, &rect);
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;
    use std::sync::Arc;

    use rustix::event::{EventfdFlags, eventfd};
    use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

    use super::*;
    use crate::geometry::Size;
    use crate::gpu::protocol::{Format, FramebufferLayout};
    use crate::gpu::resource::{HostMapping, HostMemory, PixelSource};
    use crate::gpu::scanout::{ScanoutSource, Update};

    /// A blob that scanout 0 shows, and by which its drawing ends.
    fn blob(scanouts: &mut Scanouts) -> (Blob, OwnedFd) {
        let file = memfd_create("blob", MemfdFlags::CLOEXEC).unwrap();
        ftruncate(&file, 4096).unwrap();
        let memory = HostMemory {
            file: Arc::new(file),
            offset: 0,
            len: 4096,
            caching: 1,
        };
        let fences = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        let drawn = fences.try_clone().unwrap();
        let blob = Blob::on_host(HostMapping::with_fences(memory, fences));
        let layout = FramebufferLayout {
            format: Format::B8G8R8X8,
            size: Size::new(8, 8),
            stride: 32,
            offset: 0,
        };
        let rect = Rect::sized(8, 8);
        let source = ScanoutSource {
            resource: 1,
            pixels: PixelSource::Blob(blob.framebuffer(layout, &rect).unwrap()),
            rect,
            dmabuf: None,
        };
        scanouts.show(0, source);
        (blob, drawn)
    }

    fn draw(drawn: &OwnedFd) {
        rustix::io::write(drawn, &1_u64.to_ne_bytes()).unwrap();
    }

    /// What is sent of pixels.
    fn sent(scanouts: &mut Scanouts) -> Vec<Rect> {
        let updates = std::iter::from_fn(|| scanouts.take_update(false));
        let pixels = updates.filter_map(|update| match update {
            Update::Pixels { rect, .. } => Some(rect),
            _ => None,
        });
        pixels.collect()
    }

    #[test]
    fn blob_is_sent_once_it_is_drawn() {
        let mut scanouts = Scanouts::with_vmm();
        let mut late = LateFlushes::default();
        let (blob, drawn) = blob(&mut scanouts);
        let now = Instant::now();
        for x in [0, 4] {
            let rect = Rect {
                x,
                ..Rect::sized(2, 2)
            };
            late.flush(&mut scanouts, &blob, rect, now);
        }
        late.follow(&mut scanouts, now);
        assert!(sent(&mut scanouts).is_empty());
        assert_eq!(late.deadline(now), Some(now + PAUSE));
        draw(&drawn);
        late.follow(&mut scanouts, now);
        // The first flush is of everything.
        assert_eq!(sent(&mut scanouts), [Rect::sized(8, 8)]);
        assert_eq!(late.deadline(now), None);
        let rect = Rect::sized(1, 1);
        late.flush(&mut scanouts, &blob, rect, now);
        assert_eq!(sent(&mut scanouts), [rect]);
    }

    #[test]
    fn blob_that_is_never_drawn_is_sent_after_a_time() {
        let mut scanouts = Scanouts::with_vmm();
        let mut late = LateFlushes::default();
        let (blob, _drawn) = blob(&mut scanouts);
        let now = Instant::now();
        // Flushes that follow do not delay it.
        for part in 0..4 {
            let now = now + PATIENCE / 4 * part;
            late.flush(&mut scanouts, &blob, Rect::sized(8, 8), now);
            late.follow(&mut scanouts, now);
            assert!(sent(&mut scanouts).is_empty());
        }
        late.follow(&mut scanouts, now + PATIENCE);
        assert_eq!(sent(&mut scanouts), [Rect::sized(8, 8)]);
    }

    #[test]
    fn flushes_of_what_is_not_shown_are_not_kept() {
        let mut scanouts = Scanouts::with_vmm();
        let mut late = LateFlushes::default();
        let now = Instant::now();
        for _ in 0..3 {
            let (blob, _drawn) = blob(&mut scanouts);
            late.flush(&mut scanouts, &blob, Rect::sized(8, 8), now);
            assert_eq!(late.flushes.len(), 1);
        }
        scanouts.disable(0);
        let (blob, drawn) = blob(&mut scanouts);
        scanouts.disable(0);
        late.flush(&mut scanouts, &blob, Rect::sized(8, 8), now);
        draw(&drawn);
        late.follow(&mut scanouts, now + PATIENCE);
        assert!(late.flushes.is_empty() && sent(&mut scanouts).is_empty());
    }
}
