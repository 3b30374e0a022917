//! The updates that a display is still to be sent.

use super::cursor::Cursor;
use super::device_scanout::DeviceScanout;
use super::display_state::DisplayState;
use super::update::Update;

/// The updates that one display is to be sent; see [`Scanouts::pending_updates`].
///
/// [`Scanouts::pending_updates`]: super::Scanouts::pending_updates
pub(crate) struct PendingUpdates<'a> {
    scanouts: &'a [DeviceScanout],
    cursors: &'a [Cursor],
    display: &'a mut DisplayState,
}

impl<'a> PendingUpdates<'a> {
    pub(super) fn new(
        scanouts: &'a [DeviceScanout],
        cursors: &'a [Cursor],
        display: &'a mut DisplayState,
    ) -> Self {
        Self {
            scanouts,
            cursors,
            display,
        }
    }

    /// Takes the next update. Nothing of a dmabuf while the display `awaits_dmabuf_ack`: until it
    /// answers the last [`Update::DmabufDamage`].
    pub(crate) fn take_next(&mut self, awaits_dmabuf_ack: bool) -> Option<Update> {
        self.display
            .next_update(self.scanouts, self.cursors, awaits_dmabuf_ack)
    }
}
