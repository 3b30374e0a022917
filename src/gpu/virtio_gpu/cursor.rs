//! Commands of the cursor queue (virtio 1.2, 5.7.6.10).

use super::{CommandError, VirtioGpu};
use crate::gpu::protocol::{CursorUpdate, Response};
use crate::gpu::scanout::{Position, Shape};

impl VirtioGpu {
    /// UPDATE_CURSOR.
    pub(super) fn update_cursor(
        &mut self,
        update: &CursorUpdate,
    ) -> Result<Response, CommandError> {
        if update.resource == 0 {
            return Ok(self.move_cursor(update));
        }
        let shape = Shape {
            hot_x: update.hot_x,
            hot_y: update.hot_y,
            pixels: self.renderer.cursor(update.resource)?,
        };
        self.scanouts
            .shape_cursor(update.scanout, position(update), shape);
        Ok(Response::OkNoData)
    }

    /// MOVE_CURSOR.
    pub(super) fn move_cursor(&mut self, update: &CursorUpdate) -> Response {
        self.scanouts.move_cursor(update.scanout, position(update));
        Response::OkNoData
    }
}

fn position(update: &CursorUpdate) -> Position {
    Position {
        x: update.x,
        y: update.y,
        visible: update.resource != 0,
    }
}
