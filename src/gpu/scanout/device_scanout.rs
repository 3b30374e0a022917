// SPDX-License-Identifier: Apache-2.0 OR MIT
//! A scanout, as it is for all displays.

use super::source::{ScanoutResource, ScanoutSource};
use crate::geometry::{Rect, Size};
use crate::gpu::region::Region;

/// A scanout, as it is for all displays.
#[derive(Debug, Default)]
pub(super) struct DeviceScanout {
    source: Option<ScanoutSource>,
    /// Whether the next flush sends everything: nothing of the source was flushed yet, or its pixels could
    /// not be read back. Until then displays show what was there before.
    next_flush_is_full: bool,
    /// What commands wrote of it since the last flush, in its own coordinates. Damage of pixels only:
    /// a flush of a dmabuf sends all of the flushed rectangle.
    damage_unflushed: Region,
}

/// A flush of a scanout.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flush {
    /// What is flushed, in the scanout's coordinates.
    pub(super) rect: Rect,
    /// Whether it is of everything; see [`DeviceScanout::next_flush_is_full`].
    pub(super) is_full: bool,
}

impl DeviceScanout {
    /// What it shows; `None` if it is disabled.
    pub(super) fn source(&self) -> Option<&ScanoutSource> {
        self.source.as_ref()
    }

    /// Its source, if that is a part of `resource`.
    pub(super) fn source_of(&self, resource: &impl ScanoutResource) -> Option<&ScanoutSource> {
        let source = self.source.as_ref();
        source.filter(|source| resource.is_shown_by(source))
    }

    /// Its size; 0 by 0 if it is disabled.
    pub(super) fn size(&self) -> Size {
        self.source
            .as_ref()
            .map_or(Size::default(), ScanoutSource::size)
    }

    /// Shows `source`, of which nothing was flushed yet, or nothing.
    pub(super) fn set_source(&mut self, source: Option<ScanoutSource>) {
        *self = Self {
            next_flush_is_full: source.is_some(),
            source,
            damage_unflushed: Region::default(),
        };
    }

    /// Notes that commands changed `region` of `resource`.
    pub(super) fn add_damage(&mut self, resource: &impl ScanoutResource, region: &Region) {
        let Some(shown) = self.source_of(resource).map(|source| source.rect) else {
            return;
        };
        for rect in region.rects() {
            if let Some(part) = rect.intersection(&shown) {
                self.damage_unflushed.add(part.relative_to(&shown));
            }
        }
    }

    /// Flushes `rect` of its source's resource. `None` if it shows nothing of that.
    pub(super) fn flush(&mut self, rect: &Rect) -> Option<Flush> {
        let source = self.source.as_ref()?;
        let part = rect.intersection(&source.rect)?;
        let is_full = std::mem::take(&mut self.next_flush_is_full);
        let rect = if is_full {
            self.damage_unflushed.clear();
            self.damage_unflushed.add(source.everything());
            source.everything()
        } else {
            part.relative_to(&source.rect)
        };
        Some(Flush { rect, is_full })
    }

    /// The damage that is to be sent with the next flush.
    pub(super) fn damage_unflushed(&self) -> &Region {
        &self.damage_unflushed
    }

    /// Moves the damage within `rect` to `into`.
    pub(super) fn take_damage(&mut self, rect: &Rect, into: &mut Region) {
        self.damage_unflushed.take_within(rect, into);
    }

    /// Forgets the damage: it is sent.
    pub(super) fn clear_damage(&mut self) {
        self.damage_unflushed.clear();
    }

    /// Whether the next flush sends everything.
    pub(super) fn next_flush_is_full(&self) -> bool {
        self.next_flush_is_full
    }

    /// Sets whether the next flush sends everything, or only what changed.
    pub(super) fn set_next_flush_is_full(&mut self, is_full: bool) {
        self.next_flush_is_full = is_full;
    }
}
