// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The scanouts and cursors of a device, and the displays that show them.

use super::cursor::{Cursor, Position, Shape};
use super::device_scanout::DeviceScanout;
use super::display_cursor::DisplayCursor;
use super::display_id::DisplayId;
use super::display_scanout::DisplayScanout;
use super::display_states::DisplayStates;
use super::pending_updates::PendingUpdates;
use super::records::ScanoutRecords;
use super::source::{DmabufSupport, ScanoutResource, ScanoutSource, Shown};
use crate::geometry::{Rect, Size};
use crate::gpu::kept_state::{DisplayRecord, KeptState, KeptStateError};
use crate::gpu::protocol::MAX_SCANOUTS;
use crate::gpu::region::Region;
use crate::gpu::renderer::{Fence, Renderer};
use crate::gpu::resource::{CursorPixels, PixelSource};

/// A scanout that shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveScanout {
    pub(crate) size: Size,
    pub(crate) shown: Shown,
}

/// An image that is to be read back because its pixels take the place of its dmabuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Readback {
    /// The resource.
    pub(crate) resource: u32,
    /// The part of it.
    pub(crate) rect: Rect,
}

/// All scanouts and cursors of a device, and what each display was told of them.
///
/// Nothing is kept, and nothing read back, for displays that are not connected.
#[derive(Debug, Default)]
pub(crate) struct Scanouts {
    scanouts: [DeviceScanout; MAX_SCANOUTS],
    cursors: [Cursor; MAX_SCANOUTS],
    display_states: DisplayStates,
    /// The point in the renderer's work at which the awaited dmabufs are drawn.
    drawing_fence: Option<Fence>,
    records: ScanoutRecords,
    /// What a predecessor told the VMM's display.
    vmm_was_told: DisplayRecord,
}

impl Scanouts {
    /// Scanouts and cursors that are kept in `kept` for a successor, as a predecessor left them there: they show resources
    /// of `renderer`. No display is connected.
    ///
    /// # Errors
    /// If what was left cannot be used.
    pub(crate) fn resume(
        kept: KeptState,
        renderer: &mut dyn Renderer,
    ) -> Result<Self, KeptStateError> {
        let mut records = ScanoutRecords::new(kept);
        let mut scanouts = Self::default();
        for (id, cursor) in records.cursors()? {
            if let Some(place) = scanouts.cursors.get_mut(id) {
                *place = cursor;
            }
        }
        for (id, source, is_flushed) in records.scanouts(renderer)? {
            if let Some(scanout) = scanouts.scanouts.get_mut(id) {
                scanout.set_source(Some(source));
                scanout.set_next_flush_is_full(!is_flushed);
            }
        }
        scanouts.vmm_was_told = records.display()?;
        scanouts.records = records;
        Ok(scanouts)
    }

    /// Whether scanout `id` shows the part `rect` of `pixels` already.
    pub(crate) fn shows(&self, id: u32, pixels: &PixelSource, rect: &Rect) -> bool {
        let scanout = usize::try_from(id).ok().and_then(|i| self.scanouts.get(i));
        scanout
            .and_then(DeviceScanout::source)
            .is_some_and(|source| source.pixels.is(pixels) && source.rect == *rect)
    }

    /// Shows `source` on scanout `id`. Displays get all of it with its first flush, unless the scanout
    /// shows it already.
    pub(crate) fn show(&mut self, id: u32, source: ScanoutSource) {
        if !self.shows(id, &source.pixels, &source.rect) {
            self.set_source(id, Some(source));
        }
    }

    /// Disables scanout `id`.
    pub(crate) fn disable(&mut self, id: u32) {
        self.set_source(id, None);
    }

    /// Disables the scanouts that show `resource`.
    pub(crate) fn disable_showing(&mut self, resource: &impl ScanoutResource) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.source_of(resource).is_some() {
                scanout.set_source(None);
                self.records.put_scanout(index, scanout);
                self.display_states
                    .for_scanout(index, DisplayScanout::source_changed);
            }
        }
    }

    fn set_source(&mut self, id: u32, source: Option<ScanoutSource>) {
        let Ok(index) = usize::try_from(id) else {
            return;
        };
        if let Some(scanout) = self.scanouts.get_mut(index) {
            scanout.set_source(source);
            self.records.put_scanout(index, scanout);
            self.display_states
                .for_scanout(index, DisplayScanout::source_changed);
        }
    }

    /// Whether a scanout shows a part of `resource`.
    pub(crate) fn is_shown(&self, resource: &impl ScanoutResource) -> bool {
        let mut scanouts = self.scanouts.iter();
        scanouts.any(|scanout| scanout.source_of(resource).is_some())
    }

    /// Notes that commands changed `region` of `resource`.
    pub(crate) fn add_damage(&mut self, resource: &impl ScanoutResource, region: &Region) {
        for scanout in &mut self.scanouts {
            scanout.add_damage(resource, region);
        }
    }

    /// The parts of `resource` that a flush of `rect` sends by pixels, if they changed: those within
    /// `rect` that a scanout shows, or all that it shows with a full flush.
    pub(crate) fn region_to_flush(&self, resource: &impl ScanoutResource, rect: &Rect) -> Region {
        let mut region = Region::default();
        for scanout in &self.scanouts {
            let Some(source) = scanout.source_of(resource) else {
                continue;
            };
            if !self.display_states.show_pixels(source) {
                continue;
            }
            if let Some(part) = rect.intersection(&source.rect) {
                region.add(if scanout.next_flush_is_full() {
                    source.rect
                } else {
                    part
                });
            }
        }
        region
    }

    /// Brings the displays up to date within `rect` of `resource`: queues for each what changed there, or
    /// everything with a full flush of a scanout.
    pub(crate) fn flush(&mut self, resource: &impl ScanoutResource, rect: &Rect) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.source_of(resource).is_some() {
                let was_flushed = !scanout.next_flush_is_full();
                self.display_states.flush(index, scanout, rect);
                if !was_flushed {
                    self.records.put_scanout(index, scanout);
                }
            }
        }
    }

    /// Whether damage of a dmabuf was flushed for which a fence is to be awaited.
    pub(crate) fn wants_fence(&self) -> bool {
        self.drawing_fence.is_none() && self.display_states.want_fence()
    }

    /// What was flushed of dmabufs is sent once it is drawn: at `fence`, with the next
    /// [`Scanouts::drawing_done`].
    pub(crate) fn await_drawing(&mut self, fence: Option<Fence>) {
        self.drawing_fence = fence;
        self.display_states.await_drawing();
    }

    /// The fence that is awaited.
    pub(crate) fn drawing_fence(&self) -> Option<Fence> {
        self.drawing_fence
    }

    /// The awaited fence is retired: what was flushed before it is drawn.
    pub(crate) fn drawing_done(&mut self) {
        self.drawing_fence = None;
        self.display_states.drawing_done();
    }

    /// Moves, hides or shows the cursor of scanout `id`.
    pub(crate) fn move_cursor(&mut self, id: u32, position: Position) {
        let index = id as usize;
        let Some(cursor) = self.cursors.get_mut(index) else {
            return;
        };
        cursor.position = position;
        self.records.put_position(id, position);
        self.display_states
            .for_cursor(index, DisplayCursor::position_changed);
    }

    /// Gives the cursor of scanout `id` a new shape, and shows it.
    pub(crate) fn set_cursor_shape(&mut self, id: u32, position: Position, shape: Shape) {
        let index = id as usize;
        let Some(cursor) = self.cursors.get_mut(index) else {
            return;
        };
        *cursor = Cursor {
            position,
            shape: Some(shape),
        };
        self.records.put_position(id, position);
        if let Some(shape) = &cursor.shape {
            self.records.put_shape(id, shape);
        }
        self.display_states
            .for_cursor(index, DisplayCursor::shape_changed);
    }

    /// Disables all scanouts and forgets the cursors; the displays are told.
    pub(crate) fn reset(&mut self) {
        self.drawing_fence = None;
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            scanout.set_source(None);
            self.display_states
                .for_scanout(index, DisplayScanout::source_changed);
        }
        self.display_states.hide_cursors(&self.cursors);
        self.cursors = Default::default();
        self.records.clear();
    }

    /// The scanouts that show something.
    pub(crate) fn active_scanouts(&self) -> impl Iterator<Item = ActiveScanout> {
        self.scanouts.iter().filter_map(|scanout| {
            let source = scanout.source()?;
            Some(ActiveScanout {
                size: source.size(),
                shown: self.display_states.shown(source),
            })
        })
    }

    /// Where the pixels of `rect` of scanout `id` lie now: in what, and where in it.
    pub(crate) fn pixels(&self, id: u32, rect: &Rect) -> Option<(PixelSource, Rect)> {
        let source = self.scanouts.get(usize::try_from(id).ok()?)?.source()?;
        let lies_within = rect.lies_within(source.size());
        lies_within.then(|| (source.pixels.clone(), rect.absolute_in(&source.rect)))
    }

    /// The shape of the cursor of scanout `id`.
    pub(crate) fn cursor_pixels(&self, id: u32) -> Option<&CursorPixels> {
        let cursor = self.cursors.get(usize::try_from(id).ok()?)?;
        cursor.shape.as_ref().map(|shape| &shape.pixels)
    }

    /// Which dmabufs a display can be passed.
    #[cfg(feature = "fuzzing")]
    pub(super) fn support(&self, id: DisplayId) -> DmabufSupport {
        self.display_states
            .get(id)
            .map_or(DmabufSupport::None, |display| display.support())
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn all(&self) -> &[DeviceScanout] {
        &self.scanouts
    }
}

/// The displays.
impl Scanouts {
    /// Starts over with a display that knows nothing: it is sent all that was flushed.
    pub(crate) fn attach_display(&mut self, id: DisplayId) {
        let is_new = self.display_states.add(id);
        if let Some(display) = self.display_states.get_mut(id) {
            display.restart(&self.cursors);
            self.records.put_display(display);
        }
        let flushed = |(_, scanout): &(usize, &mut DeviceScanout)| !scanout.next_flush_is_full();
        for (index, scanout) in self.scanouts.iter_mut().enumerate().filter(flushed) {
            if !is_new {
                // Its image was kept up to date.
                self.display_states
                    .send_everything(index, scanout, |display| display.id() == id);
                continue;
            }
            if let (Some(source), Some(display)) =
                (scanout.source(), self.display_states.get_mut(id))
            {
                display.begin(index, source);
            }
        }
    }

    /// Goes on with the VMM's display, which a predecessor served: it is sent the cursors again, and all that was flushed,
    /// as nobody knows what of it the display has received.
    pub(crate) fn resume_vmm_display(&mut self) {
        let id = DisplayId::VMM;
        self.display_states.add(id);
        let Some(display) = self.display_states.get_mut(id) else {
            return;
        };
        display.resume(&self.vmm_was_told, &self.cursors);
        for (index, scanout) in self.scanouts.iter().enumerate() {
            let flushed = scanout.source().filter(|_| !scanout.next_flush_is_full());
            if let (Some(source), Some(display_scanout)) = (flushed, display.scanout_mut(index)) {
                display_scanout.send_everything(source);
            }
        }
    }

    /// A display is gone. Nothing more is kept for it.
    pub(crate) fn detach_display(&mut self, id: DisplayId) {
        self.display_states.remove(id);
        self.records.remove_display(id);
    }

    /// The updates that a display is to be sent; `None` if there is no such display.
    pub(crate) fn pending_updates(&mut self, id: DisplayId) -> Option<PendingUpdates<'_>> {
        let display = self.display_states.get_mut(id)?;
        Some(PendingUpdates::new(
            &self.scanouts,
            &self.cursors,
            display,
            &self.records,
        ))
    }

    /// A display can be passed other dmabufs from now on. What it shows in another way then is sent
    /// again: pixels after a [`Readback`].
    pub(crate) fn set_dmabuf_support(&mut self, id: DisplayId, support: DmabufSupport) {
        let display = self.display_states.get_mut(id);
        let Some(display) = display.filter(|display| display.support() != support) else {
            return;
        };
        let old = display.set_support(support);
        for (index, scanout) in self.scanouts.iter().enumerate() {
            let (Some(source), Some(display_scanout)) =
                (scanout.source(), display.scanout_mut(index))
            else {
                continue;
            };
            let by_dmabuf = source.dmabuf_for(support).is_some();
            if source.dmabuf_for(old).is_some() != by_dmabuf {
                display_scanout.switch_mode(source, by_dmabuf, !scanout.next_flush_is_full());
            }
        }
    }

    /// The next image to be read back, for a display that shows it by pixels.
    pub(crate) fn next_readback(&self) -> Option<Readback> {
        let mut scanouts = self.scanouts.iter().enumerate();
        let source = scanouts.find_map(|(index, scanout)| {
            let source = scanout.source()?;
            self.display_states.need_readback(index).then_some(source)
        })?;
        Some(Readback {
            resource: source.resource,
            rect: source.rect,
        })
    }

    /// A [`Readback`] is done, and its pixels are sent, or it failed: then the next flush tries again.
    pub(crate) fn readback_done(&mut self, readback: &Readback, is_read: bool) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            let is_it = scanout.source().is_some_and(|source| {
                source.resource == readback.resource && source.rect == readback.rect
            });
            if !is_it || !self.display_states.need_readback(index) {
                continue;
            }
            scanout.set_next_flush_is_full(!is_read);
            if is_read {
                self.display_states
                    .send_everything(index, scanout, |d| d.needs_readback(index));
            }
            self.display_states
                .for_scanout(index, DisplayScanout::readback_done);
        }
    }

    /// With a VMM's display, while there is nothing to show.
    #[cfg(test)]
    pub(crate) fn with_vmm() -> Self {
        let mut scanouts = Self::default();
        scanouts.attach_display(DisplayId::VMM);
        scanouts
    }

    /// The next update of the VMM's display.
    #[cfg(test)]
    pub(crate) fn take_update(&mut self, awaits_dmabuf_ack: bool) -> Option<super::Update> {
        self.pending_updates(DisplayId::VMM)?
            .take_next(awaits_dmabuf_ack)
    }
}
