// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What each display of a device was told and is still to be sent.

use super::cursor::Cursor;
use super::device_scanout::DeviceScanout;
use super::display_cursor::DisplayCursor;
use super::display_id::DisplayId;
use super::display_scanout::DisplayScanout;
use super::display_state::DisplayState;
use super::source::{ScanoutSource, Shown};
use crate::geometry::Rect;

/// The state of each display that is connected.
#[derive(Debug, Default)]
pub(super) struct DisplayStates {
    states: Vec<DisplayState>,
}

impl DisplayStates {
    /// Adds a display, unless it is here already: then `false`.
    pub(super) fn add(&mut self, id: DisplayId) -> bool {
        let is_new = !self.states.iter().any(|display| display.id() == id);
        if is_new {
            self.states.push(DisplayState::new(id));
        }
        is_new
    }

    /// Removes a display.
    pub(super) fn remove(&mut self, id: DisplayId) {
        self.states.retain(|display| display.id() != id);
    }

    pub(super) fn get_mut(&mut self, id: DisplayId) -> Option<&mut DisplayState> {
        self.states.iter_mut().find(|display| display.id() == id)
    }

    #[cfg(feature = "fuzzing")]
    pub(super) fn get(&self, id: DisplayId) -> Option<&DisplayState> {
        self.states.iter().find(|display| display.id() == id)
    }

    /// Whether a display shows `source` by its pixels.
    pub(super) fn show_pixels(&self, source: &ScanoutSource) -> bool {
        self.states.iter().any(|d| d.shows_pixels(source))
    }

    /// How displays show `source`.
    pub(super) fn shown(&self, source: &ScanoutSource) -> Shown {
        match self.states.is_empty() {
            true => Shown::Nowhere,
            false if self.show_pixels(source) => Shown::Pixels,
            false => Shown::Dmabuf,
        }
    }

    /// Whether a scanout's image is to be read back for a display.
    pub(super) fn need_readback(&self, index: usize) -> bool {
        self.states.iter().any(|d| d.needs_readback(index))
    }

    /// Whether damage of a dmabuf was flushed for which no fence is awaited.
    pub(super) fn want_fence(&self) -> bool {
        self.states.iter().any(DisplayState::wants_fence)
    }

    /// See [`DisplayScanout::await_drawing`].
    pub(super) fn await_drawing(&mut self) {
        for display in &mut self.states {
            display.await_drawing();
        }
    }

    /// See [`DisplayScanout::drawing_done`].
    pub(super) fn drawing_done(&mut self) {
        for display in &mut self.states {
            display.drawing_done();
        }
    }

    /// Tells each display's side of the cursor `index`.
    pub(super) fn for_cursor(&mut self, index: usize, tell: impl Fn(&mut DisplayCursor)) {
        for display in &mut self.states {
            if let Some(cursor) = display.cursor_mut(index) {
                tell(cursor);
            }
        }
    }

    /// The driver is gone, and its `cursors` with it.
    pub(super) fn hide_cursors(&mut self, cursors: &[Cursor]) {
        for display in &mut self.states {
            display.hide_cursors(cursors);
        }
    }

    /// Tells each display's side of the scanout `index`.
    pub(super) fn for_scanout(&mut self, index: usize, tell: impl Fn(&mut DisplayScanout)) {
        for display in &mut self.states {
            if let Some(scanout) = display.scanout_mut(index) {
                tell(scanout);
            }
        }
    }

    /// Queues all of a scanout, as it is now, for the displays that `is_meant` picks. This includes
    /// unflushed changes. Because that clears the shared damage, the other pixel displays get those
    /// changes too.
    pub(super) fn send_everything(
        &mut self,
        index: usize,
        scanout: &mut DeviceScanout,
        is_meant: impl Fn(&DisplayState) -> bool,
    ) {
        let Some(source) = scanout.source() else {
            return;
        };
        let mut pixels_are_sent = false;
        for display in self.states.iter_mut().filter(|display| is_meant(display)) {
            pixels_are_sent |= display.shows_pixels(source);
            if let Some(display_scanout) = display.scanout_mut(index) {
                display_scanout.send_everything(source);
            }
        }
        if !pixels_are_sent {
            return;
        }
        for display in &mut self.states {
            let shows_pixels = display.shows_pixels(source);
            if let Some(display_scanout) = display.scanout_mut(index).filter(|_| shows_pixels) {
                display_scanout.add_damage(scanout.damage_unflushed(), &source.everything());
            }
        }
        scanout.clear_damage();
    }

    /// Queues for all displays what of a scanout changed within `rect` of its source's image, or
    /// everything with a full flush.
    pub(super) fn flush(&mut self, index: usize, scanout: &mut DeviceScanout, rect: &Rect) {
        let Some(flush) = scanout.flush(rect) else {
            return;
        };
        let Some(source) = scanout.source() else {
            return;
        };
        let mut by_pixels: Option<&mut DisplayScanout> = None;
        for display in &mut self.states {
            let shows_pixels = display.shows_pixels(source);
            let Some(display_scanout) = display.scanout_mut(index) else {
                continue;
            };
            if !shows_pixels {
                display_scanout.flush_dmabuf(flush.rect);
                continue;
            }
            if flush.is_full {
                display_scanout.damage_to_send().clear();
            }
            if let Some(other) = by_pixels.replace(display_scanout) {
                other.add_damage(scanout.damage_unflushed(), &flush.rect);
            }
        }
        // The last one takes the damage, those before it copied it.
        if let Some(last) = by_pixels {
            scanout.take_damage(&flush.rect, last.damage_to_send());
        }
    }
}
