//! What one display was told of all scanouts and cursors, and what it is still to be sent.

use super::cursor::Cursor;
use super::device_scanout::DeviceScanout;
use super::presented_cursor::PresentedCursor;
use super::presented_scanout::PresentedScanout;
use super::source::{DmabufSupport, ScanoutSource};
use super::update::Update;
use crate::gpu::protocol::MAX_SCANOUTS;

/// Names a display among those of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DisplayId(u16);

impl DisplayId {
    /// The VMM's, which comes with `VHOST_USER_GPU_SET_SOCKET`.
    pub(crate) const VMM: Self = Self(0);

    /// Another one, counted from 1.
    #[cfg(test)]
    pub(crate) const fn other(number: u16) -> Self {
        Self(number)
    }
}

/// One display's side of the scanouts and cursors.
#[derive(Debug)]
pub(super) struct Presentation {
    id: DisplayId,
    support: DmabufSupport,
    scanouts: [PresentedScanout; MAX_SCANOUTS],
    cursors: [PresentedCursor; MAX_SCANOUTS],
    /// Where the search for an update goes on, so that each scanout has its turn.
    turn: usize,
}

impl Presentation {
    /// A display that knows nothing, while there is nothing to show.
    pub(super) fn new(id: DisplayId) -> Self {
        Self {
            id,
            support: DmabufSupport::default(),
            scanouts: Default::default(),
            cursors: Default::default(),
            turn: 0,
        }
    }

    /// Starts over with a display that knows nothing.
    pub(super) fn restart(&mut self, cursors: &[Cursor]) {
        self.support = DmabufSupport::default();
        for scanout in &mut self.scanouts {
            scanout.restart();
        }
        for (presented, cursor) in self.cursors.iter_mut().zip(cursors) {
            presented.restart(cursor);
        }
    }

    /// Has all of a scanout sent to a display that is new: pixels once they are read back, for no other
    /// display may have needed them.
    pub(super) fn begin(&mut self, index: usize, source: &ScanoutSource) {
        let shows_pixels = self.shows_pixels(source);
        if let Some(presented) = self.scanouts.get_mut(index) {
            presented.send_everything(source);
            presented.set_needs_readback(shows_pixels);
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

    pub(super) fn scanout_mut(&mut self, index: usize) -> Option<&mut PresentedScanout> {
        self.scanouts.get_mut(index)
    }

    pub(super) fn cursor_mut(&mut self, index: usize) -> Option<&mut PresentedCursor> {
        self.cursors.get_mut(index)
    }

    /// Whether a scanout's image is to be read back for it.
    pub(super) fn needs_readback(&self, index: usize) -> bool {
        self.scanouts
            .get(index)
            .is_some_and(PresentedScanout::needs_readback)
    }

    /// See [`PresentedScanout::wants_fence`].
    pub(super) fn wants_fence(&self) -> bool {
        self.scanouts.iter().any(PresentedScanout::wants_fence)
    }

    /// See [`PresentedScanout::await_flush`].
    pub(super) fn await_flush(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.await_flush();
        }
    }

    /// See [`PresentedScanout::flush_done`].
    pub(super) fn flush_done(&mut self) {
        for scanout in &mut self.scanouts {
            scanout.flush_done();
        }
    }

    /// The driver is gone, and its `cursors` with it.
    pub(super) fn hide_cursors(&mut self, cursors: &[Cursor]) {
        for (presented, cursor) in self.cursors.iter_mut().zip(cursors) {
            presented.hide(cursor);
        }
    }
}

/// The updates that one display is to be sent; see [`Scanouts::pending_updates`].
///
/// [`Scanouts::pending_updates`]: super::Scanouts::pending_updates
pub(crate) struct PendingUpdates<'a> {
    scanouts: &'a [DeviceScanout],
    cursors: &'a [Cursor],
    display: &'a mut Presentation,
}

impl<'a> PendingUpdates<'a> {
    pub(super) fn new(
        scanouts: &'a [DeviceScanout],
        cursors: &'a [Cursor],
        display: &'a mut Presentation,
    ) -> Self {
        Self {
            scanouts,
            cursors,
            display,
        }
    }

    /// Takes the next update: nothing of a dmabuf while the display `is_updating`, which is until it
    /// answered the last [`Update::DmabufDamage`]. Cursors first: they are small and the user's hand
    /// waits for them.
    pub(crate) fn take_next(&mut self, is_updating: bool) -> Option<Update> {
        let display = &mut *self.display;
        for ((id, cursor), presented) in (0..).zip(self.cursors).zip(&mut display.cursors) {
            if let Some(update) = presented.next_update(id, cursor) {
                return Some(update);
            }
        }
        for step in 0..MAX_SCANOUTS {
            let index = (display.turn + step) % MAX_SCANOUTS;
            let scanout = self.scanouts.get(index)?;
            let presented = display.scanouts.get_mut(index)?;
            let update = presented.next_update(index as u32, scanout, display.support, is_updating);
            if let Some(update) = update {
                // The first update of a dmabuf follows it at once.
                let stays = matches!(
                    update,
                    Update::Dmabuf {
                        dmabuf: Some(_),
                        ..
                    }
                );
                display.turn = index + usize::from(!stays);
                return Some(update);
            }
        }
        None
    }
}
