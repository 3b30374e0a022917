//! A scanout's cursor.

use super::super::resource::CursorPixels;
use super::Update;

/// Where a cursor is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Column of its hot spot.
    pub x: u32,
    /// Row of its hot spot.
    pub y: u32,
    /// Whether it can be seen.
    pub visible: bool,
}

/// How a cursor looks.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Column of the hot spot in it.
    pub hot_x: u32,
    /// Row of the hot spot in it.
    pub hot_y: u32,
    /// 64 by 64 pixels.
    pub pixels: CursorPixels,
}

/// What there is of a cursor, and what of it the display was not sent yet.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    pub(super) position: Position,
    pub(super) shape: Option<Shape>,
    /// Whether the display was told where it is.
    pub(super) told: bool,
    pub(super) moved: bool,
    pub(super) shaped: bool,
}

impl Cursor {
    pub(super) fn next(&mut self, id: u32) -> Option<Update> {
        let position = self.position;
        self.told |= self.shaped || self.moved;
        if std::mem::take(&mut self.shaped)
            && let Some(shape) = self.shape.clone()
        {
            // The message shows the cursor; one that is hidden is hidden again right after.
            self.moved = !position.visible;
            return Some(Update::Cursor {
                id,
                position,
                shape,
            });
        }
        std::mem::take(&mut self.moved).then_some(Update::CursorPosition { id, position })
    }
}
