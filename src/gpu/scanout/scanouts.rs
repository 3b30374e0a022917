//! The scanouts and cursors of a device, and the displays that show them.

use super::cursor::{Cursor, Position, Shape};
use super::presentation::{DisplayId, PendingUpdates, Presentation};
use super::presented_cursor::PresentedCursor;
use super::presented_scanout::PresentedScanout;
use super::source::{DmabufSupport, ScanoutSource};
use crate::gpu::protocol::MAX_SCANOUTS;
use crate::gpu::region::{Rect, Region, Size};
use crate::gpu::renderer::Fence;
use crate::gpu::resource::SharedImage;

/// A scanout, as it is for all displays.
#[derive(Debug, Default)]
pub(super) struct Scanout {
    source: Option<ScanoutSource>,
    /// Whether nothing of the source was flushed yet: displays show what was there before.
    never_flushed: bool,
    /// What commands wrote of it since the last flush, in its own coordinates. Damage of pixels only:
    /// a flush of a dmabuf sends all of the flushed rectangle.
    damage_unflushed: Region,
}

impl Scanout {
    /// What it shows; `None` if it is disabled.
    pub(super) fn source(&self) -> Option<&ScanoutSource> {
        self.source.as_ref()
    }

    /// Its size; 0 by 0 if it is disabled.
    pub(super) fn size(&self) -> Size {
        self.source
            .as_ref()
            .map_or(Size::default(), ScanoutSource::size)
    }

    /// Its source, if that is a part of `image`.
    fn source_of(&self, image: &SharedImage) -> Option<&ScanoutSource> {
        self.source.as_ref().filter(|source| source.image.is(image))
    }

    /// Shows `source`, of which the displays have nothing, or nothing.
    fn set_source(
        &mut self,
        index: usize,
        source: Option<ScanoutSource>,
        displays: &mut [Presentation],
    ) {
        *self = Self {
            never_flushed: source.is_some(),
            source,
            damage_unflushed: Region::default(),
        };
        for display in displays {
            if let Some(presented) = display.scanout_mut(index) {
                presented.source_changed();
            }
        }
    }

    /// Notes that commands changed `region` of `image`.
    fn add_damage(&mut self, image: &SharedImage, region: &Region) {
        let shown = self.source.as_ref().filter(|s| s.image.is(image));
        let Some(shown) = shown.map(|source| source.rect) else {
            return;
        };
        for rect in region.rects() {
            if let Some(part) = rect.intersection(&shown) {
                self.damage_unflushed.add(part.relative_to(&shown));
            }
        }
    }

    /// Has all of it sent to a display that is new: pixels once they are read back, for no other
    /// display may have needed them.
    fn begin(&self, index: usize, displays: &mut [Presentation], id: DisplayId) {
        let Some(source) = &self.source else {
            return;
        };
        for display in displays.iter_mut().filter(|display| display.id() == id) {
            let shows_pixels = display.shows_pixels(source);
            if let Some(presented) = display.scanout_mut(index) {
                presented.send_everything(source);
                presented.set_needs_readback(shows_pixels);
            }
        }
    }

    /// Has all of it sent, as it is now, to the displays that `is_meant` picks. Pixels are sent as they
    /// are, unflushed ones too: these are damage no more, so the other displays are sent them as well.
    fn send_everything(
        &mut self,
        index: usize,
        displays: &mut [Presentation],
        is_meant: impl Fn(&Presentation) -> bool,
    ) {
        let Some(source) = &self.source else {
            return;
        };
        let mut pixels_are_sent = false;
        for display in displays.iter_mut().filter(|display| is_meant(display)) {
            pixels_are_sent |= display.shows_pixels(source);
            if let Some(presented) = display.scanout_mut(index) {
                presented.send_everything(source);
            }
        }
        if pixels_are_sent {
            for display in displays.iter_mut().filter(|d| d.shows_pixels(source)) {
                if let Some(presented) = display.scanout_mut(index) {
                    presented.add_damage(&self.damage_unflushed, &source.everything());
                }
            }
            self.damage_unflushed.clear();
        }
    }

    /// Has the displays sent what changed within `flushed`, a rectangle of its source's image, or
    /// everything with the first flush.
    fn flush(&mut self, index: usize, flushed: &Rect, displays: &mut [Presentation]) {
        let Some(source) = &self.source else {
            return;
        };
        let Some(part) = flushed.intersection(&source.rect) else {
            return;
        };
        let is_first = std::mem::take(&mut self.never_flushed);
        let part = if is_first {
            self.damage_unflushed.clear();
            self.damage_unflushed.add(source.everything());
            source.everything()
        } else {
            part.relative_to(&source.rect)
        };
        let mut by_pixels: Option<&mut PresentedScanout> = None;
        for display in displays {
            let shows_pixels = display.shows_pixels(source);
            let Some(presented) = display.scanout_mut(index) else {
                continue;
            };
            if !shows_pixels {
                presented.flush_dmabuf(part);
                continue;
            }
            if is_first {
                presented.damage_to_send().clear();
            }
            if let Some(other) = by_pixels.replace(presented) {
                other.add_damage(&self.damage_unflushed, &part);
            }
        }
        if let Some(last) = by_pixels {
            self.damage_unflushed
                .take_within(&part, last.damage_to_send());
        }
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn is_never_flushed(&self) -> bool {
        self.never_flushed
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn damage_unflushed(&self) -> &Region {
        &self.damage_unflushed
    }
}

/// A scanout that shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ActiveScanout {
    pub(crate) size: Size,
    /// Whether all displays show it by its dmabuf.
    pub(crate) by_dmabuf: bool,
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
#[derive(Debug)]
pub(crate) struct Scanouts {
    scanouts: [Scanout; MAX_SCANOUTS],
    cursors: [Cursor; MAX_SCANOUTS],
    displays: Vec<Presentation>,
    /// The point in the renderer's work at which the awaited dmabufs are drawn.
    fence: Option<Fence>,
}

impl Default for Scanouts {
    /// With the VMM's display, which is kept up to date while its socket is absent.
    fn default() -> Self {
        Self {
            scanouts: Default::default(),
            cursors: Default::default(),
            displays: vec![Presentation::new(DisplayId::VMM)],
            fence: None,
        }
    }
}

impl Scanouts {
    /// Whether scanout `id` shows the part `rect` of `image` already.
    pub(crate) fn shows(&self, id: u32, image: &SharedImage, rect: &Rect) -> bool {
        let scanout = usize::try_from(id).ok().and_then(|i| self.scanouts.get(i));
        scanout
            .and_then(|scanout| scanout.source_of(image))
            .is_some_and(|source| source.rect == *rect)
    }

    /// Has scanout `id` show `source`. Displays get all of it with its first flush, unless that is
    /// what it shows already.
    pub(crate) fn show(&mut self, id: u32, source: ScanoutSource) {
        if !self.shows(id, &source.image, &source.rect) {
            self.set_source(id, Some(source));
        }
    }

    /// Disables scanout `id`.
    pub(crate) fn disable(&mut self, id: u32) {
        self.set_source(id, None);
    }

    /// Disables the scanouts that show `image`.
    pub(crate) fn forget_image(&mut self, image: &SharedImage) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.source_of(image).is_some() {
                scanout.set_source(index, None, &mut self.displays);
            }
        }
    }

    fn set_source(&mut self, id: u32, source: Option<ScanoutSource>) {
        let Ok(index) = usize::try_from(id) else {
            return;
        };
        if let Some(scanout) = self.scanouts.get_mut(index) {
            scanout.set_source(index, source, &mut self.displays);
        }
    }

    /// Notes that commands changed `region` of `image`.
    pub(crate) fn add_damage(&mut self, image: &SharedImage, region: &Region) {
        for scanout in &mut self.scanouts {
            scanout.add_damage(image, region);
        }
    }

    /// The parts of `image` that a flush of `rect` sends by pixels, if they changed: those within
    /// `rect` that a scanout shows, or all that it shows with its first flush.
    pub(crate) fn region_to_flush(&self, image: &SharedImage, rect: &Rect) -> Region {
        let mut region = Region::default();
        for scanout in &self.scanouts {
            let Some(source) = scanout.source_of(image) else {
                continue;
            };
            if !self.displays.iter().any(|d| d.shows_pixels(source)) {
                continue;
            }
            if let Some(part) = rect.intersection(&source.rect) {
                region.add(if scanout.never_flushed {
                    source.rect
                } else {
                    part
                });
            }
        }
        region
    }

    /// Has the displays brought up to date within `rect` of `image`: each is sent what changed there,
    /// or everything with the first flush of a scanout's source.
    pub(crate) fn flush(&mut self, image: &SharedImage, rect: &Rect) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.source_of(image).is_some() {
                scanout.flush(index, rect, &mut self.displays);
            }
        }
    }

    /// Whether damage of a dmabuf was flushed for which a fence is to be awaited.
    pub(crate) fn wants_fence(&self) -> bool {
        self.fence.is_none() && self.displays.iter().any(Presentation::wants_fence)
    }

    /// What was flushed of dmabufs is sent after the next [`Scanouts::flush_done`]: at `fence`.
    pub(crate) fn await_flush(&mut self, fence: Option<Fence>) {
        self.fence = fence;
        for display in &mut self.displays {
            display.await_flush();
        }
    }

    /// The fence that is awaited.
    pub(crate) fn fence(&self) -> Option<Fence> {
        self.fence
    }

    /// The fence that was awaited is retired.
    pub(crate) fn flush_done(&mut self) {
        self.fence = None;
        for display in &mut self.displays {
            display.flush_done();
        }
    }

    /// Moves, hides or shows the cursor of scanout `id`.
    pub(crate) fn move_cursor(&mut self, id: u32, position: Position) {
        self.set_cursor(id, |cursor| cursor.position = position);
        self.for_cursor(id, PresentedCursor::position_changed);
    }

    /// Gives the cursor of scanout `id` a new shape, and shows it.
    pub(crate) fn shape_cursor(&mut self, id: u32, position: Position, shape: Shape) {
        self.set_cursor(id, |cursor| {
            *cursor = Cursor {
                position,
                shape: Some(shape),
            }
        });
        self.for_cursor(id, PresentedCursor::shape_changed);
    }

    fn set_cursor(&mut self, id: u32, set: impl FnOnce(&mut Cursor)) {
        let index = usize::try_from(id).ok();
        if let Some(cursor) = index.and_then(|index| self.cursors.get_mut(index)) {
            set(cursor);
        }
    }

    fn for_cursor(&mut self, id: u32, tell: impl Fn(&mut PresentedCursor)) {
        let Ok(index) = usize::try_from(id) else {
            return;
        };
        for display in &mut self.displays {
            if let Some(cursor) = display.cursor_mut(index) {
                tell(cursor);
            }
        }
    }

    /// Disables all scanouts and forgets the cursors; the displays are told.
    pub(crate) fn reset(&mut self) {
        self.fence = None;
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            scanout.set_source(index, None, &mut self.displays);
        }
        for display in &mut self.displays {
            display.hide_cursors(&self.cursors);
        }
        self.cursors = Default::default();
    }

    /// The scanouts that show something.
    pub(crate) fn active_scanouts(&self) -> impl Iterator<Item = ActiveScanout> {
        self.scanouts.iter().filter_map(|scanout| {
            let source = scanout.source.as_ref()?;
            Some(ActiveScanout {
                size: source.size(),
                by_dmabuf: !self.displays.iter().any(|d| d.shows_pixels(source)),
            })
        })
    }

    /// Which dmabufs a display can be passed.
    #[cfg(feature = "fuzzing")]
    pub(super) fn support(&self, id: DisplayId) -> DmabufSupport {
        let display = self.displays.iter().find(|display| display.id() == id);
        display.map_or(DmabufSupport::None, Presentation::support)
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn all(&self) -> &[Scanout] {
        &self.scanouts
    }
}

/// The displays.
impl Scanouts {
    /// Starts over with a display that knows nothing: it is sent all that was flushed.
    pub(crate) fn attach_display(&mut self, id: DisplayId) {
        let is_new = !self.displays.iter().any(|display| display.id() == id);
        if is_new {
            self.displays.push(Presentation::new(id));
        }
        if let Some(display) = self.displays.iter_mut().find(|d| d.id() == id) {
            display.restart(&self.cursors);
        }
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            if scanout.never_flushed {
                continue;
            }
            if is_new {
                scanout.begin(index, &mut self.displays, id);
            } else {
                // While it was absent, its image was kept up to date.
                scanout.send_everything(index, &mut self.displays, |d| d.id() == id);
            }
        }
    }

    /// A display is gone. Nothing more is kept for it, except for the VMM's, which comes back.
    pub(crate) fn detach_display(&mut self, id: DisplayId) {
        self.displays
            .retain(|display| display.id() == DisplayId::VMM || display.id() != id);
    }

    /// The updates that a display is to be sent; `None` if there is no such display.
    pub(crate) fn pending_updates(&mut self, id: DisplayId) -> Option<PendingUpdates<'_>> {
        let display = self.displays.iter_mut().find(|d| d.id() == id)?;
        Some(PendingUpdates::new(&self.scanouts, &self.cursors, display))
    }

    /// A display can be passed other dmabufs from now on. What it shows in another way then is sent
    /// again: pixels after a [`Readback`].
    pub(crate) fn set_dmabuf_support(&mut self, id: DisplayId, support: DmabufSupport) {
        let display = self.displays.iter_mut().find(|d| d.id() == id);
        let Some(display) = display.filter(|display| display.support() != support) else {
            return;
        };
        let old = display.set_support(support);
        for (index, scanout) in self.scanouts.iter().enumerate() {
            let (Some(source), Some(presented)) = (&scanout.source, display.scanout_mut(index))
            else {
                continue;
            };
            let by_dmabuf = source.dmabuf_for(support).is_some();
            if source.dmabuf_for(old).is_some() != by_dmabuf {
                presented.switch_mode(source, by_dmabuf, !scanout.never_flushed);
            }
        }
    }

    /// The next image to be read back, for a display that shows it by pixels.
    pub(crate) fn needs_readback(&self) -> Option<Readback> {
        let waits = |index: usize| self.displays.iter().any(|d| d.needs_readback(index));
        let mut waiting = (0..).zip(&self.scanouts).filter(|(index, _)| waits(*index));
        let source = waiting.find_map(|(_, scanout)| scanout.source.as_ref())?;
        Some(Readback {
            resource: source.resource,
            rect: source.rect,
        })
    }

    /// A [`Readback`] is done, and its pixels are sent, or it failed: then the next flush tries again.
    pub(crate) fn readback_done(&mut self, readback: &Readback, is_read: bool) {
        for (index, scanout) in self.scanouts.iter_mut().enumerate() {
            let is_it = scanout.source.as_ref().is_some_and(|source| {
                source.resource == readback.resource && source.rect == readback.rect
            });
            if !is_it || !self.displays.iter().any(|d| d.needs_readback(index)) {
                continue;
            }
            scanout.never_flushed = !is_read;
            if is_read {
                scanout.send_everything(index, &mut self.displays, |d| d.needs_readback(index));
            }
            for display in &mut self.displays {
                if let Some(presented) = display.scanout_mut(index) {
                    presented.readback_done();
                }
            }
        }
    }

    /// The next update of the VMM's display.
    #[cfg(test)]
    pub(crate) fn take_update(&mut self, is_updating: bool) -> Option<super::Update> {
        self.pending_updates(DisplayId::VMM)?.take_next(is_updating)
    }
}
