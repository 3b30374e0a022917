// SPDX-License-Identifier: Apache-2.0 OR MIT
//! What one display was told of a cursor.

use super::cursor::Cursor;
use super::update::Update;

/// What of a cursor a display was told, and what it is still to be sent.
#[derive(Debug, Default)]
pub(super) struct DisplayCursor {
    /// Whether the display was told where it is.
    told: bool,
    moved: bool,
    shaped: bool,
}

impl DisplayCursor {
    /// Starts over with a display that knows nothing of `cursor`.
    pub(super) fn restart(&mut self, cursor: &Cursor) {
        let shaped = cursor.shape.is_some();
        *self = Self {
            told: false,
            moved: shaped,
            shaped,
        };
    }

    /// Goes on with a display that may have been told of the cursor by a predecessor, and is sent it again.
    pub(super) fn resume(&mut self, told: bool, cursor: &Cursor) {
        let shaped = cursor.shape.is_some();
        *self = Self {
            told,
            moved: told || shaped || cursor.position.visible,
            shaped,
        };
    }

    /// Whether the display was told where it is.
    pub(super) fn is_told(&self) -> bool {
        self.told
    }

    /// Queues the new position.
    pub(super) fn position_changed(&mut self) {
        self.moved = true;
    }

    /// Queues the new shape and position.
    pub(super) fn shape_changed(&mut self) {
        self.moved = true;
        self.shaped = true;
    }

    /// The driver is gone: queues the end of `cursor`, as it was last, if the display shows it.
    pub(super) fn hide(&mut self, cursor: &Cursor) {
        *self = Self {
            told: self.told,
            // Or the end of the cursor of the driver before it is still to be sent.
            moved: self.told && (cursor.position.visible || self.moved),
            shaped: false,
        };
    }

    /// The next update of `cursor`, which is that of scanout `id`.
    pub(super) fn next_update(&mut self, id: u32, cursor: &Cursor) -> Option<Update> {
        let position = cursor.position;
        self.told |= self.shaped || self.moved;
        let is_shaped = std::mem::take(&mut self.shaped);
        if let Some(shape) = cursor.shape.as_ref().filter(|_| is_shaped) {
            // The message shows the cursor; a hidden one is hidden again by the next one.
            self.moved = !position.visible;
            return Some(Update::Cursor {
                id,
                position,
                shape: shape.clone(),
            });
        }
        std::mem::take(&mut self.moved).then_some(Update::CursorPosition { id, position })
    }
}
