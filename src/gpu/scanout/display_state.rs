// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one display was told of all scanouts and cursors, and what it is still to be sent.

use super::cursor::Cursor;
use super::device_scanout::DeviceScanout;
use super::display_cursor::DisplayCursor;
use super::display_id::DisplayId;
use super::display_scanout::DisplayScanout;
use super::source::{DmabufSupport, ScanoutSource};
use super::update::Update;
use crate::gpu::kept_state::DisplayRecord;
use crate::gpu::protocol::MAX_SCANOUTS;

/// One display's side of the scanouts and cursors.
#[derive(Debug)]
pub(super) struct DisplayState {
    id: DisplayId,
    support: DmabufSupport,
    scanouts: [DisplayScanout; MAX_SCANOUTS],
    cursors: [DisplayCursor; MAX_SCANOUTS],
    /// The scanout whose updates are looked for first, so that each has its turn.
    next_scanout: usize,
    /// The record of what it was told is to be put: that has changed.
    has_news: bool,
}

impl DisplayState {
    /// A display that knows nothing, while there is nothing to show.
    pub(super) fn new(id: DisplayId) -> Self {
        Self {
            id,
            support: DmabufSupport::default(),
            scanouts: Default::default(),
            cursors: Default::default(),
            next_scanout: 0,
            has_news: false,
        }
    }

    /// Starts over with a display that knows nothing.
    pub(super) fn restart(&mut self, cursors: &[Cursor]) {
        self.support = DmabufSupport::default();
        for scanout in &mut self.scanouts {
            scanout.restart(self.id != DisplayId::VMM);
        }
        for (display_cursor, cursor) in self.cursors.iter_mut().zip(cursors) {
            display_cursor.restart(cursor);
        }
    }

    /// Goes on with a display that a predecessor told `sent`. The cursors are sent again.
    pub(super) fn resume(&mut self, sent: &DisplayRecord, cursors: &[Cursor]) {
        for (scanout, sent) in self.scanouts.iter_mut().zip(&sent.scanouts) {
            scanout.resume(*sent);
        }
        let told = self.cursors.iter_mut().zip(&sent.cursors);
        for ((display_cursor, told), cursor) in told.zip(cursors) {
            display_cursor.resume(*told, cursor);
        }
    }

    /// Whether what it was told has changed since the last time.
    pub(super) fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// What it was told, for a successor.
    pub(super) fn record(&self) -> DisplayRecord {
        DisplayRecord {
            scanouts: self.scanouts.each_ref().map(DisplayScanout::sent),
            cursors: self.cursors.each_ref().map(DisplayCursor::is_told),
        }
    }

    /// Queues the whole scanout for a new display. Pixels are read back first: the image may be stale if
    /// all other displays use the dmabuf.
    pub(super) fn begin(&mut self, index: usize, source: &ScanoutSource) {
        let shows_pixels = self.shows_pixels(source);
        if let Some(display_scanout) = self.scanouts.get_mut(index) {
            display_scanout.send_everything(source);
            display_scanout.set_needs_readback(shows_pixels);
        }
    }

    pub(super) fn id(&self) -> DisplayId {
        self.id
    }

    pub(super) fn support(&self) -> DmabufSupport {
        self.support
    }

    /// Sets which dmabufs it can be passed, and returns what that was before.
    pub(super) fn set_support(&mut self, support: DmabufSupport) -> DmabufSupport {
        std::mem::replace(&mut self.support, support)
    }

    /// Whether it is sent `source` as pixels.
    pub(super) fn shows_pixels(&self, source: &ScanoutSource) -> bool {
        source.dmabuf_for(self.support).is_none()
    }

    pub(super) fn scanout_mut(&mut self, index: usize) -> Option<&mut DisplayScanout> {
        self.scanouts.get_mut(index)
    }

    pub(super) fn cursor_mut(&mut self, index: usize) -> Option<&mut DisplayCursor> {
        self.cursors.get_mut(index)
    }

    /// Whether a scanout's image is to be read back for it.
    pub(super) fn needs_readback(&self, index: usize) -> bool {
        self.scanouts
            .get(index)
            .is_some_and(DisplayScanout::needs_readback)
    }

    /// See [`DisplayScanout::wants_fence`].
    pub(super) fn wants_fence(&self) -> bool {
        self.scanouts.iter().any(DisplayScanout::wants_fence)
    }

    /// See [`DisplayScanout::await_drawing`].
    pub(super) fn await_drawing(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.await_drawing();
        }
    }

    /// See [`DisplayScanout::drawing_done`].
    pub(super) fn drawing_done(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.drawing_done();
        }
    }

    /// The driver is gone, and its `cursors` with it.
    pub(super) fn hide_cursors(&mut self, cursors: &[Cursor]) {
        for (display_cursor, cursor) in self.cursors.iter_mut().zip(cursors) {
            display_cursor.hide(cursor);
        }
    }

    /// Takes the next update. Nothing of a dmabuf while the display `awaits_dmabuf_ack`: until it
    /// answers the last [`Update::DmabufDamage`]. Cursors first: they are small and the user's hand
    /// waits for them.
    pub(super) fn next_update(
        &mut self,
        scanouts: &[DeviceScanout],
        cursors: &[Cursor],
        awaits_dmabuf_ack: bool,
    ) -> Option<Update> {
        for ((id, cursor), display_cursor) in (0..).zip(cursors).zip(&mut self.cursors) {
            let was_told = display_cursor.is_told();
            if let Some(update) = display_cursor.next_update(id, cursor) {
                self.has_news |= !was_told;
                return Some(update);
            }
        }
        for offset in 0..MAX_SCANOUTS {
            let index = (self.next_scanout + offset) % MAX_SCANOUTS;
            let scanout = scanouts.get(index)?;
            let display_scanout = self.scanouts.get_mut(index)?;
            let update =
                display_scanout.next_update(index as u32, scanout, self.support, awaits_dmabuf_ack);
            if let Some(update) = update {
                // The first update of a dmabuf follows it at once.
                let stays = matches!(
                    update,
                    Update::Dmabuf {
                        dmabuf: Some(_),
                        ..
                    }
                );
                self.next_scanout = index + usize::from(!stays);
                self.has_news |= !matches!(update, Update::Pixels { .. });
                return Some(update);
            }
        }
        None
    }
}
