// SPDX-License-Identifier: Apache-2.0 OR MIT
//! The updates that a display is still to be sent.

use super::cursor::Cursor;
use super::device_scanout::DeviceScanout;
use super::display_state::DisplayState;
use super::records::ScanoutRecords;
use super::update::Update;

/// The updates that one display is to be sent; see [`Scanouts::pending_updates`].
///
/// [`Scanouts::pending_updates`]: super::Scanouts::pending_updates
pub(crate) struct PendingUpdates<'a> {
    scanouts: &'a [DeviceScanout],
    cursors: &'a [Cursor],
    display: &'a mut DisplayState,
    records: &'a ScanoutRecords,
}

impl<'a> PendingUpdates<'a> {
    pub(super) fn new(
        scanouts: &'a [DeviceScanout],
        cursors: &'a [Cursor],
        display: &'a mut DisplayState,
        records: &'a ScanoutRecords,
    ) -> Self {
        Self {
            scanouts,
            cursors,
            display,
            records,
        }
    }

    /// Takes the next update. Nothing of a dmabuf while the display `awaits_dmabuf_ack`: until it
    /// answers the last [`Update::DmabufDamage`].
    ///
    /// The record of what the display was told is put, and becomes valid with the next commit: put the record of the
    /// message before that.
    pub(crate) fn take_next(&mut self, awaits_dmabuf_ack: bool) -> Option<Update> {
        let update = self
            .display
            .next_update(self.scanouts, self.cursors, awaits_dmabuf_ack);
        if self.display.take_news() {
            self.records.put_display(self.display);
        }
        update
    }
}
